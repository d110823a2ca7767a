"""Any Gymnasium environment that renders, as frames and a vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from lssvwm_agents.envs.adapters import mujoco_contexts
from lssvwm_agents.envs.adapters.base import (
    AdaptedEnv,
    ObservationKind,
    View,
    check_image_size,
    resize,
)
from lssvwm_agents.envs.adapters.headless import choose_mujoco_renderer, explained_renderer

GOAL_KEY = "desired_goal"


class RenderedEnv(AdaptedEnv):
    """Wrap an environment that renders: its picture is the frame, what it observes is ``proprio``.

    Of an environment that observes a vector, that vector is the proprio. Of a Dict, the flat Box parts are,
    one after the other; ``desired_goal``, if there, is the task instead (Gymnasium-Robotics' goal
    environments).

    ``env`` is closed with the wrapper; ``inner`` is it.

    Args:
        env: A Gymnasium id, or an environment made with ``render_mode="rgb_array"``.
        image_size: Height and width of the frames; pictures of another shape are squeezed.
        observation: ``frame`` or ``dict``.
        render_mode: None or ``rgb_array``: the environment's own picture, in its own size.
        proprio_keys: Parts of a Dict observation that make up the proprio; None takes all but the goal.
        env_kwargs: Keyword arguments of the environment, if it is given by id.

    Raises:
        ValueError: If the environment does not render, or has no part of that name.
    """

    def __init__(
        self,
        env: str | gymnasium.Env[Any, Any],
        image_size: int = 64,
        observation: ObservationKind = "dict",
        render_mode: str | None = None,
        proprio_keys: Sequence[str] | None = None,
        **env_kwargs: Any,
    ) -> None:
        size = check_image_size(image_size)
        if isinstance(env, str):
            choose_mujoco_renderer()
            with explained_renderer(f"`{env}`"):
                env = gymnasium.make(env, render_mode="rgb_array", disable_env_checker=True, **env_kwargs)
        elif env_kwargs:
            raise ValueError(f"The environment is made already: it takes no {sorted(env_kwargs)[0]!r} now.")
        if env.render_mode != "rgb_array":
            raise ValueError(
                f"The environment must be made with render_mode='rgb_array', got {env.render_mode!r}."
            )
        self.inner = env
        self._renderer = mujoco_contexts.renderer_of(env)
        self._proprio_keys, self._task_keys = _vector_keys(env.observation_space, proprio_keys)
        self._seen: Any = None
        fps = env.metadata.get("render_fps", self.metadata["render_fps"])
        self.metadata = {**self.metadata, "render_fps": fps}
        super().__init__(
            frame_shape=(size, size, 3),
            action_space=env.action_space,
            proprio_space=_vector_space(env.observation_space, self._proprio_keys),
            task_space=_vector_space(env.observation_space, self._task_keys),
            observation=observation,
            render_mode=render_mode,
        )

    def _begin(self, seed: int, options: dict[str, Any] | None) -> dict[str, Any]:
        self._seen, info = self.inner.reset(seed=seed, options=options)
        return info

    def _advance(self, action: Any) -> tuple[float, bool, bool, dict[str, Any]]:
        self._seen, reward, terminated, truncated, info = self.inner.step(action)
        return float(reward), terminated, truncated, info

    def _view(self) -> View:
        height, width = self._frame_size()
        return View(
            frame=resize(self._draw(), height, width),
            proprio=_vector(self._seen, self._proprio_keys),
            task=_vector(self._seen, self._task_keys),
        )

    def _frame_size(self) -> tuple[int, int]:
        space: Any = self.observation_space
        shape = (space["frame"] if isinstance(space, spaces.Dict) else space).shape
        return int(shape[0]), int(shape[1])

    def _draw(self) -> NDArray[np.uint8]:
        with explained_renderer(f"`{self.inner.spec.id if self.inner.spec else self.inner}`"):
            if self._renderer is not None:
                mujoco_contexts.make_current(self._renderer)
            picture: Any = self.inner.render()
            if self._renderer is not None:
                mujoco_contexts.remember(self._renderer)
        if not isinstance(picture, np.ndarray) or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(f"`render()` must give (H, W, 3), got {type(picture).__name__}.")
        return picture

    def _picture(self) -> NDArray[np.uint8]:
        return np.array(self._draw(), np.uint8)

    def _shut(self) -> None:
        if self._renderer is not None:
            mujoco_contexts.free(self._renderer)
        self.inner.close()

    def __del__(self) -> None:
        if getattr(self, "_renderer", None) is not None and hasattr(self, "_phase"):
            self.close()


def _vector_keys(
    space: spaces.Space[Any], asked: Sequence[str] | None
) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """Keys of the proprio and of the task; an empty tuple is the whole observation, None nothing."""
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        if asked:
            raise ValueError(f"The observation has no parts, so no `proprio_keys`, got {list(asked)}.")
        return (), None
    if not isinstance(space, spaces.Dict):
        return None, None
    flat = [key for key, part in space.items() if isinstance(part, spaces.Box) and len(part.shape) == 1]
    for key in asked or ():
        if key not in flat:
            raise ValueError(f"`proprio_keys` must be among {flat}, the flat parts, got {key!r}.")
    keys = tuple(asked) if asked is not None else tuple(key for key in flat if key != GOAL_KEY)
    return keys or None, (GOAL_KEY,) if GOAL_KEY in flat else None


def _vector_space(space: spaces.Space[Any], keys: tuple[str, ...] | None) -> spaces.Box | None:
    if keys is None:
        return None
    parts: list[Any] = [space[key] for key in keys] if isinstance(space, spaces.Dict) else [space]
    low = np.concatenate([part.low for part in parts]).astype(np.float32)
    high = np.concatenate([part.high for part in parts]).astype(np.float32)
    return spaces.Box(low, high, dtype=np.float32)


def _vector(observation: Any, keys: tuple[str, ...] | None) -> NDArray[np.float32] | None:
    if keys is None:
        return None
    parts = [observation[key] for key in keys] if keys else [observation]
    return np.concatenate([np.asarray(part, np.float32).ravel() for part in parts])
