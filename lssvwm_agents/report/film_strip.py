"""Candidate futures as a film strip: one row a candidate, its imagined frames from left to right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from lssvwm_agents.report.drawing import FAINT, IMAGINED, INK, PAPER, REAL, REWARD, paste, text


@dataclass(frozen=True)
class FilmStripRow:
    """One candidate future.

    Attributes:
        label: What it is, in a few words, such as ``best of 64``.
        expected_return: The return that the planner gave it.
        frames: (T, H, W, 3) uint8 imagined frames to show.
        rewards: (T,) imagined reward gathered since the previous frame shown; a frame is marked where it
            is at least 0.5.
    """

    label: str
    expected_return: float
    frames: np.ndarray
    rewards: np.ndarray


def film_strip(
    now: np.ndarray,
    rows: Sequence[FilmStripRow],
    times: Sequence[int],
    title: str,
    footnote: str = "",
    cell: int = 128,
) -> np.ndarray:
    """Draw candidate futures, best first, beside the real frame that they all start from.

    Args:
        now: (H, W, 3) uint8, the real frame at the moment of planning.
        rows: The candidates; all with as many frames as there are ``times``.
        times: Moves ahead of now of each frame shown.
        title: A line over the picture.
        footnote: A line under it.
        cell: Size of one frame in pixels.

    Returns:
        (height, width, 3) uint8.

    Raises:
        ValueError: If there are no rows, or a row's frames do not match ``times``.
    """
    if not rows:
        raise ValueError("`rows` must hold at least one candidate, got none.")
    for row in rows:
        if not len(row.frames) == len(row.rewards) == len(times):
            raise ValueError(
                f"every row needs one frame and one reward per time shown ({len(times)}), "
                f"got {len(row.frames)} frames and {len(row.rewards)} rewards."
            )
    gap, margin, label_width, head = 8, 20, 128, 78
    pitch = cell + gap
    strip_x = margin + cell + 2 * margin + label_width
    width = max(strip_x + len(times) * pitch - gap + margin, 640)
    foot = 34 if footnote else 8
    canvas = Image.new("RGB", (width, head + len(rows) * pitch + foot), PAPER)
    draw = ImageDraw.Draw(canvas)

    text(draw, (margin, 14), title, 20)
    text(draw, (margin, head - 24), "now (real)", 14, REAL)
    text(draw, (strip_x - label_width, head - 24), "return", 14, FAINT)
    for column, time in enumerate(times):
        words = f"+{time}" + (" moves" if column == 0 else "")
        text(draw, (strip_x + column * pitch, head - 24), words, 14, IMAGINED)

    middle = head + (len(rows) * pitch - gap) // 2
    now_y = middle - cell // 2
    paste(canvas, now, (margin, now_y), cell, REAL)
    fork_x = margin + cell + margin // 2
    draw.line((margin + cell + 3, middle, fork_x + 6, middle), fill=FAINT, width=2)
    for index, row in enumerate(rows):
        y = head + index * pitch
        center = y + cell // 2
        draw.line((fork_x + 6, middle, fork_x + 6, center), fill=FAINT, width=2)
        draw.line((fork_x + 6, center, fork_x + 18, center), fill=FAINT, width=2)
        left = strip_x - label_width
        text(draw, (left, center - 4), f"{row.expected_return:+.2f}", 24, INK, anchor="ls")
        text(draw, (left, center + 4), row.label, 14, FAINT)
        for column, (frame, reward) in enumerate(zip(row.frames, row.rewards, strict=True)):
            x = strip_x + column * pitch
            found = bool(reward >= 0.5)
            paste(canvas, frame, (x, y), cell, REWARD if found else None, 3)
            if found:
                draw.rounded_rectangle((x + 4, y + 4, x + 52, y + 24), 5, fill=REWARD)
                text(draw, (x + 28, y + 14), f"+{reward:.1f}", 14, (255, 255, 255), anchor="mm")
    if footnote:
        text(draw, (margin, canvas.height - 26), footnote, 14, FAINT)
    return np.asarray(canvas)
