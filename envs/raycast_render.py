"""RaycastMaze's renderer: the frame that the agent sees, as a pure batched function of the state.

One ray per column finds the wall; a column's look is read from a table of painted columns
(``render_tables``); balls are drawn over it where they are nearer. Per pixel there are only integer
comparisons and one look-up.

Shapes: B environments, S image height and width, N targets.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lssvwm_agents.envs import palette
from lssvwm_agents.envs.maze_config import MazeConfig
from lssvwm_agents.envs.ray_casting import Hits, cast_rays
from lssvwm_agents.envs.raycast_maze import MazeState, heading_vectors
from lssvwm_agents.envs.render_tables import (
    BALL_HEIGHT,
    BALL_RADIUS,
    EYE_HEIGHT,
    FACE_BINS,
    NEAR,
    RenderTables,
    render_tables,
)

CHUNK_CPU, CHUNK_DEVICE = 64, 4096


def border_pixels(config: MazeConfig) -> int:
    """Width of the coloured border in pixels."""
    return max(1, round(config.image_size * 3 / 64))


def ray_directions(forward: Tensor, slope: Tensor) -> Tensor:
    """Directions (B, 2, S) of the image's columns, 1 long along ``forward`` (B, 2); slope is (S,)."""
    right = torch.stack([forward[:, 1], -forward[:, 0]], dim=1)
    return forward[:, :, None] + right[:, :, None] * slope


def _face_materials(state: MazeState, hits: Hits) -> Tensor:
    """Material index (B, R) int64 of the faces that were hit."""
    grid = state.walls.shape[-1]
    return state.materials.flatten(1).gather(1, hits.axis * (grid * grid) + hits.cell).to(torch.int64)


def _nearest_balls(
    state: MazeState, forward: Tensor, slope: Tensor, wall_depth: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Nearest visible ball per column: depth (inf for none), sideways offset from its middle, colour.

    Each is (B, S); offsets are in units of the ball's radius, positive to the right.
    """
    offset = state.target_position - state.position[:, None]
    depth = offset[..., 0] * forward[:, None, 0] + offset[..., 1] * forward[:, None, 1]
    right = offset[..., 0] * forward[:, None, 1] - offset[..., 1] * forward[:, None, 0]
    aside = (slope * depth[..., None] - right[..., None]) / BALL_RADIUS  # (B, N, S)
    visible = (aside.abs() < 1) & (depth > NEAR)[..., None] & (depth[..., None] < wall_depth[:, None])
    nearest, which = torch.where(visible, depth[..., None], torch.inf).min(dim=1)
    aside = aside.gather(1, which[:, None])[:, 0]
    return nearest, aside, state.target_color.gather(1, which)


def _level(tables: RenderTables, depth: Tensor) -> Tensor:
    return (tables.focal / depth).clamp(max=tables.num_levels - 1).to(torch.int32)


def render_frames(tables: RenderTables, border: int, border_color: Tensor, state: MazeState) -> Tensor:
    """Draw frames from ready-made tables; free of host synchronisation, and fit for ``torch.compile``.

    Args:
        tables: From ``render_tables``, on the state's device.
        border: Width of the border in pixels.
        border_color: (B, 3) uint8.
        state: B mazes.

    Returns:
        (B, S, S, 3) uint8.
    """
    size, levels = tables.image_size, tables.num_levels
    forward = tables.headings.index_select(0, state.heading)
    hits = cast_rays(state.walls, state.position, ray_directions(forward, tables.slope))
    place = (hits.offset * FACE_BINS).to(torch.int32).clamp_(max=FACE_BINS - 1)
    look = (_face_materials(state, hits) * 2 + hits.axis).to(torch.int32)
    wall_code = (look * levels + _level(tables, hits.depth)) * FACE_BINS + place

    ball_depth, aside, color = _nearest_balls(state, forward, tables.slope, hits.depth)
    scale = tables.focal / ball_depth  # 0 where there is none
    middle = size / 2 + scale * (EYE_HEIGHT - BALL_HEIGHT)
    half = scale * BALL_RADIUS * (1 - aside * aside).clamp(min=0).sqrt()
    top = (middle - half).round().clamp(0, size).to(torch.int32)
    bottom = (middle + half).round().clamp(0, size).to(torch.int32)
    place = ((aside.clamp(-1, 1) + 1) * (FACE_BINS / 2)).to(torch.int32).clamp_(max=FACE_BINS - 1)
    ball_code = (color.to(torch.int32) * levels + _level(tables, ball_depth)) * FACE_BINS + place
    ball_code = ball_code + tables.ball_base

    row = torch.arange(size, device=state.device, dtype=torch.int32)[:, None]
    on_ball = (row >= top[:, None]) & (row < bottom[:, None])
    index = torch.where(on_ball, (ball_code * size)[:, None], (wall_code * size)[:, None]) + row
    frames = tables.columns.index_select(0, index.flatten()).view(state.batch_size, size, size, 3)
    if border:
        edge = border_color[:, None, None]
        frames[:, :border] = edge
        frames[:, -border:] = edge
        frames[:, :, :border] = edge
        frames[:, :, -border:] = edge
    return frames


def border_colors(config: MazeConfig, state: MazeState) -> Tensor:
    """Colour of the current target, or a neutral one in the cue task: (B, 3) uint8."""
    if config.task == "cue":
        neutral = torch.tensor(palette.NEUTRAL_BORDER, dtype=torch.uint8, device=state.device)
        return neutral.expand(state.batch_size, 3)
    color = state.target_color.gather(1, state.current_target[:, None])[:, 0]
    return render_tables(config, state.device).target_colors.index_select(0, color)


def render(config: MazeConfig, state: MazeState) -> Tensor:
    """Draw what every agent sees.

    Args:
        config: The family of mazes.
        state: B mazes.

    Returns:
        (B, S, S, 3) uint8; the border shows the colour of the current target.
    """
    tables, border = render_tables(config, state.device), border_pixels(config)
    color = border_colors(config, state)
    chunk = CHUNK_CPU if state.device.type == "cpu" else CHUNK_DEVICE
    if state.batch_size <= chunk:
        return render_frames(tables, border, color, state)
    parts = [slice(start, start + chunk) for start in range(0, state.batch_size, chunk)]
    return torch.cat([render_frames(tables, border, color[part], state.select(part)) for part in parts])


def wall_color_at_center(config: MazeConfig, state: MazeState) -> Tensor:
    """Say which wall colour is seen at the image's centre.

    Args:
        config: The family of mazes.
        state: B mazes.

    Returns:
        (B,) int64: index into ``palette.WALL_COLORS``; 8 and 9 for the two cue walls, 10 for the gate; -1
        where a target is in front.
    """
    straight = torch.zeros(1, device=state.device)
    forward = heading_vectors(state.heading)
    hits = cast_rays(state.walls, state.position, ray_directions(forward, straight))
    material = _face_materials(state, hits)[:, 0]
    ordinary, colors = palette.num_materials(config.texture), len(palette.WALL_COLORS)
    color = torch.where(material < ordinary, material % colors, material - ordinary + colors)
    ball_depth, aside, _ = _nearest_balls(state, forward, straight, hits.depth)
    half = BALL_RADIUS * (1 - aside * aside).clamp(min=0).sqrt()
    on_ball = torch.isfinite(ball_depth) & (half > abs(EYE_HEIGHT - BALL_HEIGHT))
    return torch.where(on_ball[:, 0], -1, color)
