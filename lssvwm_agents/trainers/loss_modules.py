"""Losses as modules, so that data-parallel training can wrap them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from lssvwm_agents.seeding import generator
from lssvwm_agents.worldmodel import (
    ObjectiveConfig,
    Tokenizer,
    TokenizerLossConfig,
    WindowBatch,
    WorldModel,
    tokenizer_loss,
    world_model_loss,
)

LossAndMetrics = tuple[torch.Tensor, dict[str, torch.Tensor]]


class TokenizerLoss(nn.Module):
    """The tokenizer's loss on uint8 frames."""

    def __init__(self, tokenizer: Tokenizer, config: TokenizerLossConfig) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.config = config

    def forward(self, frames: torch.Tensor) -> LossAndMetrics:
        """(B, H, W, 3) uint8 to (loss, metrics)."""
        return tokenizer_loss(self.tokenizer, unit_frames(frames), self.config)


class WorldModelLoss(nn.Module):
    """The world model's loss on windows; all noise is drawn for the whole batch from one seed."""

    def __init__(
        self,
        model: WorldModel,
        config: ObjectiveConfig,
        sum_over_processes: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.sum_over_processes = sum_over_processes

    def objective(self, with_rollouts: bool) -> ObjectiveConfig:
        """The objective, its rollouts left out if they have not begun."""
        return self.config if with_rollouts else replace(self.config, rollout_weight=0.0)

    def forward(
        self,
        batch: WindowBatch,
        seed: int,
        row_offset: int,
        global_rows: int,
        with_rollouts: bool = True,
    ) -> LossAndMetrics:
        """This process's rows of a batch to (loss, metrics)."""
        noise = generator(batch.latents.device, seed)
        return world_model_loss(
            self.model,
            batch,
            noise,
            self.objective(with_rollouts),
            row_offset,
            global_rows,
            sum_over_processes=self.sum_over_processes,
        )


def unit_frames(frames: torch.Tensor) -> torch.Tensor:
    """(..., H, W, 3) uint8 to (..., 3, H, W) float in [0, 1]."""
    return frames.movedim(-1, -3).to(torch.float32) / 255.0
