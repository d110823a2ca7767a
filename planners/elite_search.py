"""What CEM and iCEM share: a few best candidates, to which the distribution is refitted.

Legend: ``B`` rows of the batch, ``N`` candidates a row, ``K`` elites, ``H`` decisions, ``A`` action width.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal

import torch

from lssvwm_agents.planners._validation import require, require_fraction, require_integer
from lssvwm_agents.planners.distributions import Distribution
from lssvwm_agents.planners.sampling import SamplingPlanner
from lssvwm_agents.planners.scores import Scores


@dataclass(frozen=True)
class EliteSearch(SamplingPlanner):
    """Refit the distribution to the elites of every iteration, and imagine the best of them again.

    The other fields are those of :class:`~lssvwm_agents.planners.SamplingPlanner`.

    Attributes:
        num_elites: Candidates ``K`` kept for the refit.
        keep_elites: Share of the elites (rounded up) that the next iteration imagines again among its
            candidates.
        elite_weights: ``equal``: all elites count alike in the refit. ``rank``: the better the more, as in
            CMA-ES (Hansen and Ostermeier 2001), so that many elites can be kept and the best still lead.

    Raises:
        ValueError: If a field breaks its rule.
    """

    num_elites: int = 64
    keep_elites: float = 0.1
    elite_weights: Literal["equal", "rank"] = "equal"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("num_elites", self.num_elites, 1, self.num_samples, "num_samples")
        require_fraction("keep_elites", self.keep_elites)
        rule = '`elite_weights` must be "equal" or "rank"'
        require(self.elite_weights in ("equal", "rank"), rule, self.elite_weights)
        taken = self.num_proposals if self.policy is not None else 0
        fewest = min(self.samples_by_iteration())
        require(
            self.num_kept + taken < fewest,
            f"`keep_elites` must leave room for new candidates among {fewest}",
            self.keep_elites,
        )

    @property
    def num_best(self) -> int:
        """The elites."""
        return self.num_elites

    @property
    def num_kept(self) -> int:
        """Elites that the next iteration imagines again."""
        return math.ceil(self.keep_elites * self.num_elites)

    def update(
        self, distribution: Distribution, candidates: torch.Tensor, scores: Scores, elites: torch.Tensor
    ) -> Distribution:
        """Refit to the elites."""
        weights = None
        if self.elite_weights == "rank":
            weights = rank_weights(self.num_elites, elites.device, elites.dtype).expand(elites.shape[0], -1)
        return distribution.refit(elites, self.momentum, weights)


@functools.lru_cache(maxsize=64)
def rank_weights(count: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """(K,) weights that fall with the logarithm of the rank and sum to 1, not to be changed.

    >>> rank_weights(2, torch.device("cpu"), torch.float64)
    tensor([0.8042, 0.1958], dtype=torch.float64)
    """
    with torch.inference_mode(False):
        weights = math.log(count + 0.5) - torch.arange(1.0, count + 1.0, dtype=torch.float64).log()
        return (weights / weights.sum()).to(device=device, dtype=dtype)
