"""Painted columns, made once: what a frame column looks like for every wall, distance and place on it.

A frame column is ceiling, wall, floor. Its look depends on a few integers only: the level (how many pixels
one cell is tall at that depth), the material, the side, and where along the face the ray hit. All
combinations fit a table of a few megabytes, so that drawing a pixel is one look-up. Columns of a target ball
are in the same table, after the walls. Tables are computed on the CPU in elementary operations and then
moved: every device draws the same bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from lssvwm_agents.envs import palette
from lssvwm_agents.envs.maze_config import MazeConfig, Texture
from lssvwm_agents.envs.raycast_maze import heading_table

WALL_HEIGHT = 0.6
EYE_HEIGHT = 0.3
BALL_RADIUS = 0.25
BALL_HEIGHT = 0.25
FACE_BINS = 16  # places along a wall face, and across a ball, that are told apart
NEAR = 0.12  # balls closer than this are not drawn
_HAZE = (168, 176, 186)
_SUPERSAMPLE = 4


@dataclass(frozen=True)
class RenderTables:
    """All that drawing needs besides the state.

    Attributes:
        columns: (num_codes * S, 3) uint8; row ``code * S + r`` is pixel row r of the column ``code``.
        slope: (S,) float32, sideways component of each column's ray per unit of depth, positive to the right.
        headings: (HEADING_UNITS, 2) float32, (cos, sin) of every heading.
        target_colors: (7, 3) uint8.
        image_size: S.
        num_levels: How many depths are told apart.
        focal: Pixels per cell at depth 1.
        ball_base: Code of the first ball column.
    """

    columns: Tensor
    slope: Tensor
    headings: Tensor
    target_colors: Tensor
    image_size: int
    num_levels: int
    focal: float
    ball_base: int


def _pattern(pattern: int, u: Tensor, v: Tensor) -> Tensor:
    """Brightness in [0, 1] of a pattern at (u, v) in [0, 1): u along the face, v from its top down."""
    one = torch.ones_like(u + v)
    if pattern == palette.BRICKS:
        row = torch.floor(v * 4)
        column = u * 2 + torch.remainder(row, 2) * 0.5
        mortar = (torch.remainder(v * 4, 1) < 0.16) | (torch.remainder(column, 1) < 0.09)
        return torch.where(mortar, 0.66, one)
    if pattern == palette.STRIPES:
        return torch.where(torch.remainder(u * 4, 1) < 0.5, 0.74, one + 0 * v)
    if pattern == palette.BANDS:
        return torch.where((v > 0.36) & (v < 0.64), 0.68, one)
    if pattern == palette.CHECKERS:
        return torch.where(torch.remainder(torch.floor(u * 4) + torch.floor(v * 4), 2) < 1, 0.7, one)
    if pattern == palette.DIAMONDS:
        distance = (u - 0.5).abs() + (v - 0.5).abs()
        return torch.where((distance < 0.42) & (distance > 0.14), 0.66, one)
    return one


def _looks(texture: Texture) -> list[tuple[tuple[int, int, int], int]]:
    """(colour, pattern) of all materials: ordinary ones, the two cues, the gate."""
    looks = [(palette.WALL_COLORS[color], pattern) for color, pattern in palette.materials(texture)]
    looks += [(color, palette.PLAIN) for color in palette.CUE_COLORS]
    return [*looks, (palette.GATE_COLOR, palette.STRIPES)]


def _wall_columns(texture: Texture, size: int, levels: int, focal: float) -> Tensor:
    """(num_materials * 2 sides * levels * FACE_BINS, S, 3) float in [0, 255]."""
    sample = (torch.arange(size * _SUPERSAMPLE, dtype=torch.float32) + 0.5) / _SUPERSAMPLE
    scale = (torch.arange(levels, dtype=torch.float32) + 0.5)[:, None]
    top = size / 2 - scale * (WALL_HEIGHT - EYE_HEIGHT)
    v = (sample - top) / (scale * WALL_HEIGHT)  # (levels, samples)
    height = (sample - size / 2).abs() * 2 / size  # 0 at the horizon, 1 at the image's edge
    haze = torch.tensor(_HAZE, dtype=torch.float32)
    background = torch.where(
        (sample < size / 2)[:, None],
        torch.tensor(palette.CEILING_COLOR) * (0.88 + 0.12 * height[:, None]),
        torch.tensor(palette.FLOOR_COLOR) * (0.72 + 0.34 * height[:, None]),
    )
    depth = focal / scale
    fade = (0.45 * depth / (depth + 6.0))[:, :, None]  # share of haze, growing with depth
    on_wall = ((v >= 0) & (v < 1))[:, :, None]
    u = (torch.arange(FACE_BINS, dtype=torch.float32) + 0.5)[:, None, None] / FACE_BINS
    rim = torch.where(v > 0.93, 0.8, 1.0)
    columns = []
    for color, pattern in _looks(texture):
        brightness = _pattern(pattern, u, v[None]) * rim  # (bins, levels, samples)
        for side in (1.0, 0.82):
            wall = torch.tensor(color, dtype=torch.float32) * side * brightness[..., None]
            wall = wall * (1 - fade) + haze * fade
            pixels = torch.where(on_wall, wall, background)
            pixels = pixels.view(FACE_BINS, levels, size, _SUPERSAMPLE, 3).mean(3)
            columns.append(pixels.transpose(0, 1).reshape(levels * FACE_BINS, size, 3))
    return torch.cat(columns)


def _ball_columns(size: int, levels: int) -> Tensor:
    """(num_colors * levels * FACE_BINS, S, 3) float in [0, 255]: shaded discs, not yet cut out."""
    row = torch.arange(size, dtype=torch.float32) + 0.5
    scale = (torch.arange(levels, dtype=torch.float32) + 0.5)[:, None]
    v = (row - size / 2 - scale * (EYE_HEIGHT - BALL_HEIGHT)) / (scale * BALL_RADIUS)  # -1 top, 1 bottom
    u = ((torch.arange(FACE_BINS, dtype=torch.float32) + 0.5) * 2 / FACE_BINS - 1)[:, None, None]
    radius2 = u * u + v[None] * v[None]
    shade = 1.0 - 0.38 * radius2.clamp(0, 1) * (0.75 + 0.25 * v[None].clamp(-1, 1))
    du, dv = u + 0.35, v[None] + 0.4
    shine = (1 - (du * du + dv * dv) / 0.09).clamp(0, 1) * 0.55
    columns = []
    for color in palette.TARGET_COLORS:
        base = torch.tensor(color, dtype=torch.float32)
        pixels = base * shade[..., None]
        pixels = pixels + (255 - pixels) * shine[..., None]
        columns.append(pixels.transpose(0, 1).reshape(levels * FACE_BINS, size, 3))
    return torch.cat(columns)


@lru_cache(maxsize=8)
def _tables(texture: Texture, size: int, field_of_view: float, device: torch.device) -> RenderTables:
    levels = 2 * size
    half_width = math.tan(math.radians(field_of_view) / 2)
    focal = size / 2 / half_width
    walls = _wall_columns(texture, size, levels, focal)
    balls = _ball_columns(size, levels)
    columns = torch.cat([walls, balls]).round().clamp(0, 255).to(torch.uint8).reshape(-1, 3)
    slope = [half_width * (2 * (column + 0.5) / size - 1) for column in range(size)]
    return RenderTables(
        columns=columns.to(device),
        slope=torch.tensor(slope, dtype=torch.float32).to(device),
        headings=heading_table(device),
        target_colors=torch.tensor(palette.TARGET_COLORS, dtype=torch.uint8).to(device),
        image_size=size,
        num_levels=levels,
        focal=focal,
        ball_base=walls.shape[0],
    )


def render_tables(config: MazeConfig, device: torch.device | str) -> RenderTables:
    """Get the tables of a configuration on a device; made on first use, then kept.

    Args:
        config: Its texture, image size and field of view matter.
        device: Where the tables shall live.
    """
    return _tables(config.texture, config.image_size, config.field_of_view_degrees, torch.device(device))
