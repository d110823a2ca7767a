"""Mirror images: a maze seen in a mirror is a maze, in which left and right have changed places.

Frames are flipped left to right, turns go the other way, and of the odometry what is to the left is negative.
Rewards and ends stay as they are. Patterns of walls and the light on balls are flipped too, which no maze of
ours draws: they tell a mirror image from a maze, and nothing about what happens in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lssvwm_agents.envs.maze_config import NUM_DISCRETE_ACTIONS
from lssvwm_agents.envs.registration import CUE_ID

_SWAPPED = (0, 1, 3, 2, 5, 4)  # noop, forward, right, left, forward-right, forward-left
_FAMILIES = ("lssvwm/RaycastMaze-", "lssvwm/MemoryMaze-")
_CONTINUOUS_ACTIONS = 2
POSE_DIM = 4
"""Numbers of a pose: ahead, left, sine and cosine of the heading."""


def check_mirror(env_id: str, env_kwargs: Mapping[str, Any] | None = None) -> None:
    """Refuse an environment whose mirror image is not one of its kind.

    Args:
        env_id: Gymnasium id.
        env_kwargs: Keyword arguments that it was made with.

    Raises:
        ValueError: If the environment is no maze of ours or of Memory Maze, or has the cue task.
    """
    if not env_id.startswith(_FAMILIES):
        raise ValueError(
            "an environment that is seen in a mirror must be a maze in which left and right are alike, "
            f"{' or '.join(f'{name}*' for name in _FAMILIES)}, got {env_id!r}."
        )
    task = (env_kwargs or {}).get("task", "cue" if env_id == CUE_ID else "collect")
    if task == "cue":
        raise ValueError(
            "an environment that is seen in a mirror must not have the cue task, where a colour names a "
            f"side, got {env_id!r} with task 'cue'."
        )


def mirror_actions(actions: Tensor) -> Tensor:
    """Exchange left and right: (..., 6) one-hot, relaxed or all zeros, or (..., 2) speed and turn.

    Raises:
        ValueError: If the actions have another width.
    """
    width = actions.shape[-1]
    if width == NUM_DISCRETE_ACTIONS:
        return actions[..., list(_SWAPPED)]
    if width != _CONTINUOUS_ACTIONS:
        raise ValueError(
            f"`actions` must be (..., {NUM_DISCRETE_ACTIONS}) one-hot or (..., {_CONTINUOUS_ACTIONS}) speed "
            f"and turn, got {tuple(actions.shape)}."
        )
    return torch.stack([actions[..., 0], -actions[..., 1]], dim=-1)


def mirror_odometry(odometry: Tensor) -> Tensor:
    """Pose relative to the first one, in the mirror: (..., 4) of ahead, left, sine and cosine.

    Raises:
        ValueError: If the odometry has another width.
    """
    if odometry.shape[-1] != POSE_DIM:
        raise ValueError(
            f"`odometry` must be (..., {POSE_DIM}): ahead, left, sine and cosine, got "
            f"{tuple(odometry.shape)}."
        )
    ahead, left, sine, cosine = odometry.unbind(-1)
    return torch.stack([ahead, -left, -sine, cosine], dim=-1)


def mirror_frames(frames: Tensor) -> Tensor:
    """Flip frames (..., H, W, 3) left to right."""
    return frames.flip(-2)
