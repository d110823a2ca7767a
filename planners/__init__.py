"""Planners: choose actions by imagining candidate futures, in any dynamics."""

from lssvwm_agents.planners.action_spec import ActionSpec, ContinuousActions, DiscreteActions
from lssvwm_agents.planners.bounded_gaussian import BoundedGaussian
from lssvwm_agents.planners.categorical import Categorical
from lssvwm_agents.planners.cem import CEM
from lssvwm_agents.planners.distributions import Distribution, initial_distribution
from lssvwm_agents.planners.objectives import WeightedSum, predicted_reward, predicted_value
from lssvwm_agents.planners.plan import Plan, PlanRecord
from lssvwm_agents.planners.protocols import Dynamics, Objective, Outcome, Planner
from lssvwm_agents.planners.random_shooting import RandomShooting
from lssvwm_agents.planners.rollout import Rollout, discounted_return, imagine_candidates
from lssvwm_agents.planners.search import CandidateEvaluator

__all__ = [
    "CEM",
    "ActionSpec",
    "BoundedGaussian",
    "CandidateEvaluator",
    "Categorical",
    "ContinuousActions",
    "DiscreteActions",
    "Distribution",
    "Dynamics",
    "Objective",
    "Outcome",
    "Plan",
    "PlanRecord",
    "Planner",
    "RandomShooting",
    "Rollout",
    "WeightedSum",
    "discounted_return",
    "imagine_candidates",
    "initial_distribution",
    "predicted_reward",
    "predicted_value",
]
