"""The cross-entropy method: sample plans, keep the best few, refit, repeat."""

from __future__ import annotations

from dataclasses import dataclass

from lssvwm_agents.planners._validation import require
from lssvwm_agents.planners.action_spec import DiscreteActions
from lssvwm_agents.planners.elite_search import EliteSearch


@dataclass(frozen=True)
class CEM(EliteSearch):
    """Plan by the cross-entropy method (Rubinstein 1999; for planning in learned models Chua et al. 2018).

    Each iteration imagines ``num_samples`` candidates a row, takes the ``num_elites`` of largest return, and
    refits the distribution to them: a Gaussian clipped to the box for continuous actions, a categorical for
    discrete ones. The fields are those of :class:`~lssvwm_agents.planners.EliteSearch`.

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
    """


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
