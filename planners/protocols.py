"""What planners ask of others: an outcome, dynamics, an objective; and what a planner itself promises.

Shapes: ``R`` rows of a batch, ``A`` action width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, TypeVar, runtime_checkable

import torch

if TYPE_CHECKING:
    from lssvwm_agents.planners.action_spec import ActionSpec
    from lssvwm_agents.planners.distributions import Distribution
    from lssvwm_agents.planners.plan import Plan
    from lssvwm_agents.planners.trace import Callback

State = TypeVar("State")
PolicyState = TypeVar("PolicyState", contravariant=True)


class Outcome(Protocol):
    """What one imagined frame brings: a world model's prediction, or a named tuple of two tensors."""

    @property
    def reward(self) -> torch.Tensor:
        """(R,) reward that comes with the frame."""
        ...

    @property
    def continuation(self) -> torch.Tensor | None:
        """(R,) probability in [0, 1] of going on after the frame; None, at every frame, if nothing ends."""
        ...


class Dynamics(Protocol[State]):
    """A simulator of many rows at once, learned or written by hand.

    A state is any pytree of tensors whose first dimension is the batch. ``step`` leaves the state that it is
    given untouched, and no row of its answer depends on another row.
    """

    def step(self, state: State, action: torch.Tensor, /) -> tuple[State, Outcome]:
        """Imagine one frame: ``action`` (R, A) float leads to it (one-hot for discrete actions)."""
        ...

    def repeat(self, state: State, n: int, /) -> State:
        """Repeat each row ``n`` times, as ``repeat_interleave`` does: row b becomes rows b*n to b*n+n-1."""
        ...


class RolloutDynamics(Dynamics[State], Protocol[State]):
    """Dynamics that imagine all frames of a plan in one go; planners then do not step them one by one."""

    def rollout(self, state: State, n: int, actions: torch.Tensor, /) -> Sequence[Outcome]:
        """What ``repeat`` and then a ``step`` for each of the actions would bring.

        Args:
            state: B rows; left as it is.
            n: How often each row is repeated.
            actions: (T, B * n, A) float.

        Returns:
            T outcomes, valid until the next rollout.
        """
        ...


@runtime_checkable
class SampledDynamics(Protocol[State]):
    """Dynamics that are random, and whose randomness can be named."""

    def step(self, state: State, action: torch.Tensor, /) -> tuple[State, Outcome]:
        """Imagine one frame."""
        ...

    def repeat(self, state: State, n: int, /) -> State:
        """Repeat each row ``n`` times."""
        ...

    def future(self, seed: int, /) -> Dynamics[State]:
        """The dynamics of one sampled future: what is random is fixed by the seed.

        The same seed gives the same future, every time that it is imagined from its start (``repeat`` begins
        one). All rows meet the same noise, so that they differ by their states and actions alone.
        """
        ...


Objective: TypeAlias = Callable[[Any], torch.Tensor]
"""From the outcome of one frame, (R,) numbers to maximise; any field of the dynamics' outcome may be used.
One that looks at the action too is an :class:`~lssvwm_agents.planners.ActionObjective`. A constraint ``g``
has the same form, and is kept where ``g <= 0``."""


class Policy(Protocol[PolicyState]):
    """A policy that proposes plans to a planner."""

    def __call__(self, state: PolicyState, noise: torch.Tensor, /) -> torch.Tensor:
        """(R, A) float actions in (R rows of) the dynamics' state, given (R, A) standard normal noise.

        The noise is for policies that are random; all rows of a batch get the same. What is not permitted is
        brought to the nearest permitted action.
        """
        ...


class Planner(Protocol):
    """What an agent needs of a planner."""

    @property
    def action_spec(self) -> ActionSpec:
        """The actions it chooses among."""
        ...

    @property
    def horizon(self) -> int:
        """Decisions in a plan."""
        ...

    @property
    def action_repeat(self) -> int:
        """Frames for which each decision is held."""
        ...

    @property
    def objective(self) -> Objective | None:
        """What a frame is worth; None for its reward."""
        ...

    def with_objective(self, objective: Objective, /) -> Self:
        """The same planner with another objective."""
        ...

    def plan(
        self,
        dynamics: Dynamics[State],
        state: State,
        warm_start: Distribution | None = None,
        generator: torch.Generator | None = None,
        *,
        seconds: float | None = None,
        callback: Callback | None = None,
    ) -> Plan:
        """Choose a plan for each row of ``state``; see :meth:`PlanningProblem.plan`."""
        ...
