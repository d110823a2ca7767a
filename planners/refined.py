"""Two planners in a row: a search finds the right valley, the gradient its floor.

Legend: ``B`` rows of the batch, ``K`` refined candidates, ``H`` decisions, ``A`` action width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch

from lssvwm_agents.planners._validation import require, require_integer
from lssvwm_agents.planners.action_spec import ActionSpec
from lssvwm_agents.planners.distributions import Distribution
from lssvwm_agents.planners.gradient import Gradient
from lssvwm_agents.planners.plan import Plan
from lssvwm_agents.planners.problem import PlanningProblem, Task
from lssvwm_agents.planners.protocols import Dynamics, Objective, State
from lssvwm_agents.planners.scores import take
from lssvwm_agents.planners.trace import Callback

SHARED = (
    "action_spec",
    "horizon",
    "action_repeat",
    "discount",
    "objective",
    "terminal_value",
    "constraints",
    "risk",
    "dtype",
)


@dataclass(frozen=True)
class Refined:
    """Plan by a search, then improve its plan and its best last candidates by gradient.

    Attributes:
        search: Proposes: CEM, iCEM, MPPI or random shooting.
        gradient: Improves; it must be told the same problem as ``search``. Its learning rate wants to be
            small, since Adam's first updates are as large as it is, however good the plan already is.
        num_refined: Candidates ``K`` to improve, the plan included.
        search_share: Share of a time budget that the search may take.

    Raises:
        ValueError: If the two disagree about the problem, or a number is out of range.
    """

    search: PlanningProblem
    gradient: Gradient
    num_refined: int = 4
    search_share: float = 0.5

    def __post_init__(self) -> None:
        for name in SHARED:
            ours, theirs = getattr(self.search, name), getattr(self.gradient, name)
            require(ours == theirs, f"`{name}` of `gradient` must be that of `search`, {ours}", theirs)
        require_integer("num_refined", self.num_refined, 1, self.search.num_samples, "num_samples")
        share = self.search_share
        require(0.0 < share < 1.0, "`search_share` must be in (0, 1)", share)

    @property
    def action_spec(self) -> ActionSpec:
        """The actions."""
        return self.search.action_spec

    @property
    def horizon(self) -> int:
        """Decisions in a plan."""
        return self.search.horizon

    @property
    def action_repeat(self) -> int:
        """Frames for which each decision is held."""
        return self.search.action_repeat

    @property
    def objective(self) -> Objective | None:
        """What a frame is worth; None for its reward."""
        return self.search.objective

    @property
    def terminal_value(self) -> Objective | None:
        """What comes after the last frame; None for nothing."""
        return self.search.terminal_value

    def with_objective(self, objective: Objective) -> Self:
        """The same planner with another objective."""
        return replace(
            self,
            search=self.search.with_objective(objective),
            gradient=self.gradient.with_objective(objective),
        )

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
        """Choose a plan for each row of ``state``; see :meth:`PlanningProblem.plan`.

        Its distribution is the search's, moved to the improved plan; its record is the gradient's.
        """
        share = None if seconds is None else seconds * self.search_share
        rest = None if seconds is None else seconds - seconds * self.search_share
        found = self.search.plan(dynamics, state, warm_start, generator, seconds=share, callback=callback)
        decisions = found.actions[:, :: self.action_repeat]
        candidates = found.candidates[:, :, :: self.action_repeat]
        starts = decisions.unsqueeze(1)
        if self.num_refined > 1:
            # The best of the last candidates is the plan itself, as a rule: others are worth more.
            others = found.candidate_returns.topk(self.num_refined, dim=1).indices[:, 1:]
            starts = torch.cat([starts, take(candidates, others)], dim=1)
        task = Task(dynamics, state, generator=generator, seconds=rest, callback=callback)
        plan = self.gradient.improve(task, starts)
        return replace(plan, distribution=found.distribution.recentre(plan.actions[:, :: self.action_repeat]))
