"""The distribution over plans of discrete actions: a categorical for each decision.

Legend: ``B`` rows of the batch, ``N`` candidates, ``K`` candidates to refit on, ``H`` decisions, ``A``
number of actions, ``I`` iterations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from lssvwm_agents.planners._decisions import check_mask, drop_first, split_frames, weighted_mean
from lssvwm_agents.planners.action_spec import one_hot
from lssvwm_agents.planners.colored_noise import coloured_normal


@dataclass(frozen=True)
class Categorical:
    """A probability for each action at each decision; samples are exactly one-hot.

    Attributes:
        probabilities: (B, H, A), summing to 1 over A.
        smoothing: ``refit`` mixes in this share of the uniform distribution, so that every action keeps a
            probability of at least ``smoothing / A`` and none is lost for good.
    """

    probabilities: torch.Tensor
    smoothing: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """(B, H, A)."""
        batch_size, horizon, action_dim = self.probabilities.shape
        return batch_size, horizon, action_dim

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""
        return self.probabilities.device

    def draw_noise(
        self, num_iterations: int, num_samples: int, generator: torch.Generator | None, colour: float = 0.0
    ) -> torch.Tensor:
        """(I, N, H) uniform in [0, 1), correlated in time where ``colour`` is above 0.

        Coloured noise is normal noise put through the normal cumulative distribution.
        """
        if colour != 0.0:
            horizon, dtype = self.shape[1], self.probabilities.dtype
            normal = coloured_normal(
                num_iterations, num_samples, horizon, 1, colour, generator, self.device, dtype
            )
            uniform: torch.Tensor = torch.special.ndtr(normal.squeeze(-1))
            return uniform
        shape = (num_iterations, num_samples, self.probabilities.shape[1])
        device = self.device if generator is None else generator.device
        return torch.rand(shape, generator=generator, device=device, dtype=self.probabilities.dtype).to(
            self.device
        )

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """(N, H) uniform noise to (B, N, H, A) one-hot candidates, by the inverse cumulative distribution."""
        thresholds = self.probabilities.cumsum(dim=-1)[..., :-1].unsqueeze(1)  # (B, 1, H, A-1)
        index = (noise.unsqueeze(-1) >= thresholds).sum(dim=-1)
        return one_hot(index, self.shape[2], self.probabilities.dtype)

    def mode(self) -> torch.Tensor:
        """(B, H, A) one-hot: the most probable action of each decision."""
        return one_hot(self.probabilities.argmax(dim=-1), self.shape[2], self.probabilities.dtype)

    def refit(
        self, candidates: torch.Tensor, momentum: float, weights: torch.Tensor | None = None
    ) -> Categorical:
        """Fit to the frequencies in (B, K, H, A) candidates, keep ``momentum`` of the old, then smooth."""
        frequencies = torch.lerp(weighted_mean(candidates, weights), self.probabilities, momentum)
        return replace(self, probabilities=_mix_uniform(frequencies, self.smoothing))

    def recentre(self, decisions: torch.Tensor) -> Categorical:
        """Put all probability on (B, H, A) one-hot decisions, then smooth."""
        return replace(self, probabilities=_mix_uniform(decisions, self.smoothing))

    def soften(self, amount: float) -> Categorical:
        """Move the probabilities from the present ones (0) to uniform ones (1)."""
        return replace(self, probabilities=_mix_uniform(self.probabilities, amount))

    def shift(self, num_frames: int, frames_per_decision: int = 1) -> Categorical:
        """Forget the first ``num_frames`` frames, and add as many uniform ones at the end.

        A new decision that spans parts of two old ones takes their mixture, weighted by the frames of each.
        """
        whole, later_share = split_frames(num_frames, frames_per_decision)
        uniform = torch.full_like(self.probabilities[0, 0], 1.0 / self.shape[2])
        probabilities = drop_first(self.probabilities, uniform, whole)
        if later_share > 0.0:
            later = drop_first(self.probabilities, uniform, whole + 1)
            probabilities = torch.lerp(probabilities, later, later_share)
        return replace(self, probabilities=probabilities)

    def reset(self, mask: torch.Tensor) -> Categorical:
        """Give the rows where (B,) bool ``mask`` holds uniform probabilities."""
        mask = check_mask(mask, self.shape[0])
        return replace(self, probabilities=torch.where(mask, 1.0 / self.shape[2], self.probabilities))

    def select(self, index: torch.Tensor) -> Categorical:
        """The rows that ``index`` names."""
        return replace(self, probabilities=self.probabilities[index])

    def spread(self) -> torch.Tensor:
        """(B,) mean entropy of a decision, in nats."""
        entropy: torch.Tensor = torch.special.entr(self.probabilities)
        return entropy.sum(dim=-1).mean(dim=-1)


def _mix_uniform(probabilities: torch.Tensor, share: float) -> torch.Tensor:
    return (1.0 - share) * probabilities + share / probabilities.shape[-1]
