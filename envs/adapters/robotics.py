"""PointMaze and AntMaze of Gymnasium-Robotics: continuous control in mazes, seen from above.

After D4RL (Fu et al. 2020, arXiv 2004.07219). The frame shows the whole maze from above, always from the
same place, and the goal in red; so the proprio is in the maze's own coordinates, not relative to the start.
"""

from __future__ import annotations

from typing import Any, Literal

import gymnasium
import numpy as np

from lssvwm_agents.envs.adapters.base import ObservationKind
from lssvwm_agents.envs.adapters.headless import (
    choose_mujoco_renderer,
    explained_renderer,
    missing_extra,
)
from lssvwm_agents.envs.adapters.rendered import RenderedEnv

Camera = Literal["top", "default"]
SHADOW_PIXELS = 1024
_HALF_FIELD_OF_VIEW = np.deg2rad(22.5)  # MuJoCo's free camera sees 45 degrees vertically


class RoboticsMazeEnv(RenderedEnv):
    """One PointMaze or AntMaze; the episode ends at the goal unless ``continuing_task``.

    PointMaze: the proprio is (x, y, x velocity, y velocity) in metres, ``task`` the goal (x, y), actions two
    forces in [-1, 1]; reward 1 at less than 0.45 m from the goal. AntMaze: the proprio is x, y and the ant's
    105 numbers, actions eight torques.

    Args:
        env: Id in Gymnasium-Robotics, such as ``PointMaze_UMaze-v3``.
        image_size: Height and width of the frames.
        observation: ``frame`` or ``dict``.
        render_mode: None or ``rgb_array``.
        camera: ``top``: the whole maze from above; ``default``: the package's own view.
        action_repeat: Steps that one action lasts (10 ms each in PointMaze); their rewards are summed. The
            limit of an episode counts actions.
        continuing_task: Go on after the goal, with another one if ``reset_target``.
        max_episode_steps: Steps before truncation; None leaves that to ``gymnasium.make``.
        env_kwargs: More keyword arguments of that environment, such as ``maze_map`` or ``reward_type``.

    Raises:
        ImportError: Without gymnasium-robotics.
        ValueError: If the camera is another one.
    """

    def __init__(
        self,
        env: str,
        image_size: int = 64,
        observation: ObservationKind = "dict",
        render_mode: str | None = None,
        camera: Camera = "top",
        action_repeat: int = 1,
        continuing_task: bool = False,
        max_episode_steps: int | None = None,
        **env_kwargs: Any,
    ) -> None:
        if camera not in ("top", "default"):
            raise ValueError(f"`camera` must be 'top' or 'default', got {camera!r}.")
        if action_repeat < 1:
            raise ValueError(f"`action_repeat` must be at least 1, got {action_repeat!r}.")
        self._repeat = action_repeat
        choose_mujoco_renderer()
        try:
            with explained_renderer(f"`{env}`"):
                import gymnasium_robotics
        except ModuleNotFoundError as missing:
            raise ImportError(missing_extra("This maze", "robotics")) from missing
        gymnasium.register_envs(gymnasium_robotics)
        side = image_size if render_mode is None else max(256, image_size)
        super().__init__(
            env,
            image_size=image_size,
            observation=observation,
            render_mode=render_mode,
            proprio_keys=("observation",) if env.startswith("PointMaze") else None,
            continuing_task=continuing_task,
            # None of its own: registered ids have the limit of `gymnasium.make`.
            max_episode_steps=-1 if max_episode_steps is None else max_episode_steps,
            width=side,
            height=side,
            **env_kwargs,
        )
        assert self._renderer is not None
        # The ant's model asks for shadows of 4096 x 4096 pixels, on a CPU most of the time of a frame.
        quality = self._renderer.model.vis.quality
        quality.shadowsize = min(quality.shadowsize, SHADOW_PIXELS)
        if camera == "top":
            self._renderer.default_cam_config = _from_above(self.inner.unwrapped.maze)  # type: ignore[attr-defined]
            self._renderer.camera_id = -1  # the free camera, not the one that follows the ant

    def _advance(self, action: Any) -> tuple[float, bool, bool, dict[str, Any]]:
        total = 0.0
        for _ in range(self._repeat):
            reward, terminated, truncated, info = super()._advance(action)
            total += reward
            if terminated or truncated:
                break
        return total, terminated, truncated, info


def _from_above(maze: Any) -> dict[str, Any]:
    """A free camera above the middle that sees the floor and half of the outer walls' tops."""
    side = (max(maze.map_length, maze.map_width) - 1) * maze.maze_size_scaling
    top = maze.maze_height * maze.maze_size_scaling
    return {
        "distance": top + side / 2 / np.tan(_HALF_FIELD_OF_VIEW),
        "azimuth": 90.0,
        "elevation": -90.0,
        "lookat": np.zeros(3),
    }
