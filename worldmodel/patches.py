"""Squares of latent sites as tokens, and back."""

from __future__ import annotations

import torch


def to_patches(latents: torch.Tensor, patch_size: int) -> torch.Tensor:
    """(B,T,C,h,w) -> (B,T,h/p,w/p,C*p*p), for squares of ``patch_size`` p."""
    p = patch_size
    batch, time, channels, height, width = latents.shape
    split = latents.reshape(batch, time, channels, height // p, p, width // p, p)
    return split.permute(0, 1, 3, 5, 2, 4, 6).flatten(4)


def from_patches(tokens: torch.Tensor, patch_size: int) -> torch.Tensor:
    """(B,T,h/p,w/p,C*p*p) -> (B,T,C,h,w): the inverse of :func:`to_patches`."""
    p = patch_size
    batch, time, rows, columns, numbers = tokens.shape
    split = tokens.reshape(batch, time, rows, columns, numbers // (p * p), p, p)
    return split.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, time, -1, rows * p, columns * p)
