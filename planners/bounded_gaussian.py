"""The distribution over plans of continuous actions: a Gaussian clipped to the box.

Legend: ``B`` rows of the batch, ``N`` candidates, ``K`` candidates to refit on, ``H`` decisions, ``A`` action
width, ``I`` iterations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from lssvwm_agents.planners._decisions import check_mask, drop_first, split_frames, weighted_mean
from lssvwm_agents.planners.colored_noise import coloured_normal
from lssvwm_agents.planners.time_correlation import refitted_correlation


@dataclass(frozen=True)
class BoundedGaussian:
    """A Gaussian for each entry of each decision, its samples clipped to the box.

    Decisions are independent of each other, but for the noise's colour, or hang together as the candidates do
    that it was fitted to: then a search can follow a valley that runs across the decisions.

    Clipped rather than drawn from a truncated Gaussian, for two reasons: the faces of the box are reached
    exactly, and time-optimal plans lie there; and any noise will do, that correlated in time included.

    Attributes:
        mean: (B, H, A) inside the box, or an ulp beyond: a mean of points on a face is rounded.
        std: (B, H, A) standard deviation before clipping.
        low: (A,) the box.
        high: (A,) the box.
        initial_std: (A,) or (H, A) where ``std`` starts.
        min_std: (A,) or (H, A); ``refit`` leaves no std below this.
        prior: (H, H) correlation in time before any refit; None where it is not refitted.
        correlation: (B, A, H, H) correlation in time of each entry; None where it is the prior's. It is of
            one search: a warm start begins with the prior again.
    """

    mean: torch.Tensor
    std: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    initial_std: torch.Tensor
    min_std: torch.Tensor
    prior: torch.Tensor | None = None
    correlation: torch.Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(B, H, A)."""
        batch_size, horizon, action_dim = self.mean.shape
        return batch_size, horizon, action_dim

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""
        return self.mean.device

    @property
    def initial_mean(self) -> torch.Tensor:
        """(A,) the centre of the box, where ``mean`` starts."""
        return 0.5 * (self.low + self.high)

    def draw_noise(
        self, num_iterations: int, num_samples: int, generator: torch.Generator | None, colour: float = 0.0
    ) -> torch.Tensor:
        """(I, N, H, A) standard normal, correlated in time where ``colour`` is above 0.

        It is white where the prior has the colour already.
        """
        _, horizon, action_dim = self.shape
        return coloured_normal(
            num_iterations,
            num_samples,
            horizon,
            action_dim,
            colour if self.prior is None else 0.0,
            generator,
            self.device,
            self.mean.dtype,
        )

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """(N, H, A) noise to (B, N, H, A) candidates inside the box."""
        if self.prior is not None:
            noise = _correlate(noise, self.prior if self.correlation is None else self.correlation)
        candidates = torch.addcmul(self.mean.unsqueeze(1), self.std.unsqueeze(1), noise)
        return candidates.clamp_(self.low, self.high)

    def mode(self) -> torch.Tensor:
        """(B, H, A) the mean, inside the box."""
        return torch.clamp(self.mean, self.low, self.high)

    def refit(
        self, candidates: torch.Tensor, momentum: float, weights: torch.Tensor | None = None
    ) -> BoundedGaussian:
        """Fit mean and std to (B, K, H, A) candidates, and keep ``momentum`` of the old ones."""
        if weights is None:
            std, mean = torch.std_mean(candidates, dim=1, correction=0)
        else:
            mean = weighted_mean(candidates, weights)
            std = weighted_mean((candidates - mean.unsqueeze(1)).square(), weights).sqrt()
        correlation = None
        if self.prior is not None:
            before = self.prior if self.correlation is None else self.correlation
            correlation = refitted_correlation(candidates - mean.unsqueeze(1), std, weights, self.prior)
            correlation = correlation if momentum == 0.0 else torch.lerp(correlation, before, momentum)
        if momentum > 0.0:
            mean, std = torch.lerp(mean, self.mean, momentum), torch.lerp(std, self.std, momentum)
        std = torch.maximum(std, self.min_std)
        return BoundedGaussian(
            mean, std, self.low, self.high, self.initial_std, self.min_std, self.prior, correlation
        )

    def recentre(self, decisions: torch.Tensor) -> BoundedGaussian:
        """Move the mean to (B, H, A) decisions; the std stays."""
        return replace(self, mean=torch.clamp(decisions, self.low, self.high))

    def soften(self, amount: float) -> BoundedGaussian:
        """Keep the mean; move the std from the present one (0) to the initial one (1)."""
        return replace(self, std=torch.lerp(self.std, self.initial_std.expand_as(self.std), amount))

    def shift(self, num_frames: int, frames_per_decision: int = 1) -> BoundedGaussian:
        """Forget the first ``num_frames`` frames, and add as many initial ones at the end.

        A new decision that spans parts of two old ones takes the mean and the variance of their mixture,
        weighted by the frames of each.
        """
        whole, later_share = split_frames(num_frames, frames_per_decision)
        mean = drop_first(self.mean, self.initial_mean, whole)
        std = drop_first(self.std, self.initial_std, whole)
        if later_share > 0.0:
            later_mean = drop_first(self.mean, self.initial_mean, whole + 1)
            later_std = drop_first(self.std, self.initial_std, whole + 1)
            variance = torch.lerp(std.square(), later_std.square(), later_share)
            variance = variance + later_share * (1.0 - later_share) * (later_mean - mean).square()
            mean, std = torch.lerp(mean, later_mean, later_share), variance.sqrt()
        return replace(self, mean=torch.clamp(mean, self.low, self.high), std=std, correlation=None)

    def reset(self, mask: torch.Tensor) -> BoundedGaussian:
        """Give the rows where (B,) bool ``mask`` holds their initial mean and std."""
        mask = check_mask(mask, self.shape[0])
        return replace(
            self,
            mean=torch.where(mask, self.initial_mean, self.mean),
            std=torch.where(mask, self.initial_std, self.std),
            correlation=None,
        )

    def select(self, index: torch.Tensor) -> BoundedGaussian:
        """The rows that ``index`` names."""
        correlation = None if self.correlation is None else self.correlation[index]
        return replace(self, mean=self.mean[index], std=self.std[index], correlation=correlation)

    def spread(self) -> torch.Tensor:
        """(B,) mean standard deviation, in the units of the actions."""
        return self.std.mean(dim=(1, 2))


def _correlate(noise: torch.Tensor, correlation: torch.Tensor) -> torch.Tensor:
    """(N, H, A) white noise to (B or 1, N, H, A) of a correlation (B, A, H, H) or (H, H)."""
    factor: torch.Tensor = torch.linalg.cholesky_ex(correlation).L  # the plain call would wait for the device
    return (factor @ noise.permute(2, 1, 0).unsqueeze(0)).permute(0, 3, 2, 1)
