"""Register mazes and imagined environments with Gymnasium, for its ``make`` and ``make_vec``."""

from __future__ import annotations

from typing import Any

import gymnasium

from lssvwm_agents.envs.maze_config import MAX_CUE_DELAY

MAZE_SIZES = (7, 9, 11, 13, 15)
CUE_ID = "lssvwm/RaycastMaze-Cue-v0"
IMAGINED_ID = "lssvwm/Imagined-v0"
IMAGINED_STEPS = 64


def maze_id(size: int, continuous: bool = False) -> str:
    """Name a registered maze: ``lssvwm/RaycastMaze-9x9-v0``."""
    return f"lssvwm/RaycastMaze-{size}x{size}{'-Continuous' if continuous else ''}-v0"


def _register(name: str, max_episode_steps: int, **kwargs: Any) -> None:
    if name in gymnasium.registry:
        return
    gymnasium.register(
        id=name,
        entry_point="lssvwm_agents.envs.maze_env:RaycastMazeEnv",
        vector_entry_point="lssvwm_agents.envs.maze_vector_env:RaycastMazeVectorEnv",
        max_episode_steps=max_episode_steps,
        kwargs=kwargs,
    )


def register_mazes() -> None:
    """Register all sizes with discrete and continuous actions, and the cue corridor; safe to call twice."""
    for size in MAZE_SIZES:
        _register(maze_id(size), 500, size=size)
        _register(maze_id(size, continuous=True), 500, size=size, continuous=True)
    # Long enough for the longest delay; a shorter episode can be asked for in `make`.
    _register(CUE_ID, MAX_CUE_DELAY + 128, task="cue")


def register_imagined() -> None:
    """Register the imagined environment; safe to call twice.

    The entry points lie above this layer, where models have names; they are looked up when one is made.
    """
    if IMAGINED_ID not in gymnasium.registry:
        gymnasium.register(
            id=IMAGINED_ID,
            entry_point="lssvwm_agents.imagined:make_imagined_env",
            vector_entry_point="lssvwm_agents.imagined:make_imagined_vector_env",
            max_episode_steps=IMAGINED_STEPS,
        )
