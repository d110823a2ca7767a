"""Shortest paths on a batch of grids, by flooding: every grid row is the bits of one integer.

One flooding step moves the front of all cells of all mazes with a handful of integer operations; the number
of steps is bounded by the grid, so nothing has to be read back from a GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _bits(cell: Tensor, grid: int) -> Tensor:
    """Grids with one cell set: flat indices (B,) to (B, G) int64 rows of bits."""
    row = torch.arange(grid, device=cell.device)
    return torch.where(row == (cell // grid)[:, None], 1 << (cell % grid)[:, None], 0)


def _spread(rows: Tensor) -> Tensor:
    """Add the four neighbours of every set cell."""
    spread = rows | (rows << 1) | (rows >> 1)
    spread[:, 1:] |= rows[:, :-1]
    spread[:, :-1] |= rows[:, 1:]
    return spread


def next_cell(free: Tensor, cell: Tensor, goal: Tensor) -> Tensor:
    """Name the next cell on a shortest path.

    Args:
        free: (B, G, G) bool, [y, x], True where one can walk; the outer ring must be False.
        cell: (B,) int64 flat index y * G + x of where to start.
        goal: (B,) int64 flat index of where to go.

    Returns:
        (B,) int64 flat index of a neighbour of ``cell`` that is one step nearer to ``goal``; ``cell`` itself
        where it is the goal or the goal cannot be reached.
    """
    grid = free.shape[-1]
    column = torch.arange(grid, device=cell.device)
    free_rows = (free.to(torch.int64) << column).sum(-1)
    start = _bits(cell, grid)
    neighbours = _spread(start) & free_rows & ~start
    arrived = cell == goal
    barrier = free_rows & ~start  # the flood from the goal stops beside the start
    front = torch.where(arrived[:, None], 0, _bits(goal, grid)) & free_rows
    found = front & neighbours
    on_cpu = cell.device.type == "cpu"
    for count in range(grid * grid // 2):
        done = found.any(1)
        # On a CPU looking is free: stop as soon as every maze is done.
        if on_cpu and count % 2 == 0 and bool((done | arrived).all()):
            break
        front = _spread(front) & barrier
        found = torch.where(done[:, None], found, front & neighbours)
    offsets = torch.tensor([1, grid, -1, -grid], device=cell.device)
    beside = cell[:, None] + offsets
    hit = (found.gather(1, beside // grid) >> (beside % grid)) & 1
    step = offsets[hit.argmax(1)]
    return torch.where(found.any(1), cell + step, cell)
