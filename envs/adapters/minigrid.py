"""MiniGrid: grid worlds that an agent sees ahead of it (Chevalier-Boisvert et al. 2023, arXiv 2306.13831)."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator
from numpy.typing import NDArray

from lssvwm_agents.envs.adapters.base import (
    AdaptedEnv,
    ObservationKind,
    View,
    check_image_size,
    pose_space,
    relative_pose,
    resize,
)
from lssvwm_agents.envs.adapters.headless import missing_extra
from lssvwm_agents.envs.adapters.registration import MINIGRIDS
from lssvwm_agents.envs.adapters.walkers import GridSituation


class MiniGridEnv(AdaptedEnv):
    """One MiniGrid; the frame is what the agent sees. Actions and rewards are the package's own.

    ``proprio`` is the pose relative to the first one: cells ahead, cells to the left, sine and cosine of the
    heading. ``info["mission"]`` is the task in words. ``inner`` is the package's environment.

    Args:
        grid: Name in the package without ``MiniGrid-`` and version, such as ``MemoryS13``.
        image_size: Height and width of the frames.
        observation: ``frame`` or ``dict``.
        render_mode: None or ``rgb_array``: the whole grid from above.
        max_steps: Steps before the grid itself truncates (rewards depend on it); None for its own number.
        env_kwargs: More keyword arguments of that grid, such as ``agent_view_size``.

    Raises:
        ImportError: Without the package.
        ValueError: If there is no such grid.
    """

    def __init__(
        self,
        grid: str = "MemoryS13",
        image_size: int = 64,
        observation: ObservationKind = "frame",
        render_mode: str | None = None,
        max_steps: int | None = None,
        **env_kwargs: Any,
    ) -> None:
        size = check_image_size(image_size)
        if grid not in MINIGRIDS:
            raise ValueError(f"`grid` must be one of {', '.join(MINIGRIDS)}, got {grid!r}.")
        if max_steps is not None:
            env_kwargs["max_steps"] = max_steps
        self.inner = _make(grid, render_mode="rgb_array", **env_kwargs)
        self._size = size
        self._tile = -(-size // self.inner.agent_view_size)
        self._start: tuple[NDArray[Any], float] = (np.zeros(2), 0.0)
        super().__init__(
            frame_shape=(size, size, 3),
            action_space=self.inner.action_space,
            proprio_space=pose_space(max(self.inner.width, self.inner.height)),
            task_space=None,
            observation=observation,
            render_mode=render_mode,
        )

    def _begin(self, seed: int, options: dict[str, Any] | None) -> dict[str, Any]:
        _, info = self.inner.reset(seed=seed, options=options)
        self._start = self._pose()
        return {**info, "mission": self.inner.mission}

    def _advance(self, action: Any) -> tuple[float, bool, bool, dict[str, Any]]:
        _, reward, terminated, truncated, info = self.inner.step(action)
        return float(reward), terminated, truncated, {**info, "mission": self.inner.mission}

    def _pose(self) -> tuple[NDArray[Any], float]:
        column, row = self.inner.agent_pos
        # Rows count downwards and headings clockwise; 0 is east.
        return np.array([column, -row], np.float64), -float(self.inner.agent_dir) * np.pi / 2

    def situation(self) -> GridSituation:
        """Where the agent is in the whole grid: for policies that collect, not for an agent under test."""
        grid, (column, row) = self.inner.grid, self.inner.agent_pos
        cells = np.array([cell is None or cell.can_overlap() for cell in grid.grid], np.bool_)
        ends = [getattr(self.inner, name, None) for name in ("success_pos", "failure_pos")]
        return GridSituation(
            pose=(int(column), int(row), int(self.inner.agent_dir)),
            free=cells.reshape(grid.height, grid.width),
            ends=tuple((int(end[0]), int(end[1])) for end in ends if end is not None),
        )

    def _view(self) -> View:
        frame = self.inner.get_frame(tile_size=self._tile, agent_pov=True)
        return View(resize(frame, self._size, self._size), relative_pose(self._start, self._pose()))

    def _picture(self) -> NDArray[np.uint8]:
        return np.array(self.inner.render(), np.uint8)

    def _shut(self) -> None:
        self.inner.close()


def _make(grid: str, **kwargs: Any) -> Any:
    """The package's environment, bare."""
    try:
        import minigrid
    except ModuleNotFoundError as missing:
        raise ImportError(missing_extra("MiniGrid", "minigrid")) from missing
    gymnasium.register_envs(minigrid)
    spec = gymnasium.spec(f"MiniGrid-{grid}-v0")
    assert spec.entry_point is not None
    return load_env_creator(spec.entry_point)(**{**spec.kwargs, **kwargs})
