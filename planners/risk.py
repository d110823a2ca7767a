"""What a plan is worth when its future is uncertain: several sampled futures, reduced to one number.

Legend: ``B`` rows of the batch, ``N`` candidates a row, ``F`` futures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from lssvwm_agents.planners._validation import require, require_integer
from lssvwm_agents.planners.protocols import Dynamics, SampledDynamics, State


@dataclass(frozen=True)
class Risk:
    """Imagine every candidate in the same few sampled futures, and judge it by all of them.

    The futures are drawn once a plan, and are common to all candidates, rows and iterations (common random
    numbers): candidates are told apart by what they do, not by their luck. Constraints must hold in every
    future.

    Attributes:
        num_futures: Futures ``F``.
        measure: ``mean``; ``worst`` of the futures; ``cvar``, the mean of the worst ``fraction`` of them
            (conditional value at risk, Rockafellar and Uryasev 2000).
        fraction: Share of the futures that ``cvar`` averages, rounded up to whole ones.

    Raises:
        ValueError: If a field breaks its rule.
    """

    num_futures: int = 8
    measure: Literal["mean", "worst", "cvar"] = "mean"
    fraction: float = 0.25

    def __post_init__(self) -> None:
        require_integer("num_futures", self.num_futures, 1)
        require(
            self.measure in ("mean", "worst", "cvar"),
            '`measure` must be "mean", "worst" or "cvar"',
            self.measure,
        )
        require(0.0 < self.fraction <= 1.0, "`fraction` must be in (0, 1]", self.fraction)

    def reduce(self, returns: torch.Tensor) -> torch.Tensor:
        """(..., F) returns of one candidate in each future to (...) one number."""
        if self.measure == "mean":
            return returns.mean(dim=-1)
        if self.measure == "worst":
            return returns.amin(dim=-1)
        count = math.ceil(self.fraction * returns.shape[-1])
        lowest = returns.topk(count, dim=-1, largest=False).values.mean(dim=-1)
        return torch.where(returns.isnan().any(dim=-1), float("nan"), lowest)  # `topk` would leave NaN out

    def futures(
        self, dynamics: Dynamics[State], generator: torch.Generator | None
    ) -> tuple[Dynamics[State], ...]:
        """The dynamics of each future.

        Raises:
            ValueError: If the dynamics have no futures to sample.
        """
        if not isinstance(dynamics, SampledDynamics):
            raise ValueError(
                f"planning over {self.num_futures} futures needs dynamics with a method `future(seed)`, "
                f"got {type(dynamics).__name__}."
            )
        device = "cpu" if generator is None else generator.device
        seeds = torch.randint(2**62, (self.num_futures,), generator=generator, device=device)
        return tuple(dynamics.future(seed) for seed in seeds.tolist())
