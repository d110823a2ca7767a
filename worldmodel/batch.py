"""What one training update sees: windows of latents with their actions, odometry and targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch


@dataclass(frozen=True)
class WindowBatch:
    """Windows of ``T`` frames from ``B`` episodes. ``action[t]`` led to frame t; ``reward[t]`` came with it.

    Attributes:
        latents: (B, T, C, h, w) standardised latents.
        actions: (B, T, A) float; one-hot for discrete actions; zeros where there was no action.
        action_known: (B, T) bool; where False the model is given its null action.
        proprio: (B, T, P) odometry, or None.
        proprio_known: (B, T) bool; where False the model is given its null odometry.
        reward: (B, T).
        continuation: (B, T); 1 - terminated.
        reward_mask: (B, T) bool; where reward and continuation targets count.
        value: (B, T) discounted sum of the rewards that came after frame t.
        value_mask: (B, T) bool; where the value target counts.
    """

    latents: torch.Tensor
    actions: torch.Tensor
    action_known: torch.Tensor
    proprio: torch.Tensor | None
    proprio_known: torch.Tensor
    reward: torch.Tensor
    continuation: torch.Tensor
    reward_mask: torch.Tensor
    value: torch.Tensor
    value_mask: torch.Tensor

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> WindowBatch:
        """Apply ``function`` to every tensor."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        mapped: dict[str, Any] = {k: None if v is None else function(v) for k, v in values.items()}
        return WindowBatch(**mapped)

    def to(self, device: torch.device | str) -> WindowBatch:
        """The same batch on another device."""
        return self.map(lambda tensor: tensor.to(device))

    def rows(self, start: int, stop: int) -> WindowBatch:
        """Rows ``start`` to ``stop`` of the batch: one process's share."""
        return self.map(lambda tensor: tensor[start:stop])
