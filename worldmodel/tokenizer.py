"""Frames to a small latent grid and back: a convolutional autoencoder, trained first, then frozen.

Latents are standardised per channel; the statistics are stored with the weights.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from lssvwm_agents.worldmodel.config import TokenizerConfig


class Tokenizer(nn.Module):
    """Convolutional autoencoder with a plain bottleneck."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.channels
        deepest = widths[-1]
        down: list[nn.Module] = []
        for before, after in zip((3, *widths[:-1]), widths, strict=True):
            down += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.SiLU()]
        self.encoder = nn.Sequential(
            *down,
            *(ResidualBlock(deepest) for _ in range(config.num_residual_blocks)),
            nn.Conv2d(deepest, config.latent_channels, 1),
        )
        up: list[nn.Module] = []
        for before, after in zip(widths[::-1], (*widths[-2::-1], widths[0]), strict=True):
            up += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), nn.SiLU()]
        self.decoder = nn.Sequential(
            nn.Conv2d(config.latent_channels, deepest, 1),
            *(ResidualBlock(deepest) for _ in range(config.num_residual_blocks)),
            *up,
            nn.Conv2d(widths[0], 3, 3, padding=1),
        )
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std", torch.ones(config.latent_channels))
        self.latent_mean: torch.Tensor
        self.latent_std: torch.Tensor

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """(..., 3, H, W) in [0, 1] -> standardised latents (..., C, h, w).

        Raises:
            ValueError: If the frames are not of ``config.frame_size``, or no floats.
        """
        size = self.config.frame_size
        if not frames.is_floating_point():
            raise ValueError(f"frames must be floats in [0, 1], got {frames.dtype}: divide bytes by 255.")
        if frames.shape[-3:] != (3, size, size):
            raise ValueError(
                f"frames must be (..., 3, {size}, {size}) in [0, 1] for this tokenizer, "
                f"got {tuple(frames.shape)}."
            )
        flat = frames.reshape(-1, *frames.shape[-3:]).to(self.latent_mean.dtype)
        latents: torch.Tensor = self.standardise(self.encoder(2.0 * flat - 1.0))
        return latents.reshape(*frames.shape[:-3], *latents.shape[-3:])

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Standardised latents (..., C, h, w) -> frames (..., 3, H, W), clamped to [0, 1]."""
        return self.decode_unclamped(latents).clamp(0.0, 1.0)

    def decode_unclamped(self, latents: torch.Tensor) -> torch.Tensor:
        """As :meth:`decode` without the clamp: what the reconstruction loss looks at."""
        flat = latents.reshape(-1, *latents.shape[-3:]).to(self.latent_mean.dtype)
        mean, std = self.latent_mean[:, None, None], self.latent_std[:, None, None]
        frames: torch.Tensor = 0.5 * (self.decoder(flat * std + mean) + 1.0)
        return frames.reshape(*latents.shape[:-3], *frames.shape[-3:])

    def standardise(self, raw: torch.Tensor) -> torch.Tensor:
        """Raw encoder output (N, C, h, w) -> zero mean and unit deviation per channel."""
        return (raw - self.latent_mean[:, None, None]) / self.latent_std[:, None, None]

    @torch.no_grad()
    def fit_statistics(self, frames: torch.Tensor, batch_size: int = 512) -> None:
        """Measure and store the latents' mean and deviation per channel on frames (N, 3, H, W) in [0, 1]."""
        self.latent_mean.zero_()
        self.latent_std.fill_(1.0)
        latents = torch.cat([self.encode(batch).float() for batch in torch.split(frames, batch_size)])
        self.latent_mean.copy_(latents.mean(dim=(0, 2, 3)))
        self.latent_std.copy_(latents.std(dim=(0, 2, 3)).clamp(min=1e-3))


class ResidualBlock(nn.Module):
    """x + conv(silu(conv(silu(x)))), normalised by groups, half as wide inside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(math.gcd(8, channels), channels)
        self.first = nn.Conv2d(channels, channels // 2, 3, padding=1)
        self.second = nn.Conv2d(channels // 2, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, h, w) -> (N, C, h, w)."""
        hidden: torch.Tensor = self.second(F.silu(self.first(F.silu(self.norm(x)))))
        return x + hidden
