"""Frames to a small latent grid and back: trained first, then frozen.

Three kinds: our convolutional autoencoder, an autoencoder of `diffusers`, and squares of pixels as they are.
Latents are standardised per channel; the statistics are stored with the weights.
"""

from __future__ import annotations

import math
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import nn

from lssvwm_agents.worldmodel.autoencoder import build_autoencoder, load_autoencoder
from lssvwm_agents.worldmodel.config import TokenizerConfig


class Tokenizer(nn.Module):
    """An encoder, a decoder, and the statistics of the latents between them.

    Raises:
        ImportError: If ``config.kind`` needs a package that is not installed.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = _build(config)
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std", torch.ones(config.latent_channels))
        self.latent_mean: torch.Tensor
        self.latent_std: torch.Tensor

    @classmethod
    def from_autoencoder(cls, path: str, frame_size: int, **options: Any) -> Self:
        """A tokenizer around a trained AutoencoderKL of `diffusers`; fit its statistics before use.

        Args:
            path: Folder, or id on the Hugging Face hub.
            frame_size: Height and width of the frames, in pixels.
            options: As ``AutoencoderKL.from_pretrained``, such as ``subfolder="vae"``.

        Raises:
            ImportError: If `diffusers` is not installed.
            ValueError: If it is no autoencoder of RGB frames, or the size does not fit it.
            OSError: If there is none.
        """
        config, encoder, decoder = load_autoencoder(path, frame_size, **options)
        tokenizer = cls(config)
        tokenizer.encoder, tokenizer.decoder = encoder, decoder
        return tokenizer.eval()

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


def _build(config: TokenizerConfig) -> tuple[nn.Module, nn.Module]:
    """Encoder, (N,3,H,W) in [-1, 1] to raw latents (N,C,h,w), and decoder."""
    if config.kind == "identity":
        scale = 2**config.num_halvings
        return nn.PixelUnshuffle(scale), nn.PixelShuffle(scale)
    return build_autoencoder(config) if config.kind == "diffusers" else _convolutional(config)


def _convolutional(config: TokenizerConfig) -> tuple[nn.Sequential, nn.Sequential]:
    """Strided convolutions down to a plain bottleneck, and transposed ones up again."""
    widths = config.channels
    deepest = widths[-1]
    down: list[nn.Module] = []
    for before, after in zip((3, *widths[:-1]), widths, strict=True):
        down += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.SiLU()]
    encoder = nn.Sequential(
        *down,
        *(ResidualBlock(deepest) for _ in range(config.num_residual_blocks)),
        nn.Conv2d(deepest, config.latent_channels, 1),
    )
    up: list[nn.Module] = []
    for before, after in zip(widths[::-1], (*widths[-2::-1], widths[0]), strict=True):
        up += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), nn.SiLU()]
    decoder = nn.Sequential(
        nn.Conv2d(config.latent_channels, deepest, 1),
        *(ResidualBlock(deepest) for _ in range(config.num_residual_blocks)),
        *up,
        nn.Conv2d(widths[0], 3, 3, padding=1),
    )
    return encoder, decoder


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
