"""Small drawing helpers shared by the film strip and the episode video."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lssvwm_agents.files import atomic_path

PAPER = (250, 249, 246)
INK = (32, 33, 36)
FAINT = (118, 120, 125)
REAL = (32, 33, 36)
IMAGINED = (0, 133, 150)
REWARD = (222, 120, 0)


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font at ``size`` pixels; no font file is needed."""
    return ImageFont.load_default(size=size)


def text(
    draw: ImageDraw.ImageDraw,
    xy: tuple[float, float],
    words: str,
    size: int = 14,
    color: tuple[int, int, int] = INK,
    anchor: str = "la",
) -> None:
    """Write ``words`` at ``xy``; ``anchor`` as in Pillow (``la``: left, top)."""
    draw.text(xy, words, font=font(size), fill=color, anchor=anchor)


def picture(frame: np.ndarray, size: int) -> Image.Image:
    """A frame (H, W, 3) uint8 enlarged to ``size`` x ``size`` with its pixels kept square and sharp."""
    image = Image.fromarray(np.ascontiguousarray(frame))
    if size % frame.shape[0] == 0:
        return image.resize((size, size), Image.Resampling.NEAREST)
    return image.resize((size, size), Image.Resampling.BICUBIC)


def paste(
    canvas: Image.Image,
    frame: np.ndarray,
    xy: tuple[int, int],
    size: int,
    border: tuple[int, int, int] | None = None,
    border_width: int = 2,
) -> None:
    """Put a frame on the canvas with its top left corner at ``xy``, with a border around it if given."""
    x, y = xy
    if border is not None:
        w = border_width
        ImageDraw.Draw(canvas).rectangle((x - w, y - w, x + size - 1 + w, y + size - 1 + w), fill=border)
    canvas.paste(picture(frame, size), (x, y))


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write a picture (H, W, 3) uint8 as PNG, atomically."""
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, optimize=True)
