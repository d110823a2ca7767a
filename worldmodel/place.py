"""Places as keys: rotations of the scan's B and C (`PlaceRotation`), and features (`PlaceFeatures`).

Where B and C are rotated by angles linear in the odometry and in the token's position, what is read,
``c . b``, depends on how far apart in space the reading and the writing frame are: every pair of channels is
one random Fourier feature (Rahimi and Recht 2007) of a kernel over places, and their sum with learnt weights
is the kernel. Memory answers with what was seen nearby, however long ago, from the first update on. It is
RoPE (Su et al. 2021, arXiv 2104.09864) with camera poses for positions, as PRoPE (Li et al. 2025, arXiv
2507.10496) has it for attention, on the keys of a state-space model.

Shape legend, beside the one of ``ssm.py``: Q numbers of a place   J = N/2 pairs
"""

from __future__ import annotations

import math

import torch
from torch import nn

from lssvwm_agents.worldmodel.config import Odometry
from lssvwm_agents.worldmodel.odometry import POSE_DIM

FREQUENCIES = (1.0, 16.0)
"""Slowest and fastest initial rotation, in radians per standard deviation of the odometry."""
HEADING_FREQUENCY = 2.5
"""Deviation of the features' turns per turn of the heading: the kernel falls by half within 27 degrees."""
MAX_TURNS = 6
"""Fastest rotation with the heading, in turns per turn; whole, so that a full turn changes nothing."""


def place_dim(kind: Odometry, proprio_dim: int) -> int:
    """Numbers ``Q`` of a place: a pose's sine and cosine are one heading."""
    return proprio_dim - 1 if kind == "pose" else proprio_dim


def place_of(
    kind: Odometry, proprio: torch.Tensor, standardised: torch.Tensor, known: torch.Tensor
) -> torch.Tensor:
    """Coordinates of places and whether they are known: (...,Q+1), all zeros where they are not.

    Args:
        kind: ``pose``: the heading comes first, in radians, then everything else; ``vector``: as it is.
        proprio: (...,P) odometry.
        standardised: (...,P) the same with unit variance.
        known: (...) in [0, 1].
    """
    known = known.to(standardised.dtype)[..., None]
    if kind == "vector":
        return torch.cat([standardised * known, known], dim=-1)
    sin, cos = proprio[..., 2:3].to(standardised.dtype), proprio[..., 3:4].to(standardised.dtype)
    seen = known > 0
    heading = torch.atan2(torch.where(seen, sin, 0.0), torch.where(seen, cos, 1.0))
    rest = torch.cat([standardised[..., :2], standardised[..., POSE_DIM:]], dim=-1)
    return torch.cat([heading, rest * known, known], dim=-1)


class PlaceRotation(nn.Module):
    """Angles of one layer's keys.

    Args:
        groups: ``G``, each with frequencies of its own.
        pairs: ``J``.
        kind: Of the odometry.
        proprio_dim: ``P``.
        block: Edge of the layer's blocks in tokens: a token's place inside its block counts too.
    """

    def __init__(self, groups: int, pairs: int, kind: Odometry, proprio_dim: int, block: int) -> None:
        super().__init__()
        self.block, self.has_heading = block, kind == "pose"
        moving = place_dim(kind, proprio_dim) - self.has_heading
        slow, fast = (math.log(f) for f in FREQUENCIES)
        size = torch.exp(slow + (fast - slow) * torch.rand(groups, pairs, 1))
        direction = torch.nn.functional.normalize(torch.randn(groups, pairs, moving), dim=-1)
        self.frequency = nn.Parameter(size * direction)  # (G,J,Q), without the heading
        self.in_block = nn.Parameter(torch.randn(groups, pairs, 2) * (block > 1))  # (G,J,2), rows and columns
        turns = torch.randint(-MAX_TURNS, MAX_TURNS + 1, (groups, pairs, 1)).float()
        self.register_buffer("turns", turns if self.has_heading else turns[..., :0])
        self.turns: torch.Tensor

    def forward(self, place: torch.Tensor) -> torch.Tensor:
        """(B,T,Q+1) -> (B,T*S,G,J) radians, S = block**2 tokens of one frame and block."""
        frequency = torch.cat([self.turns.to(self.frequency.dtype), self.frequency], dim=-1)
        # no matrix product: autocast would round radians to bfloat16
        angle = (place[:, :, None, None, :-1].to(frequency.dtype) * frequency).sum(-1)
        if self.block == 1:
            return angle
        steps = torch.arange(self.block, device=place.device, dtype=frequency.dtype)
        site = torch.cartesian_prod(steps, steps)  # (S,2)
        own = (site[:, None, None] * self.in_block).sum(-1)
        return (angle[:, :, None] + own).flatten(1, 2)


class PlaceFeatures(nn.Module):
    """Random Fourier features of a smooth kernel over places: unit vectors, alike where places are near.

    Args:
        size: ``N``.
        length: Of the kernel, in standard deviations of the odometry.
        kind: Of the odometry.
        proprio_dim: ``P``.
    """

    def __init__(self, size: int, length: float, kind: Odometry, proprio_dim: int) -> None:
        super().__init__()
        self.size = size
        has_heading = kind == "pose"
        moving = place_dim(kind, proprio_dim) - has_heading
        frequency = torch.randn(size // 2, moving) / length
        turns = (HEADING_FREQUENCY * torch.randn(size // 2, 1)).round()
        self.register_buffer("frequency", torch.cat([turns, frequency], -1) if has_heading else frequency)
        self.frequency: torch.Tensor

    def forward(self, place: torch.Tensor) -> torch.Tensor:
        """(B,T,Q+1) -> (B,T,N) in float32 at least; zeros where the place is not known."""
        dtype = torch.promote_types(place.dtype, torch.float32)
        place, known = place[..., :-1].to(dtype), place[..., -1:].to(dtype)
        angle = (place[..., None, :] * self.frequency.to(dtype)).sum(-1)
        features: torch.Tensor = torch.cat([torch.cos(angle), torch.sin(angle)], dim=-1)
        return features * known * math.sqrt(2.0 / self.size)
