"""Distributions over plans, which a search samples and refits.

Legend: ``B`` rows of the batch, ``N`` candidates, ``K`` candidates to refit on, ``H`` decisions, ``A`` action
width, ``I`` iterations. Decisions are independent of each other given the parameters.

**Noise is common to all rows.** ``draw_noise`` makes one block without a batch dimension, and ``sample``
bends it to each row's own parameters. So row b of a batch gets the very candidates that a batch of that row
alone would get.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from lssvwm_agents.planners._validation import require, require_integer
from lssvwm_agents.planners.action_spec import ActionSpec, DiscreteActions, one_hot


class Distribution(Protocol):
    """What a search needs of a distribution over plans. Instances never change: methods return new ones."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(B, H, A)."""
        ...

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""
        ...

    def draw_noise(
        self, num_iterations: int, num_samples: int, generator: torch.Generator | None
    ) -> torch.Tensor:
        """(I, N, H, ...) noise for ``sample``, drawn on the generator's device and common to all rows."""
        ...

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """(N, H, ...) noise to (B, N, H, A) candidates, every one a permitted action."""
        ...

    def mode(self) -> torch.Tensor:
        """(B, H, A) the most probable permitted action of each decision."""
        ...

    def refit(self, candidates: torch.Tensor, momentum: float, weights: torch.Tensor | None = None) -> Self:
        """Fit to (B, K, H, A) candidates, and keep ``momentum`` of the old parameters.

        ``weights`` (B, K) sum to 1 in each row; None weighs all alike.
        """
        ...

    def soften(self, amount: float) -> Self:
        """Move the spread from the present one (0) to the initial one (1)."""
        ...

    def shift(self, num_frames: int, frames_per_decision: int = 1) -> Self:
        """Forget the first ``num_frames`` frames, and add as many initial ones at the end."""
        ...

    def reset(self, mask: torch.Tensor) -> Self:
        """Give the rows where (B,) bool ``mask`` holds their initial parameters (a new episode)."""
        ...

    def select(self, index: torch.Tensor) -> Self:
        """The rows that ``index`` names."""
        ...

    def spread(self) -> torch.Tensor:
        """(B,) how undecided each row is: mean standard deviation, or mean entropy in nats."""
        ...


