"""Random shooting: imagine many plans drawn uniformly, and take the best. The baseline of every other search.

Legend: ``B`` rows of the batch, ``N`` candidates a row, ``H`` decisions, ``A`` action width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lssvwm_agents.planners.action_spec import ActionSpec, DiscreteActions, one_hot
from lssvwm_agents.planners.distributions import Distribution, initial_distribution
from lssvwm_agents.planners.plan import Plan, PlanRecord
from lssvwm_agents.planners.protocols import Dynamics, Objective, State
from lssvwm_agents.planners.rollout import batch_of, hold
from lssvwm_agents.planners.search import CandidateEvaluator, require_search


@dataclass(frozen=True)
class RandomShooting:
    """Plan by imagining plans drawn uniformly from all permitted ones.

    Attributes:
        action_spec: The actions.
        horizon: Decisions ``H`` in a plan.
        num_samples: Candidates ``N`` a row.
        action_repeat: Frames for which each decision is held.
        discount: Constant factor per frame.
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
    action_repeat: int = 1
    discount: float = 1.0
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
            warm_start: Taken so that planners can stand in for each other; a search without memory has no use
                for it.
            generator: Source of the noise, on any device; None uses torch's own. All rows share the same
                candidates, so that row b of a batch equals a batch of that row alone.

        Returns:
            The plan; its ``distribution`` is the one that a search begins with.

        Raises:
            ValueError: If a shape is wrong, or an imagined return is NaN.
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
        candidates = self._draw(device, generator).expand(batch_size, -1, -1, -1)
        returns = evaluate(candidates)
        expected_return, best = returns.max(dim=1)  # NaN before all
        decisions = candidates[torch.arange(batch_size, device=device), best]
        evaluate.check_returns(expected_return.unsqueeze(0), decisions.unsqueeze(0))
        distribution = initial_distribution(
            self.action_spec, batch_size, self.horizon, device=device, dtype=self.dtype
        )
        best_return = expected_return.unsqueeze(0)
        return Plan(
            actions=hold(decisions, self.action_repeat),
            expected_return=expected_return,
            distribution=distribution,
            action_repeat=self.action_repeat,
            candidates=hold(candidates, self.action_repeat),
            candidate_returns=returns,
            record=PlanRecord(
                return_mean=returns.mean(dim=1).unsqueeze(0),
                return_max=best_return,
                elite_return_mean=best_return,
                spread=distribution.spread().unsqueeze(0),
            ),
        )

    def _draw(self, device: torch.device, generator: torch.Generator | None) -> torch.Tensor:
        """(N, H, A) candidates."""
        discrete = isinstance(self.action_spec, DiscreteActions)
        shape = (self.num_samples, self.horizon, 1 if discrete else self.action_spec.action_dim)
        source = device if generator is None else generator.device
        uniform = torch.rand(shape, generator=generator, device=source, dtype=self.dtype).to(device)
        if isinstance(self.action_spec, DiscreteActions):
            num_actions = self.action_spec.num_actions
            index = (uniform.squeeze(-1) * num_actions).long().clamp(max=num_actions - 1)
            return one_hot(index, num_actions, self.dtype)
        low, high = self.action_spec.bounds(device, self.dtype)
        return torch.clamp(torch.lerp(low, high, uniform), low, high)
