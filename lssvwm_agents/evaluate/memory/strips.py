"""Film strips: the real frames of a path, and what each condition imagined for them."""

from __future__ import annotations

import numpy as np
import torch

from lssvwm_agents.evaluate.memory import controls
from lssvwm_agents.evaluate.memory.episodes import NEVER, Episodes
from lssvwm_agents.evaluate.memory.scoring import inside_border
from lssvwm_agents.evaluate.memory.world import MAZE
from lssvwm_agents.metrics import psnr
from lssvwm_agents.report.frame_grid import GridRow, frame_grid

SHOWN = (
    controls.OURS,
    controls.WINDOW_ONLY,
    controls.CONTEXT_CUT,
    controls.SHUFFLED,
    controls.WRONG_ACTIONS,
    controls.NEAREST,
    controls.CEILING,
)
LABELS = {
    controls.OURS: "ours",
    controls.WINDOW_ONLY: "window only",
    controls.CONTEXT_CUT: "context cut",
    controls.SHUFFLED: "shuffled context",
    controls.WRONG_ACTIONS: "wrong actions",
    controls.CEILING: "tokenizer",
    controls.NEAREST: "nearest view",
    controls.COPY_LAST: "copy last",
    controls.MEAN_FRAME: "mean frame",
}
_COLUMNS = 9


class Strip:
    """Collects one maze's frames of every condition, and draws them.

    Args:
        episodes: C + H frames of B mazes.
        context: C.
        age: (B, H) frames since last seen.
        row: Which maze.
        title: A line over the picture.
    """

    def __init__(self, episodes: Episodes, context: int, age: torch.Tensor, row: int, title: str) -> None:
        horizon = episodes.frames.shape[1] - context
        times = np.unique(np.linspace(0, horizon - 1, min(_COLUMNS, horizon)).round().astype(int))
        self._row, self._title, self._times = row, title, torch.as_tensor(times)
        future = episodes.frames[row, context:].cpu()
        self._truth = future[self._times]
        self._age = age[row].cpu()[self._times]
        self._rows: list[GridRow] = []

    def add(self, name: str, frames: torch.Tensor) -> None:
        """Keep what a condition made of the maze, frames (B, H, 3, S, S) in [0, 1]."""
        if name not in SHOWN:
            return
        shown = frames[self._row].cpu()[self._times]
        scores = psnr(inside_border(MAZE, shown), inside_border(MAZE, controls.unit(self._truth)))
        pictures = (shown.clamp(0, 1) * 255).round().to(torch.uint8).movedim(1, -1).numpy()
        self._rows.append(GridRow(LABELS[name], pictures, [f"{s:.1f} dB" for s in scores.tolist()]))

    def draw(self) -> np.ndarray:
        """The picture, (height, width, 3) uint8."""
        ages = ["never seen" if age == NEVER else f"seen {age} ago" for age in self._age.tolist()]
        real = GridRow("real", self._truth.numpy(), ages, real=True)
        return frame_grid(
            [real, *self._rows],
            [f"+{time + 1}" for time in self._times.tolist()],
            self._title,
            "Columns: imagined frames after the context. Under the real frames: frames since last seen.",
        )