@dataclass(frozen=True)
class BoundedGaussian:
    """A Gaussian for each entry of each decision, its samples clipped to the box.

    Clipped rather than drawn from a truncated Gaussian, for two reasons: the faces of the box are reached
    exactly, and time-optimal plans lie there; and any noise will do, that correlated in time included.

    Attributes:
        mean: (B, H, A) inside the box.
        std: (B, H, A) standard deviation before clipping.
        low: (A,) the box.
        high: (A,) the box.
        initial_std: (A,) where ``std`` starts.
        min_std: (A,) ``refit`` leaves no std below this.
    """

    mean: torch.Tensor
    std: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    initial_std: torch.Tensor
    min_std: torch.Tensor

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
        self, num_iterations: int, num_samples: int, generator: torch.Generator | None
    ) -> torch.Tensor:
        """(I, N, H, A) standard normal."""
        shape = (num_iterations, num_samples, *self.mean.shape[1:])
        device = self.device if generator is None else generator.device
        return torch.randn(shape, generator=generator, device=device, dtype=self.mean.dtype).to(self.device)

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """(N, H, A) noise to (B, N, H, A) candidates inside the box."""
        candidates = torch.addcmul(self.mean.unsqueeze(1), self.std.unsqueeze(1), noise)
        return torch.clamp(candidates, self.low, self.high)

    def mode(self) -> torch.Tensor:
        """(B, H, A) the mean."""
        return self.mean

    def refit(
        self, candidates: torch.Tensor, momentum: float, weights: torch.Tensor | None = None
    ) -> BoundedGaussian:
        """Fit mean and std to (B, K, H, A) candidates, and keep ``momentum`` of the old ones."""
        mean = _weighted_mean(candidates, weights)
        std = _weighted_mean((candidates - mean.unsqueeze(1)).square(), weights).sqrt()
        mean = torch.lerp(mean, self.mean, momentum)
        std = torch.lerp(std, self.std, momentum)
        # Rounding may carry a mean of points on a face an ulp past it.
        return replace(
            self, mean=torch.clamp(mean, self.low, self.high), std=torch.maximum(std, self.min_std)
        )

    def soften(self, amount: float) -> BoundedGaussian:
        """Keep the mean; move the std from the present one (0) to the initial one (1)."""
        return replace(self, std=torch.lerp(self.std, self.initial_std.expand_as(self.std), amount))

    def shift(self, num_frames: int, frames_per_decision: int = 1) -> BoundedGaussian:
        """Forget the first ``num_frames`` frames, and add as many initial ones at the end.

        A new decision that spans parts of two old ones takes the mean and the variance of their mixture,
        weighted by the frames of each.
        """
        whole, later_share = _split_frames(num_frames, frames_per_decision)
        mean = _drop_first(self.mean, self.initial_mean, whole)
        std = _drop_first(self.std, self.initial_std, whole)
        if later_share > 0.0:
            later_mean = _drop_first(self.mean, self.initial_mean, whole + 1)
            later_std = _drop_first(self.std, self.initial_std, whole + 1)
            variance = torch.lerp(std.square(), later_std.square(), later_share)
            variance = variance + later_share * (1.0 - later_share) * (later_mean - mean).square()
            mean, std = torch.lerp(mean, later_mean, later_share), variance.sqrt()
        return replace(self, mean=torch.clamp(mean, self.low, self.high), std=std)

    def reset(self, mask: torch.Tensor) -> BoundedGaussian:
        """Give the rows where (B,) bool ``mask`` holds their initial mean and std."""
        mask = _check_mask(mask, self.shape[0])
        return replace(
            self,
            mean=torch.where(mask, self.initial_mean, self.mean),
            std=torch.where(mask, self.initial_std, self.std),
        )

    def select(self, index: torch.Tensor) -> BoundedGaussian:
        """The rows that ``index`` names."""
        return replace(self, mean=self.mean[index], std=self.std[index])

    def spread(self) -> torch.Tensor:
        """(B,) mean standard deviation, in the units of the actions."""
        return self.std.mean(dim=(1, 2))


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
        self, num_iterations: int, num_samples: int, generator: torch.Generator | None
    ) -> torch.Tensor:
        """(I, N, H) uniform in [0, 1)."""
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
        frequencies = torch.lerp(_weighted_mean(candidates, weights), self.probabilities, momentum)
        return replace(self, probabilities=_mix_uniform(frequencies, self.smoothing))

    def soften(self, amount: float) -> Categorical:
        """Move the probabilities from the present ones (0) to uniform ones (1)."""
        return replace(self, probabilities=_mix_uniform(self.probabilities, amount))

    def shift(self, num_frames: int, frames_per_decision: int = 1) -> Categorical:
        """Forget the first ``num_frames`` frames, and add as many uniform ones at the end.

        A new decision that spans parts of two old ones takes their mixture, weighted by the frames of each.
        """
        whole, later_share = _split_frames(num_frames, frames_per_decision)
        uniform = torch.full_like(self.probabilities[0, 0], 1.0 / self.shape[2])
        probabilities = _drop_first(self.probabilities, uniform, whole)
        if later_share > 0.0:
            later = _drop_first(self.probabilities, uniform, whole + 1)
            probabilities = torch.lerp(probabilities, later, later_share)
        return replace(self, probabilities=probabilities)

    def reset(self, mask: torch.Tensor) -> Categorical:
        """Give the rows where (B,) bool ``mask`` holds uniform probabilities."""
        mask = _check_mask(mask, self.shape[0])
        return replace(self, probabilities=torch.where(mask, 1.0 / self.shape[2], self.probabilities))

    def select(self, index: torch.Tensor) -> Categorical:
        """The rows that ``index`` names."""
        return replace(self, probabilities=self.probabilities[index])

    def spread(self) -> torch.Tensor:
        """(B,) mean entropy of a decision, in nats."""
        entropy: torch.Tensor = torch.special.entr(self.probabilities)
        return entropy.sum(dim=-1).mean(dim=-1)


