"""Maps for people: the maze from above, with targets, the agent and where it has been.

North (y) is up. Wall edges carry the colours that the agent sees on them. Drawn at twice the size and
averaged down.

Shapes: B environments, N targets, P path points, Z canvas pixels per side (twice the result's).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lssvwm_agents.envs import palette
from lssvwm_agents.envs.maze_config import MazeConfig
from lssvwm_agents.envs.raycast_maze import MazeState, heading_vectors

_OVERSAMPLE = 2
# Colours by number; the materials' and the targets' colours follow.
_ROCK, _FLOOR, _FLOOR_TOO, _PATH, _INK, _PAPER = range(6)
_PLAIN_COLORS = (
    (52, 55, 64),
    (232, 228, 220),
    (224, 220, 211),
    (128, 143, 203),
    (24, 26, 32),
    (255, 255, 255),
)
_FACE_WIDTH = 0.2
_POINTS_PER_SEGMENT = 12
_ROWS_AT_ONCE = 8


def _colors(config: MazeConfig, device: torch.device) -> Tensor:
    """(K, 3) float: plain colours, materials, targets."""
    rgb = [*_PLAIN_COLORS, *(palette.WALL_COLORS[color] for color, _ in palette.materials(config.texture))]
    rgb += [*palette.CUE_COLORS, palette.GATE_COLOR, *palette.TARGET_COLORS]
    return torch.tensor(rgb, dtype=torch.float32, device=device)


def _ground(state: MazeState, x: Tensor, y: Tensor) -> Tensor:
    """Floors and walls: colour numbers (B, Z, Z) int32; x, y are (Z, Z) world coordinates."""
    column, row = x.floor().to(torch.int64), y.floor().to(torch.int64)
    across_x, across_y = x - column, y - row
    free = ~state.walls

    def neighbour_free(dx: int, dy: int) -> Tensor:
        # The outer ring is wall, so wrapping around shows no false floor.
        return free.roll((-dy, -dx), (1, 2))[:, row, column]

    low, high = _FACE_WIDTH, 1 - _FACE_WIDTH
    face_x = (neighbour_free(-1, 0) & (across_x < low)) | (neighbour_free(1, 0) & (across_x > high))
    face_y = (neighbour_free(0, -1) & (across_y < low)) | (neighbour_free(0, 1) & (across_y > high))
    material = state.materials.to(torch.int32) + len(_PLAIN_COLORS)
    canvas = torch.where(face_x, material[:, 0][:, row, column], _ROCK)
    canvas = torch.where(face_y, material[:, 1][:, row, column], canvas)
    floor = torch.where((column + row) % 2 == 0, _FLOOR, _FLOOR_TOO)
    return torch.where(free[:, row, column], floor, canvas)


def _path_mask(path: Tensor, grid: int, pixels: int) -> Tensor:
    """Rasterise a polyline (B, P, 2), broken at NaN, into a mask (B, Z, Z)."""
    blend = torch.linspace(0, 1, _POINTS_PER_SEGMENT, device=path.device)[:, None]
    begin, end = path[:, :-1, None], path[:, 1:, None]
    points = (begin + (end - begin) * blend).flatten(1, 2)
    known = torch.isfinite(points).all(-1)
    points = torch.nan_to_num(points) / grid * pixels
    column = points[..., 0].floor().clamp(0, pixels - 1).to(torch.int64)
    row = (pixels - 1 - points[..., 1].floor()).clamp(0, pixels - 1).to(torch.int64)
    ink = torch.zeros(path.shape[0], pixels * pixels, device=path.device)
    ink = ink.scatter_reduce(1, row * pixels + column, known.to(torch.float32), reduce="amax")
    width = max(1, round(pixels / grid * 0.10) // 2 * 2 + 1)
    return F.max_pool2d(ink.view(-1, 1, pixels, pixels), width, 1, width // 2)[:, 0] > 0


def _draw(config: MazeConfig, state: MazeState, size: int, path: Tensor | None) -> Tensor:
    grid, pixels = config.grid_size, size * _OVERSAMPLE
    line = (torch.arange(pixels, device=state.device, dtype=torch.float32) + 0.5) / pixels * grid
    x, y = line.expand(pixels, pixels), line.flip(0)[:, None].expand(pixels, pixels)
    colors = _colors(config, state.device)
    canvas = _ground(state, x, y)
    if path is not None and path.shape[1] > 1:
        on_path = _path_mask(path.to(state.device, torch.float32), grid, pixels)
        canvas = torch.where(on_path, _PATH, canvas)

    first_target = colors.shape[0] - len(palette.TARGET_COLORS)
    for number in range(config.num_targets):
        center = state.target_position[:, number, :, None, None]
        distance2 = (x - center[:, 0]) ** 2 + (y - center[:, 1]) ** 2
        if config.task == "collect":
            current = (state.current_target == number)[:, None, None]
            canvas = torch.where(current & (distance2 < 0.48**2), _INK, canvas)
            canvas = torch.where(current & (distance2 < 0.42**2), _PAPER, canvas)
        canvas = torch.where(distance2 < 0.34**2, _INK, canvas)
        color = (state.target_color[:, number] + first_target).to(canvas.dtype)[:, None, None]
        canvas = torch.where(distance2 < 0.28**2, color, canvas)

    forward = heading_vectors(state.heading)[:, :, None, None]
    dx, dy = x - state.position[:, 0, None, None], y - state.position[:, 1, None, None]
    ahead = dx * forward[:, 0] + dy * forward[:, 1]
    aside = (dy * forward[:, 0] - dx * forward[:, 1]).abs()
    for ink, rim in ((_PAPER, 0.07), (_INK, 0.0)):
        # An arrow head with a notch at its back.
        arrow = (aside < (0.46 + 2.5 * rim - ahead) * 0.34) & (ahead > -0.3 - rim)
        arrow &= ahead > -0.16 - rim - 0.55 * aside
        canvas = torch.where(arrow, ink, canvas)
    image = colors.index_select(0, canvas.flatten()).view(*canvas.shape, 3)
    small = F.avg_pool2d(image.permute(0, 3, 1, 2), _OVERSAMPLE).permute(0, 2, 3, 1)
    return small.round().clamp(0, 255).to(torch.uint8)


def render_top_down(
    config: MazeConfig, state: MazeState, size: int = 256, path: Tensor | None = None
) -> Tensor:
    """Draw maps of the mazes.

    Args:
        config: The family of mazes.
        state: B mazes.
        size: Height and width of the maps in pixels.
        path: (B, P, 2) past positions (x, y) in cells, oldest first; NaN where there is none.

    Returns:
        (B, size, size, 3) uint8; the current target wears a ring.

    Raises:
        ValueError: ``size`` or the path's shape is wrong.
    """
    if size < 16:
        raise ValueError(f"`size` must be at least 16, got {size}.")
    if path is not None and (path.dim() != 3 or path.shape[0] != state.batch_size or path.shape[2] != 2):
        raise ValueError(f"`path` must be ({state.batch_size}, P, 2), got {tuple(path.shape)}.")
    parts = [slice(start, start + _ROWS_AT_ONCE) for start in range(0, state.batch_size, _ROWS_AT_ONCE)]
    maps = [_draw(config, state.select(p), size, None if path is None else path[p]) for p in parts]
    return torch.cat(maps)
