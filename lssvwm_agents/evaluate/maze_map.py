"""The map of one maze with the path so far and the path that the plan imagines."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw

from lssvwm_agents.envs import MazeConfig, MazeState
from lssvwm_agents.envs.raycast_maze import heading_vectors
from lssvwm_agents.envs.top_down import render_top_down
from lssvwm_agents.report.drawing import IMAGINED

PAST = (86, 92, 108)
_AGENT, _RIM = (24, 26, 32), (255, 255, 255)
_SHARPNESS = 2


@dataclass(frozen=True)
class MazeView:
    """What the map of one moment is drawn from.

    Attributes:
        config: The family of mazes.
        state: Of B mazes.
    """

    config: MazeConfig
    state: MazeState


def odometry_to_maze(odometry_T2: np.ndarray, start: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """Turn odometry (cells ahead of the first pose, cells to its left) into maze coordinates.

    Args:
        odometry_T2: (T, 2).
        start: (2,) first position, in cells.
        forward: (2,) unit vector of the first heading.

    Returns:
        (T, 2) x to the right and y up, in cells.
    """
    left = np.array([-forward[1], forward[0]])
    return start + odometry_T2[:, :1] * forward + odometry_T2[:, 1:2] * left


class MapDrawer:
    """Draws maps of one maze; walls and targets are drawn anew only when another target becomes current.

    Args:
        row: Which maze of the views.
        size: Edge of the map in pixels.
    """

    def __init__(self, row: int, size: int) -> None:
        self.row = row
        self.size = size
        self._background: tuple[tuple[int, int], Image.Image] | None = None

    def draw(self, past: Sequence[MazeView], planned_T2: np.ndarray | None) -> np.ndarray:
        """Draw the last of the moments ``past``, with the path through all of them.

        Args:
            past: Views of all moments so far.
            planned_T2: (T, 2) imagined odometry of the plan, drawn as dots; or None.

        Returns:
            (size, size, 3) uint8.
        """
        view = past[-1]
        state = view.state.select(torch.tensor([self.row]))
        grid, large = view.config.grid_size, self.size * _SHARPNESS
        scale = large / grid
        image = self._walls_and_targets(view.config, state, large).copy()
        draw = ImageDraw.Draw(image)

        def pixels(points: np.ndarray) -> list[tuple[float, float]]:
            return [(float(x) * scale, (grid - float(y)) * scale) for x, y in points]

        path = pixels(np.stack([v.state.position[self.row].numpy(force=True) for v in past]))
        if len(path) > 1:
            draw.line(path, fill=PAST, width=2 * _SHARPNESS, joint="curve")
        if planned_T2 is not None:
            start = state.start_position[0].numpy(force=True)
            forward = heading_vectors(state.start_heading)[0].numpy(force=True)
            dots = pixels(odometry_to_maze(planned_T2, start, forward))
            for x, y in dots:
                _dot(draw, x, y, 0.07 * scale, IMAGINED)
            _dot(draw, *dots[-1], 0.2 * scale, _RIM)
            _dot(draw, *dots[-1], 0.15 * scale, IMAGINED)
        self._agent(draw, pixels, state)
        return np.asarray(image.resize((self.size, self.size), Image.Resampling.BOX))

    def _walls_and_targets(self, config: MazeConfig, state: MazeState, large: int) -> Image.Image:
        key = (int(state.seed), int(state.current_target))
        if self._background is None or self._background[0] != key:
            nobody = dataclasses.replace(state, position=state.position - 1000.0)
            drawn = render_top_down(config, nobody, large)[0].numpy(force=True)
            self._background = (key, Image.fromarray(drawn))
        return self._background[1]

    def _agent(self, draw: ImageDraw.ImageDraw, pixels, state: MazeState) -> None:  # noqa: ANN001
        position = state.position[0].numpy(force=True)
        forward = heading_vectors(state.heading)[0].numpy(force=True)
        left = np.array([-forward[1], forward[0]])
        for grow, color in ((0.09, _RIM), (0.0, _AGENT)):
            ahead, back, side = 0.42 + 1.6 * grow, 0.3 + grow, 0.3 + grow
            corners = [
                position + ahead * forward,
                position - back * forward + side * left,
                position - (back - 0.14) * forward,
                position - back * forward - side * left,
            ]
            draw.polygon(pixels(np.stack(corners)), fill=color)


def _dot(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, color: tuple[int, int, int]) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
