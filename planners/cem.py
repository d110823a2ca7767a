"""The cross-entropy method: sample plans, keep the best few, refit, repeat.

Legend: ``B`` rows of the batch, ``N`` candidates a row, ``K`` elites, ``H`` decisions, ``A`` action width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from lssvwm_agents.planners._validation import require, require_fraction, require_integer
from lssvwm_agents.planners.action_spec import DiscreteActions
from lssvwm_agents.planners.distributions import Distribution
from lssvwm_agents.planners.sampling import SamplingPlanner
from lssvwm_agents.planners.scores import Scores


@dataclass(frozen=True)
class CEM(SamplingPlanner):
    """Plan by the cross-entropy method (Rubinstein 1999; for planning in learned models Chua et al. 2018).

    Each iteration imagines ``num_samples`` candidates a row, takes the ``num_elites`` of largest return, and
    refits the distribution to them: a Gaussian clipped to the box for continuous actions, a categorical for
    discrete ones. The other fields are those of :class:`~lssvwm_agents.planners.SamplingPlanner`.

    >>> from collections import namedtuple
    >>> Outcome = namedtuple("Outcome", "reward continuation")
    >>> class Integrator:  # reach 1 and stay: x <- x + action
    ...     def repeat(self, state, n):
    ...         return state.repeat_interleave(n, dim=0)
    ...     def step(self, state, action):
    ...         state = state + action[:, 0]
    ...         return state, Outcome(-(state - 1).abs(), torch.ones_like(state))
    >>> from lssvwm_agents.planners import ContinuousActions
    >>> planner = CEM(ContinuousActions(low=(-0.5,), high=(0.5,)), horizon=4)
    >>> plan = planner.plan(Integrator(), torch.zeros(1), generator=torch.Generator().manual_seed(0))
    >>> [round(x, 1) + 0.0 for x in plan.actions[0, :2, 0].tolist()]
    [0.5, 0.5]

    Attributes:
        num_elites: Candidates ``K`` kept for the refit.
        keep_elites: Share of the elites (rounded up) that the next iteration imagines again among its
            candidates.
    """

    num_elites: int = 64
    keep_elites: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("num_elites", self.num_elites, 1, self.num_samples, "num_samples")
        require_fraction("keep_elites", self.keep_elites)
        taken = self.num_proposals if self.policy is not None else 0
        require(
            self.num_kept + taken < self.num_samples,
            f"`keep_elites` must leave room for new candidates among num_samples={self.num_samples}",
            self.keep_elites,
        )

    @property
    def num_best(self) -> int:
        """The elites."""
        return self.num_elites

    @property
    def num_kept(self) -> int:
        """Elites that the next iteration imagines again."""
        return math.ceil(self.keep_elites * self.num_elites)

    def update(
        self, distribution: Distribution, candidates: torch.Tensor, scores: Scores, elites: torch.Tensor
    ) -> Distribution:
        """Refit to the elites."""
        return distribution.refit(elites, self.momentum)


@dataclass(frozen=True)
class CategoricalCEM(CEM):
    """The cross-entropy method for discrete actions: :class:`CEM`, and nothing but discrete actions.

    Raises:
        ValueError: If the actions are not discrete.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            isinstance(self.action_spec, DiscreteActions),
            "`action_spec` must be DiscreteActions for CategoricalCEM",
            type(self.action_spec).__name__,
        )
