"""Rotation of channel pairs by data-dependent or positional angles.

Rotating B and C by a running angle turns a real state-space recurrence into a complex one (Mamba-3, arXiv
2603.15569): the state itself need not know. A state that only shrinks cannot count modulo n; one that rotates
can.
"""

from __future__ import annotations

import math

import torch


def rotate(x: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Rotate the pairs (i, i + N/2) of the last dimension: (..., N), (..., N/2) in radians -> (..., N)."""
    cos, sin = torch.cos(angle).to(x.dtype), torch.sin(angle).to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def running_angle(increment: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Angle after each token: (R,L,H,N/2) increments, (R,H,N/2) start, in radians -> (R,L,H,N/2)."""
    return start[:, None] + torch.cumsum(increment.to(start.dtype), dim=1)


def wrap(angle: torch.Tensor) -> torch.Tensor:
    """The same direction in [0, 2 pi): a running angle must not grow with the length of a video."""
    return torch.remainder(angle, 2 * math.pi)


def time_angles(positions: int, pairs: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """RoPE angles (positions, pairs) for short windows (Su et al. 2021): wavelengths from 6 to 60 frames."""
    frequency = torch.logspace(0.0, -1.0, pairs, device=device, dtype=dtype)
    return torch.arange(positions, device=device, dtype=dtype)[:, None] * frequency
