"""Mazes and imagined environments to plan and learn in.

The bridge to stable-baselines3 is imported by name, because it needs the extra ``sb3``:
``from lssvwm_agents.envs.sb3_bridge import SB3ImaginedVecEnv, SB3VecEnv``.
"""

from lssvwm_agents.envs.adapters import ADAPTER_IDS, AdaptedEnv, RenderedEnv, register_adapters
from lssvwm_agents.envs.contexts import Context, ContextSource, MazeContexts, PlayedContexts
from lssvwm_agents.envs.imagined_env import ImaginedEnv
from lssvwm_agents.envs.imagined_vector_env import ImaginedVectorEnv
from lssvwm_agents.envs.imagined_worlds import ImaginedMoment
from lssvwm_agents.envs.maze_config import MazeConfig
from lssvwm_agents.envs.maze_env import RaycastMazeEnv
from lssvwm_agents.envs.maze_vector_env import RaycastMazeVectorEnv
from lssvwm_agents.envs.raycast_maze import MazeState, odometry, reset, step, truncated
from lssvwm_agents.envs.raycast_render import render, wall_color_at_center
from lssvwm_agents.envs.registration import (
    CUE_ID,
    IMAGINED_ID,
    MAZE_SIZES,
    maze_id,
    register_imagined,
    register_mazes,
)
from lssvwm_agents.envs.scripted_policies import POLICY_NAMES, ScriptedPolicy, make_policy
from lssvwm_agents.envs.top_down import render_top_down

__all__ = [
    "ADAPTER_IDS",
    "CUE_ID",
    "IMAGINED_ID",
    "MAZE_SIZES",
    "POLICY_NAMES",
    "AdaptedEnv",
    "Context",
    "ContextSource",
    "ImaginedEnv",
    "ImaginedMoment",
    "ImaginedVectorEnv",
    "MazeConfig",
    "MazeContexts",
    "MazeState",
    "PlayedContexts",
    "RaycastMazeEnv",
    "RaycastMazeVectorEnv",
    "RenderedEnv",
    "ScriptedPolicy",
    "make_policy",
    "maze_id",
    "odometry",
    "register_adapters",
    "register_imagined",
    "register_mazes",
    "render",
    "render_top_down",
    "reset",
    "step",
    "truncated",
    "wall_color_at_center",
]

register_mazes()
register_imagined()
register_adapters()
