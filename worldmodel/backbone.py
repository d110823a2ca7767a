"""The stack of layers between latents and features: what holds memory and what denoises."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from lssvwm_agents.worldmodel.conditioning import FrameConditioning
from lssvwm_agents.worldmodel.config import WorldModelConfig
from lssvwm_agents.worldmodel.layer import Layer, Stream
from lssvwm_agents.worldmodel.ssm import BlockScan
from lssvwm_agents.worldmodel.state import LayerState


class Frames(NamedTuple):
    """Latents of frames with what conditions them.

    Attributes:
        latents: (B,T,C,h,w); zeros where the noise level is 1 (pure noise tells nothing).
        noise_level: (B,T) in [0, 1].
        action: (B,T,A).
        action_known: (B,T).
        proprio: (B,T,P).
        proprio_known: (B,T).
    """

    latents: torch.Tensor
    noise_level: torch.Tensor
    action: torch.Tensor
    action_known: torch.Tensor
    proprio: torch.Tensor
    proprio_known: torch.Tensor


class BackboneOutput(NamedTuple):
    """``features`` (B,T,F) of the writing frames, ``clean`` (B,T,C,h,w) predicted latents, and memory."""

    features: torch.Tensor | None
    clean: torch.Tensor | None
    layers: tuple[LayerState, ...]


class Backbone(nn.Module):
    """Reads memory to denoise frames, and writes finished frames into it."""

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        width, grid = config.backbone.width, (config.grid_size, config.grid_size)
        self.patch_size, self.width = config.patch_size, width
        self.latent_channels = config.tokenizer.latent_channels
        patch_dim = self.latent_channels * config.patch_size**2
        self.feature_dim = 2 * width
        self.conditioning = FrameConditioning(
            config.backbone.conditioning_width, config.action_dim, config.proprio_dim
        )
        self.embed = nn.Linear(patch_dim, width)
        self.position = nn.Parameter(0.02 * torch.randn(*grid, width))
        self.layers = nn.ModuleList(
            Layer(config.backbone, block, grid) for block in config.backbone.block_sizes
        )
        self.modulate_out = nn.Linear(config.backbone.conditioning_width, 2 * width)
        self.project_out = nn.Linear(width, patch_dim)
        self.pool_position = nn.Parameter(0.5 * torch.randn(*grid, width))
        self.pool = nn.Linear(width, self.feature_dim)
        for parameter in (
            self.modulate_out.weight,
            self.modulate_out.bias,
            self.project_out.weight,
            self.project_out.bias,
        ):
            nn.init.zeros_(parameter)

    @property
    def scan_groups(self) -> tuple[int, ...]:
        """Groups ``G`` of every layer's scan; 0 for a layer without one."""
        scans: list[BlockScan | None] = [layer.scan for layer in self.layers]  # type: ignore[misc]
        return tuple(0 if scan is None else scan.groups for scan in scans)

    def initial_layers(self, batch: int) -> tuple[LayerState, ...]:
        """Empty memory for ``batch`` episodes."""
        return tuple(layer.initial_state(batch, self.position) for layer in self.layers)  # type: ignore[operator]

    def forward(
        self,
        write: Frames | None,
        read: Frames | None,
        layers: tuple[LayerState, ...],
        *,
        denoise_writes: bool = False,
    ) -> BackboneOutput:
        """Write some frames into memory and denoise others from it.

        Args:
            write: Frames that enter memory, or None.
            read: Frames to be denoised: frame t sees memory up to frame t-1 of ``write``. Without ``write``,
                T = 1.
            layers: Memory before the first frame.
            denoise_writes: Predict clean latents of the writing frames instead (diffusion forcing).
        """
        w = None if write is None else self._embed(write)
        r = None if read is None else self._embed(read)
        after = []
        for layer, state in zip(self.layers, layers, strict=True):
            w, r, state = layer(w, r, state)
            after.append(state)
        features = None if w is None else self._features(w.tokens)
        denoised = w if denoise_writes else r
        return BackboneOutput(features, None if denoised is None else self._clean(denoised), tuple(after))

    def _embed(self, frames: Frames) -> Stream:
        conditioning = self.conditioning(*frames[1:])
        embedded = self.embed(self._patch(frames.latents))
        return Stream(embedded + self.position.to(embedded.dtype), conditioning)

    def _features(self, tokens: torch.Tensor) -> torch.Tensor:
        normed = F.rms_norm(tokens, (self.width,)) + self.pool_position.to(tokens.dtype)
        return F.silu(self.pool(normed)).mean(dim=(2, 3))

    def _clean(self, stream: Stream) -> torch.Tensor:
        shift, scale = self.modulate_out(stream.conditioning)[:, :, None, None, :].chunk(2, dim=-1)
        return self._unpatch(self.project_out(F.rms_norm(stream.tokens, (self.width,)) * (1 + scale) + shift))

    def _patch(self, latents: torch.Tensor) -> torch.Tensor:  # (B,T,C,h,w) -> (B,T,h/p,w/p,C*p*p)
        p = self.patch_size
        batch, time, channels, height, width = latents.shape
        split = latents.reshape(batch, time, channels, height // p, p, width // p, p)
        return split.permute(0, 1, 3, 5, 2, 4, 6).flatten(4)

    def _unpatch(self, tokens: torch.Tensor) -> torch.Tensor:
        p = self.patch_size
        batch, time, rows, columns, _ = tokens.shape
        split = tokens.reshape(batch, time, rows, columns, self.latent_channels, p, p)
        return split.permute(0, 1, 4, 2, 5, 3, 6).reshape(
            batch, time, self.latent_channels, rows * p, columns * p
        )
