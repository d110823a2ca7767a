"""Cast rays through a grid of cells, analytically and for a whole batch at once.

Every ray crosses the grid lines of either axis at known depths; the first crossing into a wall cell, over
both axes, is the hit. There is no loop over steps along the ray, and only single correctly rounded
operations: CPU and GPU agree.

Shapes: B environments, G grid cells per side, R rays, J = G - 2 grid lines that a ray can cross per axis.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Hits(NamedTuple):
    """Where rays hit walls; every field is (B, R).

    Attributes:
        depth: float32, multiples of the ray's direction vector.
        cell: int64, flat index y * G + x of the wall cell.
        axis: int64, 0 for a face across x, 1 for a face across y.
        offset: float32 in [0, 1), where along the face.
    """

    depth: Tensor
    cell: Tensor
    axis: Tensor
    offset: Tensor


def _cross_lines(
    walls_flat: Tensor, grid: int, axis: int, position_B2: Tensor, direction_B2R: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """First wall among the grid lines of one axis: depth, cell, position along the face, each (B, R)."""
    batch, lines = position_B2.shape[0], grid - 2
    device = position_B2.device
    along, across = position_B2[:, axis, None], position_B2[:, 1 - axis, None]
    slope, drift = direction_B2R[:, axis], direction_B2R[:, 1 - axis]
    sign = torch.where(slope >= 0, 1.0, -1.0)
    pace = 1.0 / (slope * sign).clamp(min=1e-6)
    inside = torch.floor(along)
    first = torch.where(slope >= 0, inside + 1 - along, along - inside) * pace
    line = torch.arange(lines, device=device, dtype=torch.float32)[:, None]
    depth_BJR = first[:, None] + pace[:, None] * line
    across_BJR = (across[:, None] + drift[:, None] * depth_BJR).floor_().clamp_(0, grid - 1)
    along_BJR = ((inside + sign)[:, None] + sign[:, None] * line).clamp_(0, grid - 1)
    stride_along, stride_across = (1, grid) if axis == 0 else (grid, 1)
    cell_BJR = (across_BJR * stride_across).add_(along_BJR, alpha=stride_along).to(torch.int32)
    base = (torch.arange(batch, device=device, dtype=torch.int32) * (grid * grid))[:, None, None]
    index = cell_BJR + base
    wall_BJR = walls_flat.index_select(0, index.flatten()).view(index.shape)
    depth, first_line = torch.where(wall_BJR, depth_BJR, torch.inf).min(dim=1)
    cell = cell_BJR.gather(1, first_line[:, None])[:, 0]
    return depth, cell, across + drift * depth


def cast_rays(walls: Tensor, position: Tensor, direction: Tensor) -> Hits:
    """Cast R rays in each of B grids.

    Args:
        walls: (B, G, G) bool, [y, x]; the outer ring must be walls.
        position: (B, 2) float32, (x, y) of the eye inside a free cell.
        direction: (B, 2, R) float32, direction vectors of any length.

    Returns:
        The hits. With directions whose component along the viewing axis is 1, ``depth`` is the distance from
        the image plane through the eye, which is what perspective divides by.
    """
    grid = walls.shape[-1]
    flat = walls.reshape(-1)
    depth_x, cell_x, offset_x = _cross_lines(flat, grid, 0, position, direction)
    depth_y, cell_y, offset_y = _cross_lines(flat, grid, 1, position, direction)
    across_y = depth_y < depth_x
    offset = torch.where(across_y, offset_y, offset_x)
    return Hits(
        depth=torch.where(across_y, depth_y, depth_x),
        cell=torch.where(across_y, cell_y, cell_x).to(torch.int64),
        axis=across_y.to(torch.int64),
        offset=offset - torch.floor(offset),
    )