def initial_distribution(
    action_spec: ActionSpec,
    batch_size: int,
    horizon: int,
    *,
    initial_std: float = 0.5,
    min_std: float = 0.05,
    smoothing: float = 0.05,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Distribution:
    """Where a search begins that knows nothing: the middle of the box, or all actions equally probable.

    Args:
        action_spec: The actions.
        batch_size: Rows ``B``.
        horizon: Decisions ``H``.
        initial_std: Standard deviation at the start, in units of half the box's width.
        min_std: Smallest standard deviation, in the same units.
        smoothing: Share of the uniform distribution in every refitted categorical.
        device: Where its tensors live.
        dtype: Of its tensors, and so of the actions.
    """
    if isinstance(action_spec, DiscreteActions):
        shape = (batch_size, horizon, action_spec.num_actions)
        probabilities = torch.full(shape, 1.0 / action_spec.num_actions, device=device, dtype=dtype)
        return Categorical(probabilities, smoothing)
    low, high = action_spec.bounds(device, dtype)
    half_width = 0.5 * (high - low)
    start = half_width * initial_std
    return BoundedGaussian(
        mean=(0.5 * (low + high)).expand(batch_size, horizon, -1),
        std=start.expand(batch_size, horizon, -1),
        low=low,
        high=high,
        initial_std=start,
        min_std=half_width * min_std,
    )


def check_warm_start(warm_start: Distribution, initial: Distribution) -> None:
    """Require a warm start of the kind, shape and device of the distribution that it replaces.

    Raises:
        ValueError: If it is another.
    """
    require(
        type(warm_start) is type(initial),
        f"`warm_start` must be a {type(initial).__name__} for these actions (a plan's `distribution`)",
        type(warm_start).__name__,
    )
    require(
        warm_start.shape == initial.shape,
        f"`warm_start` must have the shape (B, horizon, A)={initial.shape}",
        warm_start.shape,
    )
    require(
        warm_start.device == initial.device,
        f"`warm_start` must be on the state's device {initial.device}",
        warm_start.device,
    )


def _weighted_mean(values_BKHA: torch.Tensor, weights_BK: torch.Tensor | None) -> torch.Tensor:
    if weights_BK is None:
        return values_BKHA.mean(dim=1)
    return (values_BKHA * weights_BK[:, :, None, None]).sum(dim=1)


def _mix_uniform(probabilities: torch.Tensor, share: float) -> torch.Tensor:
    return (1.0 - share) * probabilities + share / probabilities.shape[-1]


def _split_frames(num_frames: int, frames_per_decision: int) -> tuple[int, float]:
    """Whole decisions in ``num_frames``, and the share of a new decision in the later of two old ones."""
    require_integer("num_frames", num_frames, 0)
    require_integer("frames_per_decision", frames_per_decision, 1)
    whole, rest = divmod(num_frames, frames_per_decision)
    return whole, rest / frames_per_decision


def _drop_first(values_BHA: torch.Tensor, fill_A: torch.Tensor, count: int) -> torch.Tensor:
    batch_size, horizon, _ = values_BHA.shape
    count = min(count, horizon)
    return torch.cat([values_BHA[:, count:], fill_A.expand(batch_size, count, -1)], dim=1)


def _check_mask(mask: torch.Tensor, batch_size: int) -> torch.Tensor:
    require(
        mask.shape == (batch_size,) and mask.dtype == torch.bool,
        f"`mask` must be bool of shape ({batch_size},)",
        f"{mask.dtype} of shape {tuple(mask.shape)}",
    )
    return mask[:, None, None]
