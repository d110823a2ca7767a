"""Frames in rows and columns, with words at both edges: what was real, and what each model made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from lssvwm_agents.report.drawing import FAINT, IMAGINED, INK, PAPER, REAL, paste, text


@dataclass(frozen=True)
class GridRow:
    """One row.

    Attributes:
        label: A few words at its left.
        frames: (K, H, W, 3) uint8, one per column.
        notes: One short text under each frame; empty for none.
        real: Whether the frames are the environment's own.
    """

    label: str
    frames: np.ndarray
    notes: Sequence[str] = ()
    real: bool = False


def frame_grid(
    rows: Sequence[GridRow], columns: Sequence[str], title: str, footnote: str = "", cell: int = 128
) -> np.ndarray:
    """Draw rows of frames under column headings.

    Args:
        rows: From top to bottom.
        columns: A heading each.
        title: A line over the picture.
        footnote: A line under it.
        cell: Edge of a frame in pixels.

    Returns:
        (height, width, 3) uint8.

    Raises:
        ValueError: If there are no rows, or a row has not one frame per column.
    """
    if not rows:
        raise ValueError("`rows` must hold at least one row, got none.")
    for row in rows:
        if len(row.frames) != len(columns) or (row.notes and len(row.notes) != len(columns)):
            raise ValueError(
                f"row `{row.label}` must have one frame (and note) per column ({len(columns)}), "
                f"got {len(row.frames)} frames and {len(row.notes)} notes."
            )
    gap, margin, label_width, head, note = 8, 20, 132, 76, 16
    pitch_x, pitch_y = cell + gap, cell + gap + note
    width = max(2 * margin + label_width + len(columns) * pitch_x - gap, 640)
    canvas = Image.new("RGB", (width, head + len(rows) * pitch_y + (30 if footnote else 6)), PAPER)
    draw = ImageDraw.Draw(canvas)
    text(draw, (margin, 14), title, 18)
    left = margin + label_width
    for column, words in enumerate(columns):
        text(draw, (left + column * pitch_x, head - 24), words, 13, FAINT)
    for index, row in enumerate(rows):
        y, color = head + index * pitch_y, REAL if row.real else IMAGINED
        text(draw, (margin, y + cell // 2), row.label, 14, color, anchor="lm")
        for column, frame in enumerate(row.frames):
            x = left + column * pitch_x
            paste(canvas, frame, (x, y), cell)
            if row.notes:
                text(draw, (x, y + cell + 2), row.notes[column], 12, INK)
    if footnote:
        text(draw, (margin, canvas.height - 24), footnote, 13, FAINT)
    return np.asarray(canvas)
