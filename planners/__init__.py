"""Planners: choose actions by imagining candidate futures, in any dynamics."""

from lssvwm_agents.planners.action_spec import (
    ActionSpec,
    ContinuousActions,
    DiscreteActions,
    nearest_permitted,
)
from lssvwm_agents.planners.bounded_gaussian import BoundedGaussian
from lssvwm_agents.planners.categorical import Categorical
from lssvwm_agents.planners.cem import CEM, CategoricalCEM
from lssvwm_agents.planners.colored_noise import coloured_normal
from lssvwm_agents.planners.cuda_graph import CudaGraphs, GraphedDynamics
from lssvwm_agents.planners.distributions import Distribution, initial_distribution
from lssvwm_agents.planners.elite_search import EliteSearch
from lssvwm_agents.planners.goals import Goal, goal_image, goal_odometry
from lssvwm_agents.planners.gradient import Gradient
from lssvwm_agents.planners.icem import ICEM
from lssvwm_agents.planners.mppi import MPPI
from lssvwm_agents.planners.objectives import (
    ActionObjective,
    ControlPenalty,
    WeightedSum,
    predicted_reward,
    predicted_value,
)
from lssvwm_agents.planners.plan import Plan, PlanRecord
from lssvwm_agents.planners.problem import PlanningProblem, Task
from lssvwm_agents.planners.proposals import propose
from lssvwm_agents.planners.protocols import (
    Dynamics,
    Objective,
    Outcome,
    Planner,
    Policy,
    RolloutDynamics,
    SampledDynamics,
)
from lssvwm_agents.planners.random_shooting import RandomShooting
from lssvwm_agents.planners.refined import Refined
from lssvwm_agents.planners.remembered import RememberedElites
from lssvwm_agents.planners.risk import Risk
from lssvwm_agents.planners.rollout import Rollout, discounted_return, imagine_candidates
from lssvwm_agents.planners.sampling import SamplingPlanner
from lssvwm_agents.planners.scores import Scores
from lssvwm_agents.planners.search import CandidateEvaluator
from lssvwm_agents.planners.trace import Callback, IterationView

__all__ = [
    "CEM",
    "ICEM",
    "MPPI",
    "ActionObjective",
    "ActionSpec",
    "BoundedGaussian",
    "Callback",
    "CandidateEvaluator",
    "Categorical",
    "CategoricalCEM",
    "ContinuousActions",
    "ControlPenalty",
    "CudaGraphs",
    "DiscreteActions",
    "Distribution",
    "Dynamics",
    "EliteSearch",
    "Goal",
    "Gradient",
    "GraphedDynamics",
    "IterationView",
    "Objective",
    "Outcome",
    "Plan",
    "PlanRecord",
    "Planner",
    "PlanningProblem",
    "Policy",
    "RandomShooting",
    "Refined",
    "RememberedElites",
    "Risk",
    "Rollout",
    "RolloutDynamics",
    "SampledDynamics",
    "SamplingPlanner",
    "Scores",
    "Task",
    "WeightedSum",
    "coloured_normal",
    "discounted_return",
    "goal_image",
    "goal_odometry",
    "imagine_candidates",
    "initial_distribution",
    "nearest_permitted",
    "predicted_reward",
    "predicted_value",
    "propose",
]
