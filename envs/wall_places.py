"""Which piece of wall each column of a frame shows: the places that a memory may know.

A place is a quarter of one face of a wall cell, a quarter of a cell wide. It is named by one integer, so that
"was this seen before" is a comparison of integers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lssvwm_agents.envs.maze_config import MazeConfig
from lssvwm_agents.envs.ray_casting import cast_rays
from lssvwm_agents.envs.raycast_maze import MazeState, heading_vectors
from lssvwm_agents.envs.raycast_render import border_pixels, ray_directions
from lssvwm_agents.envs.render_tables import render_tables

PIECES = 4  # of one face


def _places(state: MazeState, slope: Tensor) -> Tensor:
    """(B, R) int64 for rays of the given slopes (R,)."""
    direction = ray_directions(heading_vectors(state.heading), slope)
    hits = cast_rays(state.walls, state.position, direction)
    along = direction.gather(1, hits.axis[:, None])[:, 0]
    side = (along >= 0).to(torch.int64)  # which of the cell's two faces across this axis
    piece = (hits.offset * PIECES).to(torch.int64).clamp(max=PIECES - 1)
    return ((hits.cell * 2 + hits.axis) * 2 + side) * PIECES + piece


def visible_places(config: MazeConfig, state: MazeState) -> Tensor:
    """Places seen by the columns of a frame inside its border: (B, columns) int64.

    Targets are lower than walls and hide no column; the gate of the cue corridor is a wall like any other.
    """
    edge = border_pixels(config)
    slope = render_tables(config, state.device).slope
    return _places(state, slope[edge : len(slope) - edge])


def place_at_center(state: MazeState) -> Tensor:
    """The place straight ahead: (B,) int64."""
    return _places(state, torch.zeros(1, device=state.device))[:, 0]
