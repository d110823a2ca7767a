"""What planners ask of others: an outcome, dynamics, an objective; and what a planner itself promises.

Shapes: ``R`` rows of a batch, ``A`` action width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import torch

if TYPE_CHECKING:
    from lssvwm_agents.planners.action_spec import ActionSpec
    from lssvwm_agents.planners.distributions import Distribution
    from lssvwm_agents.planners.plan import Plan

State = TypeVar("State")


class Outcome(Protocol):
    """What one imagined frame brings: a world model's prediction, or a named tuple of two tensors."""

    @property
    def reward(self) -> torch.Tensor:
        """(R,) reward that comes with the frame."""
        ...

    @property
    def continuation(self) -> torch.Tensor:
        """(R,) probability in [0, 1] of going on after the frame; all ones where nothing ever ends."""
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


Objective: TypeAlias = Callable[[Any], torch.Tensor]
"""From the outcome of one frame, (R,) numbers to maximise; any field of the dynamics' outcome may be used."""


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

    def plan(
        self,
        dynamics: Dynamics[State],
        state: State,
        warm_start: Distribution | None = None,
        generator: torch.Generator | None = None,
    ) -> Plan:
        """Choose a plan for each row of ``state``."""
        ...
