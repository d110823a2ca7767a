"""Cutting the token grid into blocks, each a sequence through time (LSSVWM, arXiv 2505.20171, 4.1)."""

from __future__ import annotations

import torch


def to_blocks(tokens: torch.Tensor, block: int) -> torch.Tensor:
    """(B,T,h,w,D) -> (B * num_blocks, T * block**2, D): space first inside a frame, then time."""
    batch, time, height, width, channels = tokens.shape
    split = tokens.reshape(batch, time, height // block, block, width // block, block, channels)
    return split.permute(0, 2, 4, 1, 3, 5, 6).reshape(-1, time * block * block, channels)


def from_blocks(sequences: torch.Tensor, block: int, grid: tuple[int, int]) -> torch.Tensor:
    """(B * num_blocks, T * block**2, D) -> (B,T,h,w,D): the inverse of :func:`to_blocks`; grid is (h, w)."""
    height, width = grid
    rows, columns = height // block, width // block
    batch, channels = sequences.shape[0] // (rows * columns), sequences.shape[-1]
    split = sequences.reshape(batch, rows, columns, -1, block, block, channels)
    return split.permute(0, 3, 1, 4, 2, 5, 6).reshape(batch, -1, height, width, channels)


def num_blocks(block: int, grid: tuple[int, int]) -> int:
    """How many blocks of ``block`` x ``block`` tokens tile the grid."""
    return (grid[0] // block) * (grid[1] // block)
