"""What a planner returns.

Legend: ``B`` rows of the batch, ``N`` candidates a row, ``T`` frames, ``A`` action width, ``C`` constraints,
``K`` elites, ``I`` iterations.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lssvwm_agents.planners.distributions import Distribution


@dataclass(frozen=True)
class PlanRecord:
    """How a search went; one entry an iteration and row. Averages are made when they are asked for.

    Attributes:
        returns: (B, N) of the candidates of each iteration.
        elite_returns: (I, B, K) of the elites, best first.
        distributions: That which the candidates of each iteration came from.
        violation: (I, B) by how much the candidate ranked first breaks the constraints, summed over them.
    """

    returns: tuple[torch.Tensor, ...]
    elite_returns: torch.Tensor
    distributions: tuple[Distribution, ...]
    violation: torch.Tensor

    @property
    def num_iterations(self) -> int:
        """Iterations ``I``."""
        return len(self.returns)

    @property
    def return_mean(self) -> torch.Tensor:
        """(I, B) mean return of the candidates."""
        return torch.stack([returns.mean(dim=1) for returns in self.returns])

    @property
    def return_max(self) -> torch.Tensor:
        """(I, B) largest return; under constraints, that of the candidate ranked first."""
        return self.elite_returns[..., 0]

    @property
    def elite_return_mean(self) -> torch.Tensor:
        """(I, B) mean return of the elites."""
        return self.elite_returns.mean(dim=-1)

    @property
    def spread(self) -> torch.Tensor:
        """(I, B) of the distributions: mean standard deviation in units of actions, or entropy in nats."""
        return torch.stack([distribution.spread() for distribution in self.distributions])


@dataclass(frozen=True)
class Plan:
    """The actions to take, and what the search knew when it chose them.

    Attributes:
        actions: (B, T, A) float, one for each frame: T = horizon * action_repeat.
        expected_return: (B,) the imagined return of ``actions``.
        distribution: Where the search ended; ``warm_start`` of the next plan, best through ``shift``.
        action_repeat: Frames for which each decision is held.
        candidates: (B, N, T, A) float, those of the last iteration.
        candidate_returns: (B, N) their returns.
        record: How the search went.
        violations: (B, C) by how much ``actions`` break each constraint in their worst frame; 0 where it is
            kept. C is 0 without constraints.
    """

    actions: torch.Tensor
    expected_return: torch.Tensor
    distribution: Distribution
    action_repeat: int
    candidates: torch.Tensor
    candidate_returns: torch.Tensor
    record: PlanRecord
    violations: torch.Tensor

    @property
    def feasible(self) -> torch.Tensor:
        """(B,) bool: whether the imagined plan keeps every constraint."""
        return (self.violations == 0).all(dim=1)

    @property
    def first_action(self) -> torch.Tensor:
        """(B, A) what to do now."""
        return self.actions[:, 0]

    @property
    def num_frames(self) -> int:
        """Frames ``T`` that the plan covers."""
        return self.actions.shape[1]

    def shift(self, num_frames: int) -> Distribution:
        """The warm start for a plan made ``num_frames`` frames later.

        What was executed is dropped, and the tail is as it is in a search that knows nothing. Where
        ``num_frames`` is no multiple of ``action_repeat``, a new decision spans parts of two old ones and
        takes their mixture. Rows whose episode has just begun want ``plan.shift(n).reset(mask)``.

        Raises:
            ValueError: If ``num_frames`` is negative or no integer.
        """
        return self.distribution.shift(num_frames, self.action_repeat)
