"""Other people's mazes and robots, spoken to as our own: frames, odometry, task.

Each family is an extra and is imported only when one of its environments is made. Ids are in
``registration``; ``RenderedEnv`` takes any Gymnasium environment that renders.
"""

from lssvwm_agents.envs.adapters.base import AdaptedEnv, View
from lssvwm_agents.envs.adapters.registration import ADAPTER_IDS, register_adapters
from lssvwm_agents.envs.adapters.rendered import RenderedEnv

__all__ = ["ADAPTER_IDS", "AdaptedEnv", "RenderedEnv", "View", "register_adapters"]
