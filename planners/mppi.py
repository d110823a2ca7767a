"""MPPI: every candidate pulls at the plan, the better the harder.

Legend: ``B`` rows of the batch, ``N`` candidates a row, ``K`` picked ones, ``H`` decisions, ``A`` action
width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from lssvwm_agents.planners._validation import require, require_integer, require_positive
from lssvwm_agents.planners.bounded_gaussian import BoundedGaussian
from lssvwm_agents.planners.distributions import Distribution
from lssvwm_agents.planners.sampling import SamplingPlanner
from lssvwm_agents.planners.scores import Scores


@dataclass(frozen=True)
class MPPI(SamplingPlanner):
    """Plan by model predictive path integral control (Williams et al. 2017, "Information theoretic MPC").

    The mean becomes the average of the candidates, weighted by ``softmax(return / temperature)``: their
    equation 33 with ``alpha = 1``, that is without a price for leaving the old mean. The largest return is
    subtracted before the exponential, so that no scale of rewards overflows. Discrete actions average
    frequencies instead. The other fields are those of :class:`~lssvwm_agents.planners.SamplingPlanner`.

    Attributes:
        temperature: *Divides* returns; larger is softer.
        temperature_unit: ``std``: the temperature is in units of the standard deviation of the candidates'
            returns in each row, so that no shift and no positive scale of the reward changes a plan.
            ``return``: it is in the units of the return, as in the paper.
        adapt_std: Whether the standard deviation is refitted as well, with the same weights, as TD-MPC2 does;
            the paper keeps it. Discrete actions have none.
        num_elites: If given, only so many best candidates pull, as in TD-MPC2; None for all.

    Raises:
        ValueError: If a field breaks its rule.
    """

    temperature: float = 0.1
    temperature_unit: Literal["std", "return"] = "std"
    adapt_std: bool = True
    num_elites: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("temperature", self.temperature)
        require(
            self.temperature_unit in ("std", "return"),
            '`temperature_unit` must be "std" or "return"',
            self.temperature_unit,
        )
        if self.num_elites is not None:
            require_integer("num_elites", self.num_elites, 1, self.num_samples, "num_samples")

    @property
    def num_best(self) -> int:
        """The elites; without any, the best candidate for the record."""
        return 1 if self.num_elites is None else self.num_elites

    def update(
        self, distribution: Distribution, candidates: torch.Tensor, scores: Scores, elites: torch.Tensor
    ) -> Distribution:
        """Average the candidates, weighted by their returns."""
        utilities = scores.utilities()
        if self.num_elites is not None:
            candidates, utilities = elites, utilities.gather(1, scores.best(self.num_elites)[0])
        weights = softmax_weights(utilities, self.temperature, self.temperature_unit == "std")
        refitted = distribution.refit(candidates, self.momentum, weights)
        if self.adapt_std or not isinstance(refitted, BoundedGaussian):
            return refitted
        return distribution.recentre(refitted.mean)


def softmax_weights(utilities: torch.Tensor, temperature: float, in_units_of_std: bool) -> torch.Tensor:
    """(B, N) weights that sum to 1 in each row, of (B, N) utilities of any scale.

    A utility of minus infinity weighs nothing; where all are minus infinity, or alike, all weigh the same.

    >>> softmax_weights(torch.tensor([[1e30, -1e30], [-torch.inf, 5.0]]), 1.0, False)
    tensor([[1., 0.],
            [0., 1.]])

    Args:
        utilities: (B, N); NaN makes its row NaN.
        temperature: Divides them.
        in_units_of_std: Whether they are first divided by the standard deviation of the finite ones.
    """
    largest = utilities.amax(dim=1, keepdim=True)
    below = torch.where(utilities == largest, 0.0, utilities - largest)  # infinite ones alike are alike
    if in_units_of_std:
        finite = below.isfinite()
        count = finite.sum(dim=1, keepdim=True)
        known = torch.where(finite, below, 0.0)
        # Scaled to 1 first, so that no square overflows or vanishes.
        reach = known.abs().amax(dim=1, keepdim=True)
        reach = torch.where(reach > 0, reach, 1.0)
        known = known / reach
        mean = known.sum(dim=1, keepdim=True) / count
        std = (torch.where(finite, known - mean, 0.0).square().sum(dim=1, keepdim=True) / count).sqrt()
        below = below / reach / torch.where(std > 0, std, 1.0)
    return torch.softmax(below / temperature, dim=1)
