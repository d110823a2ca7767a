"""What a search writes down as it goes, and when it must stop.

Legend: ``B`` rows of the batch, ``N`` candidates a row, ``K`` elites, ``C`` constraints, ``H`` decisions,
``A`` action width, ``I`` iterations.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from lssvwm_agents.planners._validation import require_positive
from lssvwm_agents.planners.distributions import Distribution
from lssvwm_agents.planners.plan import PlanRecord
from lssvwm_agents.planners.scores import Scores, take
from lssvwm_agents.planners.search import CandidateEvaluator


@dataclass(frozen=True)
class IterationView:
    """What a callback is shown after each iteration, for pictures; nothing in it is to be changed.

    Attributes:
        iteration: From 0.
        decisions: (B, N, H, A) the candidates.
        scores: What they brought.
        elite_index: (B, K) int64: the best of them, best first.
        distribution: Where they came from.
    """

    iteration: int
    decisions: torch.Tensor
    scores: Scores
    elite_index: torch.Tensor
    distribution: Distribution


Callback: TypeAlias = Callable[[IterationView], None]
"""Called after each iteration of a search."""


class Clock:
    """Tells a search when to stop, so that its best plan so far is ready in time.

    Only a search with a time budget waits for its device after each iteration.

    Args:
        seconds: The budget; None for none.
        device: Where the search computes.

    Raises:
        ValueError: If ``seconds`` is not positive and finite.
    """

    def __init__(self, seconds: float | None, device: torch.device) -> None:
        if seconds is not None:
            require_positive("seconds", seconds)
        self.seconds, self.device = seconds, device
        self.began = self.last = time.perf_counter()
        self.longest = 0.0

    def allows_another(self) -> bool:
        """Whether one more iteration, as long as the longest so far, would end in time; one always may."""
        if self.seconds is None:
            return True
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.longest, self.last = max(self.longest, now - self.last), now
        return now - self.began + self.longest <= self.seconds


@dataclass
class Trace:
    """The record of a search in the making, and its best candidate so far."""

    evaluator: CandidateEvaluator[Any]
    callback: Callback | None = None
    scores: list[Scores] = field(default_factory=list)
    elite_returns: list[torch.Tensor] = field(default_factory=list)
    distributions: list[Distribution] = field(default_factory=list)
    violations: list[torch.Tensor] = field(default_factory=list)
    leaders: list[torch.Tensor] = field(default_factory=list)

    def add(
        self,
        decisions: torch.Tensor,
        scores: Scores,
        best: tuple[torch.Tensor, torch.Tensor],
        distribution: Distribution,
        elites: torch.Tensor | None = None,
    ) -> None:
        """Write down one iteration: (B, N, H, A) candidates of a distribution, and which were best.

        ``best`` are the elites' index and returns; ``elites`` they themselves, if they have been taken.
        """
        elite_index, elite_returns = best
        self.scores.append(scores)
        self.elite_returns.append(elite_returns)
        self.distributions.append(distribution)
        first = elite_index[:, :1]
        if scores.constraints is not None:
            self.violations.append(take(scores.violations(), first)[:, 0])
        self.leaders.append((take(decisions, first) if elites is None else elites)[:, 0])
        if self.callback is not None:
            iteration = len(self.leaders) - 1
            self.callback(IterationView(iteration, decisions, scores, elite_index, distribution))

    def finish(self) -> tuple[PlanRecord, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The record, and the best (B, H, A) decisions with their (B,) return and (B, C) violations.

        Raises:
            ValueError: If a return or a constraint was NaN.
        """
        leaders_IBHA, elite_returns_IBK = torch.stack(self.leaders), torch.stack(self.elite_returns)
        returns_IB = elite_returns_IBK[..., 0]
        violations_IBC = torch.stack(self.violations) if self.violations else None
        violation = torch.zeros_like(returns_IB) if violations_IBC is None else violations_IBC.sum(dim=-1)
        record = PlanRecord(
            returns=tuple(scores.returns for scores in self.scores),
            elite_returns=elite_returns_IBK,
            distributions=tuple(self.distributions),
            violation=violation,
        )
        self.evaluator.check(returns_IB, None if violations_IBC is None else record.violation, leaders_IBHA)
        if violations_IBC is None:
            returns, best = returns_IB.max(dim=0)
            decisions = take(leaders_IBHA.transpose(0, 1), best.unsqueeze(1))[:, 0]
            return record, decisions, returns, returns.new_zeros(len(returns), 0)
        rows = torch.arange(returns_IB.shape[1], device=returns_IB.device)
        constraints = violations_IBC.transpose(0, 1).unsqueeze(2)
        among = Scores(returns_IB.T, constraints, penalty=self.evaluator.penalty)
        best = among.best(1)[0][:, 0]
        return record, leaders_IBHA[best, rows], returns_IB[best, rows], violations_IBC[best, rows]
