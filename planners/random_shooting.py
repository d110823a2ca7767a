"""Random shooting: imagine many plans drawn uniformly, and take the best. The baseline of every other search.

Legend: ``B`` rows of the batch, ``N`` candidates a row, ``H`` decisions, ``A`` action width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lssvwm_agents.planners.action_spec import DiscreteActions, one_hot
from lssvwm_agents.planners.distributions import initial_distribution
from lssvwm_agents.planners.plan import Plan
from lssvwm_agents.planners.problem import PlanningProblem, Task
from lssvwm_agents.planners.protocols import State
from lssvwm_agents.planners.rollout import hold
from lssvwm_agents.planners.trace import Trace


@dataclass(frozen=True)
class RandomShooting(PlanningProblem):
    """Plan by imagining plans drawn uniformly from all permitted ones.

    The fields are those of :class:`~lssvwm_agents.planners.PlanningProblem`. All rows share the same
    candidates, so that row b of a batch equals a batch of that row alone.
    """

    def search(self, task: Task[State]) -> Plan:
        """Imagine once.

        A search without memory has no use for a warm start, and one of a single iteration none for a time
        budget; they are taken so that planners can stand in for each other.
        """
        batch_size, device = task.batch_size, task.device
        candidates = self._draw(device, task.generator).expand(batch_size, -1, -1, -1)
        evaluator = self.evaluator(task)
        scores = evaluator(candidates)
        distribution = initial_distribution(
            self.action_spec, batch_size, self.horizon, device=device, dtype=self.dtype
        )
        trace = Trace(evaluator, task.callback)
        trace.add(candidates, scores, scores.best(1), distribution)
        record, decisions, expected_return, violations = trace.finish()
        return Plan(
            actions=hold(decisions, self.action_repeat),
            expected_return=expected_return,
            distribution=distribution,
            action_repeat=self.action_repeat,
            candidates=hold(candidates, self.action_repeat),
            candidate_returns=scores.returns,
            record=record,
            violations=violations,
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
