"""Maps for people: the maze from above, with targets, the agent and where it has been.

North (y) is up. Wall edges carry the colours that the agent sees on them. Drawn at twice the size and
averaged down.

Shapes: B environments, N targets, P path points, Z canvas pixels per side (twice the result's).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from lssvwm_agents.envs import palette
from lssvwm_agents.envs.maze_config import MazeConfig, Texture
from lssvwm_agents.envs.raycast_maze import MazeState, heading_vectors
from torch import Tensor

_OVERSAMPLE = 2
_FLOORS = ((232, 228, 220), (224, 220, 211))
_ROCK = (52, 55, 64)
_PATH = (72, 96, 190)
_INK = (24, 26, 32)
_PAPER = (255, 255, 255)
_FACE_WIDTH = 0.2
_POINTS_PER_SEGMENT = 12
_ROWS_AT_ONCE = 8


def _color(rgb: tuple[int, int, int], like: Tensor) -> Tensor:
    return torch.tensor(rgb, dtype=torch.float32, device=like.device)


def _material_colors(texture: Texture, device: torch.device) -> Tensor:
    rgb = [palette.WALL_COLORS[color] for color, _ in palette.materials(texture)]
    rgb += [*palette.CUE_COLORS, palette.GATE_COLOR]
    return torch.tensor(rgb, dtype=torch.float32, device=device)


def _paint(canvas: Tensor, mask: Tensor, rgb: Tensor) -> Tensor:
    """Paint ``rgb`` (3,) or (B, 1, 1, 3) where ``mask`` (B, Z, Z) is True."""
    return torch.where(mask[..., None], rgb, canvas)


def _ground(config: MazeConfig, state: MazeState, x: Tensor, y: Tensor) -> Tensor:
    """Floors and walls: (B, Z, Z, 3) float; x, y are (Z, Z) world coordinates."""
    column, row = x.floor().to(torch.int64), y.floor().to(torch.int64)
    across_x, across_y = x - column, y - row
    free = ~state.walls

    def of_cell(grid: Tensor) -> Tensor:
        return grid[:, row, column]

    def neighbour_free(dx: int, dy: int) -> Tensor:
        shifted = free.roll((-dy, -dx), (1, 2))  # the outer ring is wall, so wrapping shows no false floor
        return of_cell(shifted)

    face_x = (neighbour_free(-1, 0) & (across_x < _FACE_WIDTH)) | (
        neighbour_free(1, 0) & (across_x > 1 - _FACE_WIDTH)
    )
    face_y = (neighbour_free(0, -1) & (across_y < _FACE_WIDTH)) | (
        neighbour_free(0, 1) & (across_y > 1 - _FACE_WIDTH)
    )
    colors = _material_colors(config.texture, state.device)
    material = state.materials.to(torch.int64)
    canvas = _color(_ROCK, x).expand(state.batch_size, *x.shape, 3)
    canvas = torch.where(face_x[..., None], colors[of_cell(material[:, 0])], canvas)
    canvas = torch.where(face_y[..., None], colors[of_cell(material[:, 1])], canvas)
    light = ((column + row) % 2 == 0)[..., None]
    floor = torch.where(light, _color(_FLOORS[0], x), _color(_FLOORS[1], x))
    return torch.where(of_cell(free)[..., None], floor, canvas)


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
    canvas = _ground(config, state, x, y)
    if path is not None and path.shape[1] > 1:
        on_path = _path_mask(path.to(state.device, torch.float32), grid, pixels)
        canvas = torch.where(on_path[..., None], 0.35 * canvas + 0.65 * _color(_PATH, x), canvas)

    colors = torch.tensor(palette.TARGET_COLORS, dtype=torch.float32, device=state.device)
    for number in range(config.num_targets):
        center = state.target_position[:, number, :, None, None]
        distance = ((x - center[:, 0]) ** 2 + (y - center[:, 1]) ** 2).sqrt()
        current = (state.current_target == number)[:, None, None] & (config.task == "collect")
        canvas = _paint(canvas, current & (distance < 0.48), _color(_INK, x))
        canvas = _paint(canvas, current & (distance < 0.42), _color(_PAPER, x))
        canvas = _paint(canvas, distance < 0.34, _color(_INK, x))
        canvas = _paint(canvas, distance < 0.28, colors[state.target_color[:, number]][:, None, None])

    forward = heading_vectors(state.heading)[:, :, None, None]
    dx, dy = x - state.position[:, 0, None, None], y - state.position[:, 1, None, None]
    ahead = dx * forward[:, 0] + dy * forward[:, 1]
    aside = (dy * forward[:, 0] - dx * forward[:, 1]).abs()
    shape: Callable[[float], Tensor] = lambda rim: (  # noqa: E731
        (ahead > -0.30 - rim) & (aside < (0.46 + 2 * rim - ahead) * 0.45) & (aside < ahead + 0.75 + rim)
    )
    canvas = _paint(canvas, shape(0.06), _color(_PAPER, x))
    canvas = _paint(canvas, shape(0.0), _color(_INK, x))
    small = F.avg_pool2d(canvas.permute(0, 3, 1, 2), _OVERSAMPLE).permute(0, 2, 3, 1)
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
