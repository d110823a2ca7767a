"""Gradient planning: follow the derivative of the return through the dynamics.

Legend: ``B`` rows of the batch, ``N`` candidates a row, ``T`` frames, ``C`` constraints, ``H`` decisions,
``A`` action width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from lssvwm_agents.planners._validation import require, require_integer, require_positive
from lssvwm_agents.planners.action_spec import DiscreteActions, nearest_permitted
from lssvwm_agents.planners.ascent import Adam, Lagrangian
from lssvwm_agents.planners.distributions import (
    Distribution,
    Spread,
    check_warm_start,
    initial_distribution,
    require_spread,
)
from lssvwm_agents.planners.plan import Plan
from lssvwm_agents.planners.problem import PlanningProblem, Task
from lssvwm_agents.planners.protocols import State
from lssvwm_agents.planners.relaxation import Relaxation, inside, to_decisions, to_parameters
from lssvwm_agents.planners.remembered import RememberedElites
from lssvwm_agents.planners.rollout import hold
from lssvwm_agents.planners.scores import Scores
from lssvwm_agents.planners.trace import Trace


@dataclass(frozen=True)
class Gradient(PlanningProblem):
    """Plan by gradient ascent (Adam, Kingma and Ba 2015) through differentiable dynamics.

    A few candidates a row climb side by side; the best point that any of them visited is the plan.
    Continuous actions are brought back into the box after every update. Discrete ones are logits: the
    dynamics see one-hot actions whose gradient is a softmax's (``straight_through``), or the softmax
    (``softmax``; the plan is then the largest entries, imagined once more).

    Constraints are kept by an augmented Lagrangian (Nocedal and Wright 2006, section 17.3) with a multiplier
    for every constraint, frame and candidate.

    Gradients are turned on inside ``plan``, whatever the caller has set, and the plan carries none. The other
    fields are those of :class:`~lssvwm_agents.planners.PlanningProblem`.

    Attributes:
        num_samples: Candidates ``N`` a row: the warm start's mode, and samples around it.
        constraint_tolerance: A constraint up to this much above 0 counts as kept.
        num_iterations: Updates per plan; the record has one entry more, for where they ended.
        learning_rate: Of the first update, in units of half the box's width (or of logits).
        final_learning_rate: Share of it that is left at the last update; it falls as a cosine does.
        initial_std: Spread of the candidates, in units of half the box's width (continuous actions).
        smoothing: Share of the uniform distribution in the warm start of the next plan (discrete actions).
        warm_start_softening: How far a warm start's spread is moved back to the initial one.
        relaxation: ``straight_through`` or ``softmax`` (discrete actions).
        softness: Temperature that divides the logits (discrete actions).
        gumbel_noise: Scale of Gumbel noise on the logits, which falls linearly to 0 (discrete actions).
        penalty: Weight of the squared violation at the start, in units of the return.
        penalty_growth: Factor of that weight at every update of the multipliers.
        multiplier_every: Updates of the plan between those of the multipliers.

    Raises:
        ValueError: If a field breaks its rule.
    """

    num_samples: int = 4
    constraint_tolerance: float = 1e-3
    num_iterations: int = 40
    learning_rate: float = 0.2
    final_learning_rate: float = 0.1
    initial_std: Spread = 0.5
    smoothing: float = 0.2
    warm_start_softening: float = 0.25
    relaxation: Relaxation = "straight_through"
    softness: float = 1.0
    gumbel_noise: float = 0.0
    penalty: float = 10.0
    penalty_growth: float = 1.5
    multiplier_every: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("num_iterations", self.num_iterations, 1)
        for name in ("learning_rate", "softness", "penalty"):
            require_positive(name, getattr(self, name))
        rate = self.final_learning_rate
        require(0.0 < rate <= 1.0, "`final_learning_rate` must be in (0, 1]", rate)
        require_spread(self.action_spec, self.horizon, self.initial_std, 0.0)
        for name in ("smoothing", "warm_start_softening"):
            require(0.0 <= getattr(self, name) <= 1.0, f"`{name}` must be in [0, 1]", getattr(self, name))
        known = self.relaxation in ("straight_through", "softmax")
        require(known, '`relaxation` must be "straight_through" or "softmax"', self.relaxation)
        require(self.gumbel_noise >= 0.0, "`gumbel_noise` must be at least 0", self.gumbel_noise)
        require(self.penalty_growth >= 1.0, "`penalty_growth` must be at least 1", self.penalty_growth)
        require_integer("multiplier_every", self.multiplier_every, 1)

    def search(self, task: Task[State]) -> Plan:
        """Climb from the warm start's mode and from samples around it.

        Raises:
            ValueError: If the dynamics' returns carry no gradient.
        """
        distribution, warm_start = self._initial(task), task.warm_start
        if isinstance(warm_start, RememberedElites):
            warm_start = warm_start.distribution
        if warm_start is not None:
            check_warm_start(warm_start, distribution)
            distribution = warm_start.soften(self.warm_start_softening)
        noise = distribution.draw_noise(1, self.num_samples, task.generator)[0]
        starts = distribution.sample(noise).detach().clone()
        starts[:, 0] = distribution.mode()
        return self.improve(task, starts)

    def improve(self, task: Task[State], starts: torch.Tensor) -> Plan:
        """Climb from given (B, N, H, A) permitted decisions; N need not be ``num_samples``."""
        evaluator = self.evaluator(task)
        trace = Trace(evaluator, task.callback)
        initial = self._initial(task)
        parameters = to_parameters(self.action_spec, starts.detach(), 2.0 * self.softness)
        gumbel = self._gumbel(starts, task.generator)
        adam = Adam(parameters)
        lagrangian = Lagrangian(self.penalty)
        for update in range(self.num_iterations + 1):
            last = update == self.num_iterations or (update > 0 and not task.clock.allows_another())
            with torch.enable_grad():
                parameters = parameters.detach().requires_grad_(not last)
                noisy = parameters
                if gumbel is not None and not last:
                    noisy = parameters + gumbel[update] * (1.0 - update / self.num_iterations)
                decisions = to_decisions(self.action_spec, noisy, self.softness, self.relaxation)
                hard = nearest_permitted(self.action_spec, decisions.detach())
                scores = evaluator(hard if last else decisions)
                if not last:
                    gradient = self._gradient(scores, lagrangian, parameters)
            scores = detached(scores)
            if last or not self._relaxed:
                trace.add(hard, scores, scores.best(1), initial.recentre(hard[:, 0]))
            if last:
                break
            if scores.constraints is not None and (update + 1) % self.multiplier_every == 0:
                lagrangian = lagrangian.updated(scores.constraints, self.penalty_growth)
            parameters = inside(
                self.action_spec, adam.ascend(parameters.detach(), gradient, self._rate(update))
            )
        record, decisions, expected_return, violations = trace.finish()
        return Plan(
            actions=hold(decisions, self.action_repeat),
            expected_return=expected_return,
            distribution=initial.recentre(decisions),
            action_repeat=self.action_repeat,
            candidates=hold(hard, self.action_repeat),
            candidate_returns=scores.returns,
            record=record,
            violations=violations,
        )

    @property
    def _relaxed(self) -> bool:
        """Whether the candidates that the dynamics see are no permitted actions."""
        return isinstance(self.action_spec, DiscreteActions) and self.relaxation == "softmax"

    def _rate(self, update: int) -> float:
        """Learning rate: a half cosine from the first to the last."""
        done = update / max(self.num_iterations - 1, 1)
        share = self.final_learning_rate
        return self.learning_rate * (share + (1.0 - share) * 0.5 * (1.0 + math.cos(math.pi * done)))

    def _initial(self, task: Task[State]) -> Distribution:
        return initial_distribution(
            self.action_spec,
            task.batch_size,
            self.horizon,
            initial_std=self.initial_std,
            min_std=0.0,
            smoothing=self.smoothing,
            device=task.device,
            dtype=self.dtype,
        )

    def _gumbel(self, starts: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor | None:
        """(I, N, H, A) noise for the logits, common to all rows."""
        if self.gumbel_noise == 0.0 or not isinstance(self.action_spec, DiscreteActions):
            return None
        source = starts.device if generator is None else generator.device
        shape = (self.num_iterations, *starts.shape[1:])
        uniform = torch.rand(shape, generator=generator, device=source, dtype=starts.dtype)
        tiny = torch.finfo(starts.dtype).tiny
        noise = -(-uniform.clamp(min=tiny).log()).clamp(min=tiny).log()
        return self.gumbel_noise * noise.to(starts.device)

    @staticmethod
    def _gradient(scores: Scores, lagrangian: Lagrangian, parameters: torch.Tensor) -> torch.Tensor:
        """Derivative of every candidate's return, less the price of its constraints."""
        gain = scores.returns
        if scores.constraints is not None:
            gain = gain - lagrangian.price(scores.constraints)
        if not gain.requires_grad:
            raise ValueError(
                "gradient planning needs dynamics whose reward carries a gradient to the action, got returns "
                "without one: let the dynamics compute in torch without `no_grad` or `detach`, or use CEM."
            )
        (gradient,) = torch.autograd.grad(gain.sum(), parameters, allow_unused=True)
        if gradient is None:
            raise ValueError(
                "gradient planning needs dynamics whose reward depends on the action, got one that does not."
            )
        return gradient


def detached(scores: Scores) -> Scores:
    """The same scores without gradients."""
    constraints = None if scores.constraints is None else scores.constraints.detach()
    return Scores(scores.returns.detach(), constraints, scores.tolerance, scores.penalty)
