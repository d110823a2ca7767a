"""Adapted environments for tests, which skip, with the reason, where a package or a renderer is missing."""

from __future__ import annotations

import functools
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
    need(name)
    return gymnasium.make(name, **_needed(name), **kwargs)


def need(name: str) -> None:
    """Skip if the environment cannot be made or cannot draw here, which takes seconds to find out."""
    missing = _missing(next(one for one in ONE_OF_EACH if one.split("-")[0] == name.split("-")[0]))
    if missing:
        pytest.skip(missing)


@functools.cache
def _missing(name: str) -> str:
    """Why one of a family does not work here; empty where it does."""
    try:
        env = gymnasium.make(name, **_needed(name))
        env.reset(seed=0)
        env.close()
    except (gymnasium.error.DependencyNotInstalled, ImportError) as missing:
        return str(missing)
    return ""


def _needed(name: str) -> dict[str, Any]:
    return {"env": "CartPole-v1"} if name == "lssvwm/Rendered-v0" else {}
