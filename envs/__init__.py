"""Mazes to plan and learn in, as pure batched PyTorch."""

from lssvwm_agents.envs.maze_config import MazeConfig
from lssvwm_agents.envs.raycast_maze import MazeState, odometry, reset, step, truncated
from lssvwm_agents.envs.raycast_render import render, wall_color_at_center
from lssvwm_agents.envs.scripted_policies import POLICY_NAMES, make_policy

__all__ = [
    "POLICY_NAMES",
    "MazeConfig",
    "MazeState",
    "make_policy",
    "odometry",
    "render",
    "reset",
    "step",
    "truncated",
    "wall_color_at_center",
]
