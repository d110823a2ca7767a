"""What every planner of this package is told: the actions, the horizon, and what a plan is worth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Generic, Self

import torch

from lssvwm_agents.planners._validation import require, require_fraction, require_integer
from lssvwm_agents.planners.action_spec import ActionSpec, ContinuousActions, DiscreteActions
from lssvwm_agents.planners.distributions import Distribution
from lssvwm_agents.planners.plan import Plan
from lssvwm_agents.planners.protocols import Dynamics, Objective, State
from lssvwm_agents.planners.risk import Risk
from lssvwm_agents.planners.rollout import batch_of
from lssvwm_agents.planners.search import CandidateEvaluator
from lssvwm_agents.planners.trace import Callback, Clock


@dataclass(frozen=True)
class Task(Generic[State]):
    """One call of ``plan``, by its arguments; see :meth:`PlanningProblem.plan`. Its time runs from now.

    Attributes:
        dynamics: What the plan is imagined in.
        state: Pytree of tensors with B rows.
        warm_start: Where the search begins, or None.
        generator: Source of the noise, or None.
        seconds: Time budget, or None.
        callback: Called after each iteration, or None.
        batch_size: ``B``.
        device: Of the state.
        clock: Runs since the task was made.

    Raises:
        ValueError: If the state holds no tensor, or ``seconds`` is not positive and finite.
    """

    dynamics: Dynamics[State]
    state: State
    warm_start: Distribution | None = None
    generator: torch.Generator | None = None
    seconds: float | None = None
    callback: Callback | None = None
    batch_size: int = field(init=False)
    device: torch.device = field(init=False)
    clock: Clock = field(init=False)

    def __post_init__(self) -> None:
        batch_size, device = batch_of(self.state)
        object.__setattr__(self, "batch_size", batch_size)
        object.__setattr__(self, "device", device)
        object.__setattr__(self, "clock", Clock(self.seconds, device))


@dataclass(frozen=True)
class PlanningProblem(ABC):
    """The fields that all planners share; a planner is this and a way of searching.

    A decision is held for ``action_repeat`` frames, so that a plan of ``horizon`` decisions covers
    ``horizon * action_repeat`` frames. Discount, rewards, imagined ends and constraints are counted at every
    frame.

    Attributes:
        action_spec: The actions.
        horizon: Decisions ``H`` in a plan.
        num_samples: Candidates ``N`` a row and iteration.
        action_repeat: Frames for which each decision is held.
        discount: Constant factor per frame.
        objective: What a frame is worth, from its outcome; None for its reward.
        terminal_value: What comes after the last frame, from its outcome; None for nothing.
        constraints: Functions of a frame's outcome that are to be at most 0 at every frame that counts.
        constraint_tolerance: A constraint up to this much above 0 counts as kept.
        constraint_penalty: If given, candidates are ranked by their return less this times their violation;
            if None, those that keep every constraint come before all others.
        risk: Judge candidates in several sampled futures; None for one future.
        max_rows: At most this many rows (batch times candidates) are imagined at once; None for all.
        dtype: Of the actions: torch.float32 or torch.float64.
        compile_rollout: Compile the imagining of candidates with ``torch.compile``: the same plans to
            rounding, sooner, after a slow first call for each kind of problem. The dynamics must be
            traceable.

    Raises:
        ValueError: If a field breaks its rule.
    """

    action_spec: ActionSpec
    horizon: int = 15
    num_samples: int = 512
    action_repeat: int = 1
    discount: float = 1.0
    objective: Objective | None = None
    terminal_value: Objective | None = None
    constraints: tuple[Objective, ...] = ()
    constraint_tolerance: float = 0.0
    constraint_penalty: float | None = None
    risk: Risk | None = None
    max_rows: int | None = None
    dtype: torch.dtype = torch.float32
    compile_rollout: bool = False

    def __post_init__(self) -> None:
        spec = self.action_spec
        rule = "`action_spec` must be DiscreteActions or ContinuousActions"
        require(isinstance(spec, DiscreteActions | ContinuousActions), rule, type(spec).__name__)
        for name in ("horizon", "num_samples", "action_repeat"):
            require_integer(name, getattr(self, name), 1)
        require_fraction("discount", self.discount)
        for name in ("objective", "terminal_value"):
            given = getattr(self, name)
            require(given is None or callable(given), f"`{name}` must be a function of an Outcome", given)
        require(
            isinstance(self.constraints, tuple) and all(callable(g) for g in self.constraints),
            "`constraints` must be a tuple of functions of an Outcome",
            self.constraints,
        )
        tolerance, penalty = self.constraint_tolerance, self.constraint_penalty
        require(tolerance >= 0.0, "`constraint_tolerance` must be at least 0", tolerance)
        require(penalty is None or penalty >= 0.0, "`constraint_penalty` must be at least 0 or None", penalty)
        if self.max_rows is not None:
            require_integer("max_rows", self.max_rows, 1)
        rule = "`dtype` must be torch.float32 or torch.float64"
        require(self.dtype in (torch.float32, torch.float64), rule, self.dtype)

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
        """Choose a plan for each row of ``state``.

        Args:
            dynamics: What the plan is imagined in.
            state: Pytree of tensors with B rows; left as it is.
            warm_start: Where the search begins: ``previous_plan.shift(num_frames)``. None begins afresh.
            generator: Source of the noise, on any device; a generator on the CPU gives the same noise to a
                plan made on another device. None uses torch's own. The noise is common to all rows, so that
                row b of a batch equals a batch of that row alone.
            seconds: Time budget: no iteration begins that would end later, judged by the longest so far; at
                least one is made. How many were made then depends on the machine. None for no budget.
            callback: Called after each iteration.

        Returns:
            The plan.

        Raises:
            ValueError: If the warm start does not fit, a shape is wrong, or an imagined return is NaN.
        """
        return self.search(Task(dynamics, state, warm_start, generator, seconds, callback))

    @abstractmethod
    def search(self, task: Task[State]) -> Plan:
        """What makes one planner another: how it finds a plan."""

    def with_objective(self, objective: Objective) -> Self:
        """The same planner with another objective."""
        return replace(self, objective=objective)

    def evaluator(self, task: Task[State]) -> CandidateEvaluator[State]:
        """What gives candidates their scores; draws the sampled futures, if there are any.

        Raises:
            ValueError: If rollouts are to be compiled, and the dynamics have their own way of making them.
        """
        require(
            not (self.compile_rollout and hasattr(task.dynamics, "rollout")),
            "`compile_rollout` must be False for dynamics that imagine whole rollouts, as CUDA graphs do",
            self.compile_rollout,
        )
        return CandidateEvaluator(
            (task.dynamics,) if self.risk is None else self.risk.futures(task.dynamics, task.generator),
            task.state,
            self.action_repeat,
            self.discount,
            self.objective,
            self.terminal_value,
            self.max_rows,
            self.constraints,
            self.risk,
            self.constraint_tolerance,
            self.constraint_penalty,
            self.compile_rollout,
        )
