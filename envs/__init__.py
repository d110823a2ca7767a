"""Mazes to plan and learn in, as pure batched PyTorch and as Gymnasium environments."""

from lssvwm_agents.envs.maze_config import MazeConfig
from lssvwm_agents.envs.maze_env import RaycastMazeEnv
from lssvwm_agents.envs.maze_vector_env import RaycastMazeVectorEnv
from lssvwm_agents.envs.raycast_maze import MazeState, odometry, reset, step, truncated
from lssvwm_agents.envs.raycast_render import render, wall_color_at_center
from lssvwm_agents.envs.registration import CUE_ID, MAZE_SIZES, maze_id, register_mazes
from lssvwm_agents.envs.scripted_policies import POLICY_NAMES, ScriptedPolicy, make_policy
from lssvwm_agents.envs.top_down import render_top_down

__all__ = [
    "CUE_ID",
    "MAZE_SIZES",
    "POLICY_NAMES",
    "MazeConfig",
    "MazeState",
    "RaycastMazeEnv",
    "RaycastMazeVectorEnv",
    "ScriptedPolicy",
    "make_policy",
    "maze_id",
    "odometry",
    "register_mazes",
    "render",
    "render_top_down",
    "reset",
    "step",
    "truncated",
    "wall_color_at_center",
]

register_mazes()
