"""What a planner returns.

Legend: ``B`` rows of the batch, ``N`` candidates a row, ``T`` frames, ``A`` action width, ``C`` constraints,
``I`` iterations.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lssvwm_agents.planners.distributions import Distribution


@dataclass(frozen=True)
class PlanRecord:
    """How a search went; one entry an iteration and row.

    Attributes:
        return_mean: (I, B) mean return of the candidates.
        return_max: (I, B) largest return of the candidates; under constraints, that of the candidate ranked
            first.
        elite_return_mean: (I, B) mean return of the elites.
        spread: (I, B) of the distribution that the candidates came from: mean standard deviation in units of
            the actions, or mean entropy in nats.
        violation: (I, B) by how much the candidate ranked first breaks the constraints, summed over them.
    """

    return_mean: torch.Tensor
    return_max: torch.Tensor
    elite_return_mean: torch.Tensor
    spread: torch.Tensor
    violation: torch.Tensor

    @property
    def num_iterations(self) -> int:
        """Iterations ``I``."""
        return self.return_mean.shape[0]


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
