"""Noise levels: 0 is clean, 1 is noise. ``z = (1 - n) x + n e`` (flow matching, arXiv 2210.02747)."""

from __future__ import annotations

import torch


def add_noise(clean: torch.Tensor, noise: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Mix (B,T,C,h,w) latents with noise at level (B,T). At level 1 it is zero: pure noise tells nothing."""
    n = level[..., None, None, None].to(clean.dtype)
    return torch.where(n < 1.0, (1.0 - n) * clean + n * noise, torch.zeros_like(clean))


def training_levels(
    shape: tuple[int, int], full_noise_share: float, generator: torch.Generator, device: torch.device
) -> torch.Tensor:
    """(B,T) levels: with probability ``full_noise_share`` exactly 1, else uniform in [0, 1)."""
    level = torch.rand(shape, generator=generator, device=device)
    full = torch.rand(shape, generator=generator, device=device) < full_noise_share
    return torch.where(full, torch.ones_like(level), level)
