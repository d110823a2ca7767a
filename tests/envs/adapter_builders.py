"""Adapted environments for tests, which skip, with the reason, where a package or a renderer is missing."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

import lssvwm_agents.envs  # noqa: F401

ONE_OF_EACH = (
    "lssvwm/MemoryMaze-9x9-v0",
    "lssvwm/PointMaze-UMaze-v0",
    "lssvwm/AntMaze-UMaze-v0",
    "lssvwm/MiniWorld-MazeS2-v0",
    "lssvwm/MiniGrid-MemoryS7-v0",
    "lssvwm/Rendered-v0",
)
QUICK = ONE_OF_EACH[1:]
CONTINUOUS = ("lssvwm/PointMaze-UMaze-v0", "lssvwm/AntMaze-UMaze-v0")


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return np.array_equal(one, other)


def made(name: str, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """``gymnasium.make``; skips if it cannot draw here."""
    if name == "lssvwm/Rendered-v0":
        kwargs.setdefault("env", "CartPole-v1")
    try:
        env = gymnasium.make(name, **kwargs)
        env.reset(seed=0)
    except (gymnasium.error.DependencyNotInstalled, ImportError) as missing:
        pytest.skip(str(missing))
    return env
