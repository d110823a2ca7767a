"""The loop that sampling planners share: draw candidates, imagine them, learn from the best, repeat.

Legend: ``B`` rows of the batch, ``N`` candidates a row, ``K`` elites, ``P`` proposals of a policy, ``H``
decisions, ``A`` action width.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch

from lssvwm_agents.planners._validation import require, require_fraction, require_integer
from lssvwm_agents.planners.action_spec import ContinuousActions
from lssvwm_agents.planners.distributions import (
    Distribution,
    Spread,
    begin_from,
    initial_distribution,
    require_spread,
)
from lssvwm_agents.planners.plan import Plan
from lssvwm_agents.planners.problem import PlanningProblem, Task
from lssvwm_agents.planners.proposals import propose
from lssvwm_agents.planners.protocols import Policy, State
from lssvwm_agents.planners.remembered import RememberedElites
from lssvwm_agents.planners.rollout import hold
from lssvwm_agents.planners.scores import Scores, take
from lssvwm_agents.planners.search import CandidateEvaluator, compiled
from lssvwm_agents.planners.trace import Trace


@dataclass(frozen=True)
class SamplingPlanner(PlanningProblem):
    """Sample candidates from a distribution, imagine them, refit the distribution, repeat.

    Every row of the batch is a search of its own. Nothing inside an iteration waits for the device; one check
    for NaN at the end of a plan does. Gradients are not stopped: call ``plan`` under ``torch.no_grad()``
    unless they are wanted. A subclass says how many elites there are and how the distribution learns from a
    round.

    Attributes:
        num_iterations: Refits per plan.
        momentum: Share of the old mean and std, or probabilities, kept at a refit.
        initial_std: Standard deviation at the start, in units of half the box's width, for continuous
            actions: one number, (A,) numbers for the entries of an action, or (H, A) for those of each
            decision.
        min_std: Smallest standard deviation, in the same units and forms.
        smoothing: Share of the uniform distribution mixed in at a refit, so that every action keeps a
            probability of at least ``smoothing / num_actions`` (discrete actions).
        warm_start_softening: How far a warm start's spread is moved back to the initial one: 0 leaves it, 1
            keeps only the mean of a Gaussian and nothing of a categorical.
        return_mode: ``best``: the best candidate of all iterations. ``mean``: the mean of the final
            distribution (the most probable actions, for discrete ones), imagined once more to know its
            return. With dynamics that are random the best is partly lucky and ``mean`` is the sounder choice.
        noise_colour: Exponent of the noise's power over frequency: 0 white, 1 pink, 2 red. Large values make
            plans that hold a direction.
        mirrored: Draw half of an iteration's candidates, and for each the one on the other side of the mean
            (mirrored sampling, Brockhoff et al. 2010), so that no refit is led astray by noise that leans one
            way (continuous actions).
        correlated: Refit how decisions hang together in time too, beginning with the noise's colour, so that
            a search follows valleys that run across the decisions: fewer iterations for smooth dynamics, a
            tenth more time for each (continuous actions).
        policy: Proposes candidates that every iteration imagines beside the sampled ones; with a terminal
            value this is the planning of TD-MPC2. None for none.
        num_proposals: How many candidates the policy proposes.
    """

    num_iterations: int = 6
    momentum: float = 0.1
    initial_std: Spread = 0.5
    min_std: Spread = 0.05
    smoothing: float = 0.05
    warm_start_softening: float = 0.25
    return_mode: Literal["best", "mean"] = "best"
    noise_colour: float = 0.0
    mirrored: bool = True
    correlated: bool = False
    policy: Policy[Any] | None = None
    num_proposals: int = 24

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("num_iterations", self.num_iterations, 1)
        require(0.0 <= self.momentum < 1.0, "`momentum` must be in [0, 1)", self.momentum)
        require_spread(self.action_spec, self.horizon, self.initial_std, self.min_std)
        colour = self.noise_colour
        require(0.0 <= colour < math.inf, "`noise_colour` must be at least 0 and finite", colour)
        require_fraction("smoothing", self.smoothing)
        require_fraction("warm_start_softening", self.warm_start_softening)
        require(
            self.return_mode in ("best", "mean"), '`return_mode` must be "best" or "mean"', self.return_mode
        )
        if self.policy is not None:
            require(callable(self.policy), "`policy` must be a function of a state and noise", self.policy)
            require_integer("num_proposals", self.num_proposals, 1, self.num_samples - 1, "num_samples - 1")

    # ------------------------------------------------------------ what makes one planner another

    @property
    @abstractmethod
    def num_best(self) -> int:
        """Candidates ``K`` that an iteration singles out."""

    @property
    def num_kept(self) -> int:
        """Elites that the next iteration imagines again."""
        return 0

    @abstractmethod
    def update(
        self, distribution: Distribution, candidates: torch.Tensor, scores: Scores, elites: torch.Tensor
    ) -> Distribution:
        """The distribution after a round of (B, N, H, A) candidates, the (B, K, H, A) best of them first."""

    def samples_by_iteration(self) -> list[int]:
        """Candidates of each iteration, kept elites included."""
        return [self.num_samples] * self.num_iterations

    def draw_noise(self, distribution: Distribution, generator: torch.Generator | None) -> list[torch.Tensor]:
        """The noise of each iteration, (N, H, ...), all drawn at once and laid out with time outermost."""
        counts = self.samples_by_iteration()
        mirrored = self.mirrored and isinstance(self.action_spec, ContinuousActions)
        drawn = [-(-count // 2) for count in counts] if mirrored else counts
        noise = distribution.draw_noise(1, sum(drawn), generator, self.noise_colour)[0]
        # Rollouts read all candidates of one moment together: time lies outermost.
        if len(set(counts)) == 1:
            parts = [torch.unflatten(noise, 0, (len(counts), drawn[0])).transpose(1, 2)]
        else:
            parts = [part.transpose(0, 1).unsqueeze(0) for part in torch.split(noise, drawn)]
        if mirrored:
            parts = [torch.cat([part, -part], dim=2) for part in parts]
        each = [one for part in parts for one in part.contiguous().unbind()]
        return [one[:, :count].transpose(0, 1) for one, count in zip(each, counts, strict=True)]

    def draw_candidates(self, distribution: Distribution, noise: torch.Tensor) -> torch.Tensor:
        """(B, N, H, A) candidates of one iteration."""
        return distribution.sample(noise)

    # ------------------------------------------------------------ the loop

    def search(self, task: Task[State]) -> Plan:
        """Draw, imagine, refit, and again.

        The mode of a warm start is a candidate of the first iteration, so that the best candidate is never
        worse than it. The mode of the last distribution is a candidate too.
        """
        distribution, again = self._start(task)
        noise = self.draw_noise(distribution, task.generator)
        evaluator = self.evaluator(task)
        trace = Trace(evaluator, task.callback)
        proposals = self._propose(task)
        # A search that nobody watches is made (and traced) as a whole, any other round by round.
        at_once = len(noise) if task.callback is None and task.seconds is None else 1
        rounds = compiled(_rounds) if self.compile_rollout else _rounds
        for first in range(0, len(noise), at_once):
            span = range(first, first + at_once)
            with_mode = tuple(
                i == len(noise) - 1 or task.seconds is not None or (i == 0 and task.warm_start is not None)
                for i in span
            )
            for done in rounds(
                self, evaluator, distribution, [noise[i] for i in span], with_mode, proposals, again
            ):
                trace.add(done.candidates, done.scores, done.best, done.distribution, done.elites)
            distribution, again = done.refitted, done.again
            if not task.clock.allows_another():
                break

        record, decisions, expected_return, violations = trace.finish()
        if self.return_mode == "mean":
            decisions = distribution.mode()
            final = evaluator(decisions.unsqueeze(1))
            expected_return, violations = final.returns[:, 0], final.violations()[:, 0]
            evaluator.check(
                expected_return.unsqueeze(0), violations.sum(dim=-1).unsqueeze(0), decisions.unsqueeze(0)
            )
        return Plan(
            actions=hold(decisions, self.action_repeat),
            expected_return=expected_return,
            distribution=self.warm_start_of(distribution, done.elites),
            action_repeat=self.action_repeat,
            candidates=hold(done.candidates, self.action_repeat),
            candidate_returns=done.scores.returns,
            record=record,
            violations=violations,
        )

    def warm_start_of(self, distribution: Distribution, elites: torch.Tensor) -> Distribution:
        """What the next plan starts from, given where the search ended and its last (B, K, H, A) elites."""
        return distribution

    def reimagined(self, warm_start: RememberedElites) -> torch.Tensor | None:
        """(B, K, H, A) elites of the plan before that the first iteration imagines again; None for none."""
        return None

    def _start(self, task: Task[State]) -> tuple[Distribution, torch.Tensor | None]:
        """Where the search begins, and candidates of an earlier one that are worth imagining again."""
        initial = initial_distribution(
            self.action_spec,
            task.batch_size,
            self.horizon,
            initial_std=self.initial_std,
            min_std=self.min_std,
            smoothing=self.smoothing,
            prior_colour=self.noise_colour if self.correlated else None,
            device=task.device,
            dtype=self.dtype,
        )
        warm_start = task.warm_start
        if warm_start is None:
            return initial, None
        again = None
        if isinstance(warm_start, RememberedElites):
            again, warm_start = self.reimagined(warm_start), warm_start.distribution
        return begin_from(warm_start, initial, self.warm_start_softening), again

    def _propose(self, task: Task[State]) -> torch.Tensor | None:
        if self.policy is None:
            return None
        return propose(
            self.policy,
            task.dynamics,
            task.state,
            self.action_spec,
            self.num_proposals,
            self.horizon,
            self.action_repeat,
            task.generator,
            self.dtype,
        )


class _Round(NamedTuple):
    """One iteration: what it imagined, what was best, and the distribution before and after."""

    candidates: torch.Tensor
    scores: Scores
    best: tuple[torch.Tensor, torch.Tensor]
    elites: torch.Tensor
    distribution: Distribution
    refitted: Distribution
    again: torch.Tensor | None


def _rounds(
    planner: SamplingPlanner,
    evaluator: CandidateEvaluator[State],
    distribution: Distribution,
    noise: Sequence[torch.Tensor],
    with_mode: tuple[bool, ...],
    proposals: torch.Tensor | None,
    again: torch.Tensor | None,
) -> list[_Round]:
    """Some iterations, one for each noise.

    The mode, where it is wanted, is the first candidate; proposals follow; candidates to imagine again are
    the last.
    """
    done, kept = [], planner.num_kept
    for noise_NH, mode_too in zip(noise, with_mode, strict=True):
        candidates = planner.draw_candidates(distribution, noise_NH)
        if mode_too:
            candidates[:, 0] = distribution.mode()
        if proposals is not None:
            candidates[:, 1 : 1 + proposals.shape[1]] = proposals
        if again is not None:
            candidates[:, candidates.shape[1] - again.shape[1] :] = again
        scores = evaluator(candidates)
        best = scores.best(planner.num_best)
        elites = take(candidates, best[0])
        refitted = planner.update(distribution, candidates, scores, elites)
        again = elites[:, :kept] if kept > 0 else None
        done.append(_Round(candidates, scores, best, elites, distribution, refitted, again))
        distribution = refitted
    return done
