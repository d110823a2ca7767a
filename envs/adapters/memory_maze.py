"""Memory Maze (Pasukonis et al. 2022, arXiv 2210.13383) on MuJoCo, in Gymnasium's five values.

The package speaks dm_env and old gym; it is used below its gym layer, which needs a gym of the past.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from lssvwm_agents.envs.adapters.base import (
    HUMAN_SIZE,
    AdaptedEnv,
    View,
    check_image_size,
    enlarge,
    pose_space,
    relative_pose,
)
from lssvwm_agents.envs.adapters.headless import (
    choose_mujoco_renderer,
    explained_renderer,
    missing_extra,
)
from lssvwm_agents.envs.adapters.registration import MEMORY_MAZE_STEPS
from lssvwm_agents.envs.adapters.walkers import MazeSituation

NUM_TARGETS = {9: 3, 11: 4, 13: 5, 15: 6}
_EXTRA = ("agent_pos", "agent_dir", "targets_vec", "targets_pos", "target_vec", "target_pos", "maze_layout")


class MemoryMazeEnv(AdaptedEnv):
    """Find the target whose colour the frame's border shows, again and again: +1 each.

    Actions are RaycastMaze's: Discrete(6) (nothing, forward, left, right, forward and left, forward and
    right), or Box(2) of speed and turn to the left in [-1, 1]. ``proprio`` is the pose relative to the first
    one: cells ahead, cells to the left, sine and cosine of the heading; ``task`` is the colour (r, g, b) of
    the current target.

    The episode of seed ``s`` is the first one of the package's own environment made with ``seed=s``.

    Args:
        size: Interior cells per side: 9, 11, 13 or 15.
        observation: ``frame``; ``dict`` of frame, proprio and task; ``extra``: that and the package's
            ExtraObs, ``agent_pos``, ``agent_dir``, ``targets_vec``, ``targets_pos``, ``target_vec``,
            ``target_pos`` in cells and ``maze_layout`` (1 is free). An agent under test must not see those.
        continuous: Box(2) actions.
        image_size: Height and width of the frames; below 64 the border has no width.
        good_visibility: Low walls and targets above the ground: an easier maze.
        randomize_colors: Any of six colours, also where there are fewer targets.
        render_mode: None or ``rgb_array``: frame and map side by side.

    Raises:
        ImportError: Without the package.
        ValueError: If a setting is outside its range.
    """

    def __init__(
        self,
        size: int = 9,
        observation: Literal["frame", "dict", "extra"] = "frame",
        continuous: bool = False,
        image_size: int = 64,
        good_visibility: bool = False,
        randomize_colors: bool = False,
        render_mode: str | None = None,
    ) -> None:
        if size not in MEMORY_MAZE_STEPS:
            raise ValueError(f"`size` must be one of {list(MEMORY_MAZE_STEPS)}, got {size!r}.")
        if observation not in ("frame", "dict", "extra"):
            raise ValueError(f"`observation` must be 'frame', 'dict' or 'extra', got {observation!r}.")
        check_image_size(image_size, smallest=64)
        self._settings = {
            "camera_resolution": image_size,
            "good_visibility": good_visibility,
            "randomize_colors": randomize_colors,
            "discrete_actions": not continuous,
            "global_observables": True,
        }
        self._make = getattr(_tasks(), f"memory_maze_{size}x{size}")
        self._maze: Any = None
        self._seen: dict[str, NDArray[Any]] = {}
        self._start: tuple[NDArray[Any], float] = (np.zeros(2), 0.0)
        super().__init__(
            frame_shape=(image_size, image_size, 3),
            action_space=spaces.Box(-1.0, 1.0, (2,), np.float32) if continuous else spaces.Discrete(6),
            proprio_space=pose_space(size),
            task_space=spaces.Box(0.0, 1.0, (3,), np.float32),
            observation="frame" if observation == "frame" else "dict",
            render_mode=render_mode,
            extra_spaces=_extra_spaces(size) if observation == "extra" else None,
        )
        self.metadata = {**self.metadata, "render_fps": 4}

    def _begin(self, seed: int, options: dict[str, Any] | None) -> dict[str, Any]:
        with explained_renderer("Memory Maze"), _without_a_warning():
            if self._maze is None:
                self._maze = self._make(seed=seed, **self._settings)
            else:
                _seed_again(self._maze, seed)
            self._seen = self._maze.reset().observation
        self._start = self._pose()
        return {}

    def _advance(self, action: Any) -> tuple[float, bool, bool, dict[str, Any]]:
        # Theirs rolls forward by -1 and turns left by -1.
        now = self._maze.step(action if isinstance(action, int) else -np.asarray(action, np.float64))
        self._seen = now.observation
        ended = bool(now.last())
        terminated = ended and now.discount == 0.0
        return float(now.reward), terminated, ended and not terminated, {}

    def _pose(self) -> tuple[NDArray[Any], float]:
        ahead = self._seen["agent_dir"]
        return np.array(self._seen["agent_pos"]), float(np.arctan2(ahead[1], ahead[0]))

    def situation(self) -> MazeSituation:
        """Where the ball is in the whole maze: for policies that collect, not for an agent under test."""
        position, heading = self._pose()
        return MazeSituation(
            position=np.asarray(position, np.float64),
            heading=heading,
            free=np.array(self._seen["maze_layout"], np.bool_),
            target=np.array(self._seen["target_pos"], np.float64),
        )

    def _view(self) -> View:
        return View(
            frame=np.array(self._seen["image"], np.uint8),
            proprio=relative_pose(self._start, self._pose()),
            task=np.clip(self._seen["target_color"], 0.0, 1.0),
            extra={
                name: np.array(self._seen[name], np.uint8 if name == "maze_layout" else np.float32)
                for name in _EXTRA
            },
        )

    def _picture(self) -> NDArray[np.uint8]:
        frame = enlarge(self._view().frame, HUMAN_SIZE)
        side = frame.shape[0]
        physics = self._maze.physics
        cameras = [physics.model.id2name(i, "camera") for i in range(physics.model.ncam)]
        above = next(name for name in cameras if name.endswith("top_camera"))
        seen = physics.render(height=side, width=side, camera_id=above)
        return np.concatenate([frame, np.asarray(seen, np.uint8)], axis=1)

    def _shut(self) -> None:
        if self._maze is not None:
            self._maze.close()
            self._maze = None


def _extra_spaces(size: int) -> dict[str, spaces.Space[Any]]:
    number, far = NUM_TARGETS[size], float(2 * size)
    shapes = {name: (number, 2) if name.startswith("targets") else (2,) for name in _EXTRA[:-1]}
    boxes: dict[str, spaces.Space[Any]] = {
        name: spaces.Box(-far, far, shape, np.float32) for name, shape in shapes.items()
    }
    return {**boxes, "maze_layout": spaces.Box(0, 1, (size, size), np.uint8)}


def _seed_again(maze: Any, seed: int) -> None:
    """Put an environment of the package where ``seed`` would have put a new one, in a third of the time."""
    random_state = maze.random_state
    random_state.seed(seed)
    text = maze.task._maze_arena._maze
    # The generator of layouts takes a seed only when it is made; the first draw is its seed.
    type(text).__init__(
        text,
        height=text.height,
        width=text.width,
        max_rooms=text.max_rooms,
        room_min_size=text.room_min_size,
        room_max_size=text.room_max_size,
        max_variations=text.max_variations,
        spawns_per_room=text.spawns_per_room,
        objects_per_room=text.objects_per_room,
        simplify=True,
        random_seed=random_state.randint(2**31),
    )
    # What the last episode left: colours shuffled in place, targets touched.
    maze.task._target_colors[:] = sys.modules[type(maze.task).__module__].TARGET_COLORS
    for target in maze.task._targets:
        target._activated = False


def _tasks() -> Any:
    """The module ``memory_maze.tasks``, past the package's ``__init__``, which wants old gym."""
    choose_mujoco_renderer()
    if "memory_maze.tasks" in sys.modules:
        return sys.modules["memory_maze.tasks"]
    try:
        found = importlib.util.find_spec("memory_maze")
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ImportError(missing_extra("Memory Maze", "memory-maze"))
    hollow = types.ModuleType("memory_maze")
    hollow.__path__ = list(found.submodule_search_locations or [])
    before = sys.modules.setdefault("memory_maze", hollow)
    try:
        with explained_renderer("Memory Maze"):
            return importlib.import_module("memory_maze.tasks")
    except ModuleNotFoundError as missing:  # dm_control, or something that it needs
        raise ImportError(missing_extra("Memory Maze", "memory-maze")) from missing
    finally:
        if before is hollow:  # whoever imports the package later shall get the real one
            del sys.modules["memory_maze"]


@contextmanager
def _without_a_warning() -> Iterator[None]:
    """dm_control warns at each reset that a rolling ball's velocity is not set; nothing is wrong."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
