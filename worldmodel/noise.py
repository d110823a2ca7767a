"""Noise levels: 0 is clean, 1 is noise. ``z = (1 - n) x + n e`` (flow matching, arXiv 2210.02747)."""

from __future__ import annotations

import torch


def add_noise(clean: torch.Tensor, noise: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Mix (B,T,C,h,w) latents with noise at level (B,T). At level 1 it is zero: pure noise tells nothing."""
    n = level[..., None, None, None].to(clean.dtype)
    return torch.where(n < 1.0, (1.0 - n) * clean + n * noise, torch.zeros_like(clean))
