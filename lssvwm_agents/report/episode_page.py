"""One moment of a planned episode as one picture: real frame, imagined frame, map, and the plan's future."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from lssvwm_agents.report.drawing import FAINT, IMAGINED, INK, PAPER, REWARD, paste, text

_BLANK = (232, 231, 227)


@dataclass(frozen=True)
class Panel:
    """A titled picture.

    Attributes:
        title: A few words above it.
        image: (H, W, 3) uint8, or None for an empty panel.
        words: Written in the middle of an empty panel.
        color: Of the title and, for a picture, its border.
    """

    title: str
    image: np.ndarray | None
    words: str = ""
    color: tuple[int, int, int] = INK


@dataclass(frozen=True)
class Future:
    """Frames of the best plan still to come.

    Attributes:
        frames: (K, H, W, 3) uint8.
        times: Moves ahead of each.
        rewards: (K,) imagined reward gathered since the previous one shown; marked where at least 0.5.
    """

    frames: np.ndarray
    times: Sequence[int]
    rewards: np.ndarray


def episode_page(
    panels: Sequence[Panel],
    header: str,
    status: str,
    future: Future | None = None,
    num_future: int = 0,
    size: int = 256,
) -> np.ndarray:
    """Draw panels side by side under a header.

    Args:
        panels: From left to right.
        header: Left of the top line.
        status: Right of the top line.
        future: Small frames in a row under the panels.
        num_future: Room for so many of them, so that every page of a video has one size; 0 for no row.
        size: Edge of a panel in pixels.

    Returns:
        (height, width, 3) uint8 with even sizes.
    """
    small = size < 200
    margin, gap, head = (10, 10, 48) if small else (16, 16, 66)
    letters = 13 if small else 16
    width = 2 * margin + len(panels) * size + (len(panels) - 1) * gap
    thumb = (width - 2 * margin - (num_future - 1) * 8) // num_future if num_future else 0
    height = head + size + margin + (thumb + 54 if num_future else 0)
    canvas = Image.new("RGB", (width + width % 2, height + height % 2), PAPER)
    draw = ImageDraw.Draw(canvas)
    text(draw, (margin, head - 38 if small else 12), header, letters + (0 if small else 2))
    text(draw, (width - margin, head - 38 if small else 12), status, letters, REWARD, anchor="ra")
    for index, panel in enumerate(panels):
        x = margin + index * (size + gap)
        if small:
            text(draw, (x, head - 19), panel.title, 12, panel.color)
        else:
            text(draw, (x, head - 22), panel.title, 15, panel.color)
        if panel.image is None:
            draw.rectangle((x, head, x + size - 1, head + size - 1), fill=_BLANK)
            draw.multiline_text(
                (x + size / 2, head + size / 2),
                panel.words,
                font_size=letters,
                fill=FAINT,
                anchor="mm",
                align="center",
                spacing=6,
            )
        else:
            paste(canvas, panel.image, (x, head), size, panel.color)
    if num_future:
        _draw_future(canvas, future, num_future, thumb, (margin, head + size + 16))
    return np.asarray(canvas)


def _draw_future(
    canvas: Image.Image, future: Future | None, num_future: int, thumb: int, corner: tuple[int, int]
) -> None:
    """A row of small imagined frames, labelled with how many moves ahead they lie."""
    draw = ImageDraw.Draw(canvas)
    x, y = corner
    title = "imagined future of the best plan, in moves from now" if future is not None else ""
    text(draw, (x, y), title, 15, IMAGINED)
    for index in range(num_future):
        left, top = x + index * (thumb + 8), y + 24
        if future is None or index >= len(future.times):
            draw.rectangle((left, top, left + thumb - 1, top + thumb - 1), fill=_BLANK)
            continue
        found = bool(future.rewards[index] >= 0.5)
        paste(canvas, future.frames[index], (left, top), thumb, REWARD if found else None, 3)
        label = f"+{future.times[index]}" + ("  target" if found else "")
        box = draw.textbbox((left + 6, top + 5), label, font_size=13)
        draw.rounded_rectangle(
            (box[0] - 4, box[1] - 3, box[2] + 4, box[3] + 3), 4, fill=REWARD if found else (40, 42, 46)
        )
        text(draw, (left + 6, top + 5), label, 13, (255, 255, 255))
