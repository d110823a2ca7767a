"""MiniWorld: rooms and mazes in first person (Chevalier-Boisvert et al. 2023, arXiv 2306.13831)."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from numpy.typing import NDArray

from lssvwm_agents.envs.adapters.base import (
    AdaptedEnv,
    ObservationKind,
    View,
    check_image_size,
    relative_pose,
)
from lssvwm_agents.envs.adapters.headless import explained_renderer, make_pyglet_headless, missing_extra
from lssvwm_agents.envs.adapters.registration import MINIWORLDS

_FAR = np.array([np.inf, np.inf, 1, 1], np.float32)


class MiniWorldEnv(AdaptedEnv):
    """One MiniWorld; its actions, rewards and ends are the package's own.

    ``proprio`` is the pose relative to the first one: metres ahead, metres to the left, sine and cosine of
    the heading. ``inner`` is the package's environment.

    Args:
        world: Name in the package, such as ``Maze`` or ``FourRooms``.
        image_size: Height and width of the frames.
        observation: ``frame`` or ``dict``.
        render_mode: None or ``rgb_array``: a larger view through the agent's eyes.
        max_steps: Steps before the world itself truncates; None for its own number.
        env_kwargs: More keyword arguments of that world, such as ``domain_rand=True``.

    Raises:
        ImportError: Without the package.
        ValueError: If there is no such world.
    """

    def __init__(
        self,
        world: str = "Maze",
        image_size: int = 64,
        observation: ObservationKind = "frame",
        render_mode: str | None = None,
        max_steps: int | None = None,
        **env_kwargs: Any,
    ) -> None:
        size = check_image_size(image_size)
        if world not in MINIWORLDS:
            raise ValueError(f"`world` must be one of {', '.join(MINIWORLDS)}, got {world!r}.")
        if max_steps is not None:
            env_kwargs["max_episode_steps"] = max_steps
        self.inner = _make(world, obs_width=size, obs_height=size, render_mode="rgb_array", **env_kwargs)
        self._frame: NDArray[np.uint8] = np.zeros((size, size, 3), np.uint8)
        self._start: tuple[NDArray[Any], float] = (np.zeros(2), 0.0)
        super().__init__(
            frame_shape=(size, size, 3),
            action_space=self.inner.action_space,
            proprio_space=spaces.Box(-_FAR, _FAR, dtype=np.float32),
            task_space=None,
            observation=observation,
            render_mode=render_mode,
        )

    def _begin(self, seed: int, options: dict[str, Any] | None) -> dict[str, Any]:
        self._frame, info = self.inner.reset(seed=seed, options=options)
        self._start = self._pose()
        return info

    def _advance(self, action: Any) -> tuple[float, bool, bool, dict[str, Any]]:
        self._frame, reward, terminated, truncated, info = self.inner.step(action)
        return float(reward), terminated, truncated, info

    def _pose(self) -> tuple[NDArray[Any], float]:
        agent = self.inner.agent
        return np.array([agent.pos[0], -agent.pos[2]]), float(agent.dir)

    def _view(self) -> View:
        return View(np.array(self._frame, np.uint8), relative_pose(self._start, self._pose()))

    def _picture(self) -> NDArray[np.uint8]:
        return np.array(self.inner.render(), np.uint8)

    def _shut(self) -> None:
        self.inner.close()


def _make(world: str, **kwargs: Any) -> Any:
    """The package's environment, without the limit that ``gymnasium.make`` would put around it."""
    try:
        with explained_renderer("MiniWorld"):
            make_pyglet_headless()
            import miniworld.envs  # noqa: F401
    except ModuleNotFoundError as missing:
        raise ImportError(missing_extra("MiniWorld", "miniworld")) from missing
    spec = gymnasium.spec(f"MiniWorld-{world}-v0")
    assert spec.entry_point is not None
    # It prints how many samples a pixel has.
    with explained_renderer("MiniWorld"), contextlib.redirect_stdout(io.StringIO()):
        return load_env_creator(spec.entry_point)(**{**spec.kwargs, **kwargs})
