"""The cross-entropy method: sample plans, keep the best few, refit, repeat.

Legend: ``B`` rows of the batch, ``N`` candidates a row, ``K`` elites, ``H`` decisions, ``A`` action width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from lssvwm_agents.planners._validation import (
    require,
    require_fraction,
    require_integer,
    require_positive,
)
from lssvwm_agents.planners.action_spec import ActionSpec
from lssvwm_agents.planners.distributions import Distribution, check_warm_start, initial_distribution
from lssvwm_agents.planners.plan import Plan, PlanRecord
from lssvwm_agents.planners.protocols import Dynamics, Objective, State
from lssvwm_agents.planners.rollout import batch_of, hold
from lssvwm_agents.planners.search import CandidateEvaluator, require_search, take_candidates


@dataclass(frozen=True)
class CEM:
    """Plan by the cross-entropy method (Rubinstein 1999; for planning in learned models Chua et al. 2018).

    Each iteration imagines ``num_samples`` candidates a row, takes the ``num_elites`` of largest return, and
    refits the distribution to them: a Gaussian clipped to the box for continuous actions, a categorical for
    discrete ones. Every row of the batch is a search of its own.

    A decision is held for ``action_repeat`` frames, so that a plan of ``horizon`` decisions covers
    ``horizon * action_repeat`` frames. Discount, rewards and imagined ends are counted at every frame.

    Nothing inside an iteration waits for the device; one check for NaN at the end of a plan does. Gradients
    are not stopped: call ``plan`` under ``torch.no_grad()`` unless they are wanted.

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
        action_spec: The actions.
        horizon: Decisions ``H`` in a plan.
        num_samples: Candidates ``N`` a row and iteration.
        num_elites: Candidates ``K`` kept for the refit.
        num_iterations: Refits per plan.
        action_repeat: Frames for which each decision is held.
        discount: Constant factor per frame.
        momentum: Share of the old mean and std, or probabilities, kept at a refit.
        initial_std: Standard deviation at the start, in units of half the box's width (continuous actions).
        min_std: Smallest standard deviation, in the same units (continuous actions).
        smoothing: Share of the uniform distribution mixed in at a refit, so that every action keeps a
            probability of at least ``smoothing / num_actions`` (discrete actions).
        keep_elites: Share of the elites (rounded up) that the next iteration imagines again among its
            candidates.
        warm_start_softening: How far a warm start's spread is moved back to the initial one: 0 leaves it, 1
            keeps only the mean of a Gaussian and nothing of a categorical.
        return_mode: ``best``: the best candidate of all iterations. ``mean``: the mean of the final
            distribution (the most probable actions, for discrete ones), imagined once more to know its
            return. With dynamics that are random the best is partly lucky and ``mean`` is the sounder choice.
        objective: What a frame is worth, from its outcome; None for its reward.
        terminal_value: What comes after the last frame, from its outcome; None for nothing.
        max_rows: At most this many rows (batch times candidates) are imagined at once; None for all.
        dtype: Of the actions: torch.float32 or torch.float64.

    Raises:
        ValueError: If a field breaks its rule.
    """

    action_spec: ActionSpec
    horizon: int = 15
    num_samples: int = 512
    num_elites: int = 64
    num_iterations: int = 6
    action_repeat: int = 1
    discount: float = 1.0
    momentum: float = 0.1
    initial_std: float = 0.5
    min_std: float = 0.05
    smoothing: float = 0.05
    keep_elites: float = 0.1
    warm_start_softening: float = 0.25
    return_mode: Literal["best", "mean"] = "best"
    objective: Objective | None = None
    terminal_value: Objective | None = None
    max_rows: int | None = None
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        require_search(
            action_spec=self.action_spec,
            horizon=self.horizon,
            num_samples=self.num_samples,
            action_repeat=self.action_repeat,
            discount=self.discount,
            objective=self.objective,
            terminal_value=self.terminal_value,
            max_rows=self.max_rows,
            dtype=self.dtype,
        )
        require_integer("num_elites", self.num_elites, 1, self.num_samples, "num_samples")
        require_integer("num_iterations", self.num_iterations, 1)
        require(0.0 <= self.momentum < 1.0, "`momentum` must be in [0, 1)", self.momentum)
        require_positive("initial_std", self.initial_std)
        require(
            0.0 <= self.min_std <= self.initial_std,
            f"`min_std` must be in [0, initial_std={self.initial_std}]",
            self.min_std,
        )
        require_fraction("smoothing", self.smoothing)
        require_fraction("keep_elites", self.keep_elites)
        require(
            self.num_kept < self.num_samples,
            f"`keep_elites` must leave room for new candidates among num_samples={self.num_samples}",
            self.keep_elites,
        )
        require_fraction("warm_start_softening", self.warm_start_softening)
        require(
            self.return_mode in ("best", "mean"), '`return_mode` must be "best" or "mean"', self.return_mode
        )

    @property
    def num_kept(self) -> int:
        """Elites that the next iteration imagines again."""
        return math.ceil(self.keep_elites * self.num_elites)

    def plan(
        self,
        dynamics: Dynamics[State],
        state: State,
        warm_start: Distribution | None = None,
        generator: torch.Generator | None = None,
    ) -> Plan:
        """Choose a plan for each row of ``state``.

        Args:
            dynamics: What the plan is imagined in.
            state: Pytree of tensors with B rows; left as it is.
            warm_start: Where the search begins: ``previous_plan.shift(num_frames)``. Its mode is a candidate
                of the first iteration, so that the plan found is never worse than it. None begins afresh.
            generator: Source of the noise, on any device; a generator on the CPU gives the same noise to a
                plan made on another device. None uses torch's own. The noise is common to all rows, so that
                row b of a batch equals a batch of that row alone.

        Returns:
            The plan.

        Raises:
            ValueError: If the warm start does not fit, a shape is wrong, or an imagined return is NaN.
        """
        batch_size, device = batch_of(state)
        evaluate = CandidateEvaluator(
            dynamics,
            state,
            self.action_repeat,
            self.discount,
            self.objective,
            self.terminal_value,
            self.max_rows,
        )
        distribution = self._start(batch_size, device, warm_start)
        noise = distribution.draw_noise(self.num_iterations, self.num_samples, generator)
        means, maxima, elite_means, spreads, leaders = [], [], [], [], []
        kept: torch.Tensor | None = None
        for iteration in range(self.num_iterations):
            candidates = distribution.sample(noise[iteration])
            if kept is not None:
                candidates[:, self.num_samples - self.num_kept :] = kept
            if iteration == self.num_iterations - 1 or (iteration == 0 and warm_start is not None):
                candidates[:, 0] = distribution.mode()
            returns = evaluate(candidates)
            elite_returns, elite_index = returns.topk(self.num_elites, dim=1)  # best first, NaN before all
            elites = take_candidates(candidates, elite_index)
            kept = elites[:, : self.num_kept]

            means.append(returns.mean(dim=1))
            maxima.append(returns.amax(dim=1))
            elite_means.append(elite_returns.mean(dim=1))
            spreads.append(distribution.spread())
            leaders.append(elites[:, 0])
            distribution = distribution.refit(elites, self.momentum)

        record = PlanRecord(*(torch.stack(entry) for entry in (means, maxima, elite_means, spreads)))
        leaders_IBHA = torch.stack(leaders)
        evaluate.check_returns(record.return_max, leaders_IBHA)
        if self.return_mode == "best":
            expected_return, best_iteration = record.return_max.max(dim=0)
            decisions = leaders_IBHA[best_iteration, torch.arange(batch_size, device=device)]
        else:
            decisions = distribution.mode()
            expected_return = evaluate(decisions.unsqueeze(1))[:, 0]
            evaluate.check_returns(expected_return.unsqueeze(0), decisions.unsqueeze(0))
        return Plan(
            actions=hold(decisions, self.action_repeat),
            expected_return=expected_return,
            distribution=distribution,
            action_repeat=self.action_repeat,
            candidates=hold(candidates, self.action_repeat),
            candidate_returns=returns,
            record=record,
        )

    def _start(self, batch_size: int, device: torch.device, warm_start: Distribution | None) -> Distribution:
        initial = initial_distribution(
            self.action_spec,
            batch_size,
            self.horizon,
            initial_std=self.initial_std,
            min_std=self.min_std,
            smoothing=self.smoothing,
            device=device,
            dtype=self.dtype,
        )
        if warm_start is None:
            return initial
        check_warm_start(warm_start, initial)
        return warm_start.soften(self.warm_start_softening)
