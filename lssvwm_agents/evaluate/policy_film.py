"""A film of real episodes beside what the world model imagined of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from lssvwm_agents.report.drawing import FAINT, IMAGINED, INK, PAPER, REAL, paste, text
from lssvwm_agents.report.video import write_mp4

if TYPE_CHECKING:
    from lssvwm_agents.evaluate.policy_play import FilmFrame

_CELL, _GAP, _HEAD, _CAPTION = 192, 14, 58, 24


def film_page(frame: FilmFrame, move: int) -> np.ndarray:
    """One move: real frames above, imagined ones below, an episode a column: (height, width, 3) uint8."""
    rows = len(frame.real)
    width = _GAP + rows * (_CELL + _GAP)
    height = _HEAD + 2 * (_CELL + _CAPTION + _GAP)
    canvas = Image.new("RGB", (max(width, 420), height), PAPER)
    draw = ImageDraw.Draw(canvas)
    text(draw, (_GAP, 10), f"policy trained in imagination, move {move}", 17, INK)
    note = (
        "real memory taken over in this frame"
        if frame.fresh
        else "above: real; below: imagined, its own moves"
    )
    text(draw, (_GAP, 34), note, 13, FAINT)
    for row in range(rows):
        x = _GAP + row * (_CELL + _GAP)
        for place, (pixels, score, color, word) in enumerate(
            (
                (frame.real, frame.real_score, REAL, "real"),
                (frame.imagined, frame.imagined_score, IMAGINED, "imagined"),
            )
        ):
            y = _HEAD + place * (_CELL + _CAPTION + _GAP)
            paste(canvas, pixels[row], (x, y), _CELL, color)
            text(draw, (x, y + _CELL + 5), f"{word}: {score[row]:.1f} so far", 13, color)
    return np.asarray(canvas)


def write_film(path: str | Path, frames: Sequence[FilmFrame], fps: float = 8.0) -> None:
    """Write all moves as an mp4, atomically."""
    write_mp4(path, (film_page(frame, move) for move, frame in enumerate(frames, start=1)), fps)
