"""A distribution over plans that carries candidates worth imagining again, for the next search.

Legend: ``B`` rows of the batch, ``K`` remembered candidates, ``H`` decisions, ``A`` action width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from lssvwm_agents.planners._decisions import check_mask, split_frames
from lssvwm_agents.planners.distributions import Distribution


@dataclass(frozen=True)
class RememberedElites:
    """A distribution and the elites of the search that it ended (Pinneri et al. 2020, section 3.2).

    Everything that is asked of a distribution is answered by the one inside; shifting, resetting and
    selecting rows move the elites along.

    Attributes:
        distribution: The distribution.
        elites: (B, K, H, A) permitted candidates, best first.
    """

    distribution: Distribution
    elites: torch.Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """(B, H, A)."""
        return self.distribution.shape

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""
        return self.distribution.device

    def draw_noise(
        self, num_iterations: int, num_samples: int, generator: torch.Generator | None, colour: float = 0.0
    ) -> torch.Tensor:
        """Noise for ``sample``."""
        return self.distribution.draw_noise(num_iterations, num_samples, generator, colour)

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """(B, N, H, A) candidates."""
        return self.distribution.sample(noise)

    def mode(self) -> torch.Tensor:
        """(B, H, A) the most probable decisions."""
        return self.distribution.mode()

    def refit(
        self, candidates: torch.Tensor, momentum: float, weights: torch.Tensor | None = None
    ) -> RememberedElites:
        """Fit the distribution; the elites stay."""
        return replace(self, distribution=self.distribution.refit(candidates, momentum, weights))

    def recentre(self, decisions: torch.Tensor) -> RememberedElites:
        """Move the distribution's mode; the elites stay."""
        return replace(self, distribution=self.distribution.recentre(decisions))

    def soften(self, amount: float) -> RememberedElites:
        """Widen the distribution; the elites stay."""
        return replace(self, distribution=self.distribution.soften(amount))

    def shift(self, num_frames: int, frames_per_decision: int = 1) -> RememberedElites:
        """Forget the first ``num_frames`` frames.

        The elites' new last decisions are those of the shifted distribution's mode. A new decision that spans
        parts of two old ones takes the one with more of its frames.
        """
        distribution = self.distribution.shift(num_frames, frames_per_decision)
        whole, later_share = split_frames(num_frames, frames_per_decision)
        horizon = self.shape[1]
        count = min(whole + (later_share > 0.5), horizon)
        tail = distribution.mode()[:, None, horizon - count :].expand(-1, self.elites.shape[1], -1, -1)
        return RememberedElites(distribution, torch.cat([self.elites[:, :, count:], tail], dim=2))

    def reset(self, mask: torch.Tensor) -> RememberedElites:
        """Give the rows where (B,) bool ``mask`` holds their initial distribution, and its mode as elites."""
        distribution = self.distribution.reset(mask)
        chosen = check_mask(mask, self.shape[0]).unsqueeze(-1)
        return RememberedElites(
            distribution, torch.where(chosen, distribution.mode().unsqueeze(1), self.elites)
        )

    def select(self, index: torch.Tensor) -> RememberedElites:
        """The rows that ``index`` names."""
        return RememberedElites(self.distribution.select(index), self.elites[index])

    def spread(self) -> torch.Tensor:
        """(B,) how undecided each row is."""
        return self.distribution.spread()
