"""Policies on the features of a world model: actors, critics, and how imagination trains them."""

from lssvwm_agents.policies.actor_critic import ActorCritic, PolicyConfig, load_policy
from lssvwm_agents.policies.actor_critic_objective import ActorCriticObjective
from lssvwm_agents.policies.actors import ActionDistribution, Actor, OneHotActions, SquashedNormal
from lssvwm_agents.policies.critics import Critic, SlowCopy
from lssvwm_agents.policies.features_env import FeaturesVectorEnv
from lssvwm_agents.policies.imagined_rollouts import ImaginedRollouts, imagine_policy
from lssvwm_agents.policies.policy_gradients import accumulate_gradients
from lssvwm_agents.policies.policy_planner import CriticValue, PolicyPlanner, Proposals, with_policy
from lssvwm_agents.policies.return_scale import ReturnScale
from lssvwm_agents.policies.returns import imagined_return, lambda_return, reach
from lssvwm_agents.policies.sb3_policy import SB3Policy

__all__ = [
    "ActionDistribution",
    "Actor",
    "ActorCritic",
    "ActorCriticObjective",
    "Critic",
    "CriticValue",
    "FeaturesVectorEnv",
    "ImaginedRollouts",
    "OneHotActions",
    "PolicyConfig",
    "PolicyPlanner",
    "Proposals",
    "ReturnScale",
    "SB3Policy",
    "SlowCopy",
    "SquashedNormal",
    "accumulate_gradients",
    "imagine_policy",
    "imagined_return",
    "lambda_return",
    "load_policy",
    "reach",
    "with_policy",
]
