"""How good an imagined frame is: PSNR, SSIM, and which wall colour stands at its centre.

The border of a frame shows which target pays, and nothing of the place; it would add easy decibels to every
frame and take many from those after a target was found. Scores are of the view inside it.

Shapes: B mazes, H imagined frames, S pixels a side, K known colours.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

import torch

from lssvwm_agents.envs import MazeConfig
from lssvwm_agents.envs.palette import WALL_COLORS, num_materials
from lssvwm_agents.envs.raycast_render import border_pixels
from lssvwm_agents.envs.render_tables import FACE_BINS, render_tables
from lssvwm_agents.metrics import psnr

_FRAMES_AT_ONCE = 256
_FARTHEST = 9.0  # cells; no wall of a 7x7 maze is farther away


@dataclass(frozen=True)
class FrameScores:
    """Scores of imagined frames.

    Attributes:
        psnr: (B, H) dB, of the view inside the border.
        psnr_frame: (B, H) dB, of the whole frame.
        ssim: (B, H) in [-1, 1], of the view, NaN where it was not computed.
        color: (B, H) int64 wall colour read from the image's centre.
    """

    psnr: torch.Tensor
    psnr_frame: torch.Tensor
    ssim: torch.Tensor
    color: torch.Tensor


def join(parts: list[FrameScores]) -> FrameScores:
    """Scores of several batches of mazes as one."""
    return FrameScores(
        **{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(FrameScores)}
    )


@torch.no_grad()
def score_frames(
    config: MazeConfig, frames: torch.Tensor, truth: torch.Tensor, ssim_stride: int = 1
) -> FrameScores:
    """Compare frames with the real ones, both (B, H, 3, S, S) in [0, 1].

    Args:
        config: The maze that drew the real ones.
        frames: Imagined.
        truth: Real.
        ssim_stride: SSIM is computed for every so-manyth frame, beginning with the first.
    """
    view, real = inside_border(config, frames), inside_border(config, truth)
    ssim = torch.full(frames.shape[:2], float("nan"), device=frames.device)
    ssim[:, ::ssim_stride] = structural_similarity(view[:, ::ssim_stride], real[:, ::ssim_stride])
    return FrameScores(
        psnr(view, real).cpu(),
        psnr(frames, truth).cpu(),
        ssim.cpu(),
        read_center_color(config, frames).cpu(),
    )


def inside_border(config: MazeConfig, frames: torch.Tensor) -> torch.Tensor:
    """Frames (..., S, S) without their coloured border."""
    edge = border_pixels(config)
    return frames[..., edge:-edge, edge:-edge]


def structural_similarity(frames: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """SSIM (Wang et al. 2004; 11x11 Gaussian window) of frames (B, H, 3, S, S): (B, H)."""
    from torchmetrics.functional.image import structural_similarity_index_measure as measure

    flat, real = frames.flatten(0, 1), truth.flatten(0, 1)
    parts = []
    for start in range(0, len(flat), _FRAMES_AT_ONCE):
        part = slice(start, start + _FRAMES_AT_ONCE)
        value = measure(flat[part], real[part], data_range=1.0, reduction="none")
        assert isinstance(value, torch.Tensor)
        parts.append(value.reshape(-1))
    return torch.cat(parts).reshape(frames.shape[:2])


def read_center_color(config: MazeConfig, frames: torch.Tensor) -> torch.Tensor:
    """The wall colour at the centre of frames (B, H, 3, S, S): (B, H) int64, an index into the palette.

    The mean of the four middle pixels is compared with every look that the renderer gives a wall there: all
    materials, both sides, all distances, all places along a face. The nearest look tells the colour.
    """
    looks_K3, colors_K = _center_looks(config, str(frames.device))
    half = frames.shape[-1] // 2
    middle = frames[..., half - 1 : half + 1, half - 1 : half + 1].mean(dim=(-1, -2))
    flat, parts = middle.flatten(0, 1).to(torch.float32), []
    for start in range(0, len(flat), _FRAMES_AT_ONCE):
        distance = torch.cdist(flat[start : start + _FRAMES_AT_ONCE], looks_K3)
        parts.append(colors_K[distance.argmin(1)])
    return torch.cat(parts).reshape(frames.shape[:2])


@lru_cache(maxsize=4)
def _center_looks(config: MazeConfig, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """All looks of a wall at the image's centre, (K, 3) in [0, 1], and their colours (K,)."""
    tables, count = render_tables(config, device), num_materials(config.texture)
    size, levels = tables.image_size, tables.num_levels
    codes = count * 2 * levels * FACE_BINS
    rows = tables.columns.view(-1, size, 3)[:codes, size // 2 - 1 : size // 2 + 1].float().mean(1) / 255
    rows = rows.view(count, 2 * levels * FACE_BINS, 3)
    level = torch.arange(levels, device=rows.device).repeat_interleave(FACE_BINS).repeat(2)
    rows = rows[:, level >= int(tables.focal / _FARTHEST)]
    color = (torch.arange(count, device=rows.device) % len(WALL_COLORS))[:, None].expand(rows.shape[:2])
    both = torch.cat([rows, color[..., None].to(rows.dtype)], dim=-1).flatten(0, 1)
    both = torch.unique(both, dim=0)
    return both[:, :3].contiguous(), both[:, 3].to(torch.int64)
