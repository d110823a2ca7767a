"""Agents: policies that see real frames and choose moves."""

from lssvwm_agents.agents.action_codec import ActionCodec, action_spec_from_space
from lssvwm_agents.agents.carry_file import load_carry, save_carry
from lssvwm_agents.agents.compatibility import check_env_id, check_spaces, environment_kwargs
from lssvwm_agents.agents.exploration import Exploration, Novelty
from lssvwm_agents.agents.planning_agent import PlanningAgent
from lssvwm_agents.agents.planning_carry import PlanningCarry, PlanningStats

__all__ = [
    "ActionCodec",
    "Exploration",
    "Novelty",
    "PlanningAgent",
    "PlanningCarry",
    "PlanningStats",
    "action_spec_from_space",
    "check_env_id",
    "check_spaces",
    "environment_kwargs",
    "load_carry",
    "save_carry",
]
