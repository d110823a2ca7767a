"""iCEM, the sample-efficient cross-entropy method: plans that hang together in time, and elites that live on.

Legend: ``B`` rows of the batch, ``N`` candidates a row, ``K`` elites, ``H`` decisions, ``A`` action width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from lssvwm_agents.planners._validation import require
from lssvwm_agents.planners.distributions import Distribution
from lssvwm_agents.planners.elite_search import EliteSearch
from lssvwm_agents.planners.remembered import RememberedElites


@dataclass(frozen=True)
class ICEM(EliteSearch):
    """Plan by iCEM (Pinneri et al. 2020, "Sample-efficient cross-entropy method for real-time planning").

    What it adds to CEM, by the paper's sections: noise that is correlated in time (3.1), elites kept from one
    iteration to the next and, shifted, from one plan to the next (3.2), the mean as a candidate of the last
    iteration, clipping to the box instead of truncated noise (3.3), and fewer candidates in each iteration
    (3.4). Discrete actions have the same, by noise put through the normal cumulative distribution. The other
    fields are those of :class:`~lssvwm_agents.planners.EliteSearch`.

    Attributes:
        noise_colour: Exponent of the noise's power over frequency: 0 white, 1 pink, 2 red. The paper has 0.25
            for quick and up to 4 for slow tasks; large values make plans that hold a direction.
        keep_elites: Share of the elites (rounded up) that the next iteration, and the next plan, imagines
            again.
        decay: Each iteration has the candidates of the one before divided by this, but never fewer than twice
            the elites (or all ``num_samples``, if that is fewer); 1 keeps their number.

    Raises:
        ValueError: If a field breaks its rule.
    """

    num_elites: int = 32
    noise_colour: float = 2.0
    keep_elites: float = 0.3
    decay: float = 1.25

    def __post_init__(self) -> None:
        require(1.0 <= self.decay < math.inf, "`decay` must be at least 1 and finite", self.decay)
        super().__post_init__()

    def samples_by_iteration(self) -> list[int]:
        """Candidates of each iteration, kept elites included."""
        least = min(2 * self.num_elites, self.num_samples)
        counts = (round(self.num_samples * self.decay**-i) for i in range(self.num_iterations))
        return [max(least, count) for count in counts]

    def warm_start_of(self, distribution: Distribution, elites: torch.Tensor) -> Distribution:
        """The distribution, and the elites to imagine again."""
        return RememberedElites(distribution, elites[:, : self.num_kept]) if self.num_kept else distribution

    def reimagined(self, warm_start: RememberedElites) -> torch.Tensor | None:
        """The elites of the plan before."""
        return warm_start.elites[:, : self.num_kept] if self.num_kept else None
