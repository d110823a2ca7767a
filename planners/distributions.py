"""Distributions over plans, which a search samples and refits.

Legend: ``B`` rows of the batch, ``N`` candidates, ``K`` candidates to refit on, ``H`` decisions, ``A`` action
width, ``I`` iterations. Decisions are independent of each other given the parameters.

**Noise is common to all rows.** ``draw_noise`` makes one block without a batch dimension, and ``sample``
bends it to each row's own parameters. So row b of a batch gets the very candidates that a batch of that row
alone would get.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, Self, TypeAlias

import torch

from lssvwm_agents.planners._validation import require
from lssvwm_agents.planners.action_spec import ActionSpec, ContinuousActions, DiscreteActions
from lssvwm_agents.planners.bounded_gaussian import BoundedGaussian
from lssvwm_agents.planners.categorical import Categorical
from lssvwm_agents.planners.time_correlation import colour_correlation

Spread: TypeAlias = float | Sequence[float] | Sequence[Sequence[float]]
"""A standard deviation in units of half the box's width: one number, (A,) of them, or (H, A)."""


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
        self, num_iterations: int, num_samples: int, generator: torch.Generator | None, colour: float = 0.0
    ) -> torch.Tensor:
        """(I, N, H, ...) noise for ``sample``, drawn on the generator's device and common to all rows.

        ``colour`` above 0 correlates the noise of neighbouring decisions: its power falls with frequency as
        ``1 / frequency ** colour``.
        """
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

    def recentre(self, decisions: torch.Tensor) -> Self:
        """Move the mode to (B, H, A) permitted decisions."""
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


def initial_distribution(
    action_spec: ActionSpec,
    batch_size: int,
    horizon: int,
    *,
    initial_std: Spread = 0.5,
    min_std: Spread = 0.05,
    smoothing: float = 0.05,
    prior_colour: float | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Distribution:
    """Where a search begins that knows nothing: the middle of the box, or all actions equally probable.

    Args:
        action_spec: The actions.
        batch_size: Rows ``B``.
        horizon: Decisions ``H``.
        initial_std: Standard deviation at the start, in units of half the box's width: for all decisions and
            entries of the action alike, (A,) for each entry, or (H, A) for each decision and entry.
        min_std: Smallest standard deviation, in the same units and forms.
        smoothing: Share of the uniform distribution in every refitted categorical.
        prior_colour: If given, a Gaussian's correlation in time is refitted too, and begins as that of noise
            of this colour.
        device: Where its tensors live.
        dtype: Of its tensors, and so of the actions.
    """
    if isinstance(action_spec, DiscreteActions):
        shape = (batch_size, horizon, action_spec.num_actions)
        probabilities = torch.full(shape, 1.0 / action_spec.num_actions, device=device, dtype=dtype)
        return Categorical(probabilities, smoothing)
    where = torch.device(torch.get_default_device() if device is None else device)
    spreads = _hashable(initial_std), _hashable(min_std)
    return _initial_gaussian(action_spec, batch_size, horizon, *spreads, prior_colour, where, dtype)


@functools.lru_cache(maxsize=64)
def _initial_gaussian(
    box: ContinuousActions,
    batch_size: int,
    horizon: int,
    initial_std: Spread,
    min_std: Spread,
    prior_colour: float | None,
    device: torch.device,
    dtype: torch.dtype,
) -> BoundedGaussian:
    """Made once: with small dynamics a plan would notice the time."""
    with torch.inference_mode(False):
        low, high = box.bounds(device, dtype)
        half_width = 0.5 * (high - low)
        start, smallest = (
            half_width * torch.as_tensor(given, device=device, dtype=dtype)
            for given in (initial_std, min_std)
        )
        return BoundedGaussian(
            mean=(0.5 * (low + high)).expand(batch_size, horizon, -1),
            std=start.expand(batch_size, horizon, -1),
            low=low,
            high=high,
            initial_std=start,
            min_std=smallest,
            prior=None if prior_colour is None else colour_correlation(horizon, prior_colour, device, dtype),
        )


def _hashable(given: Spread) -> Spread:
    if isinstance(given, float | int):
        return given
    numbers = torch.as_tensor(given, dtype=torch.float64).tolist()
    return tuple(tuple(row) if isinstance(row, list) else row for row in numbers)


def begin_from(warm_start: Distribution, initial: Distribution, softening: float) -> Distribution:
    """The distribution that a search begins with, given the one that it would begin with afresh.

    Raises:
        ValueError: If the two do not fit.
    """
    check_warm_start(warm_start, initial)
    softened = warm_start.soften(softening)
    if not (isinstance(softened, BoundedGaussian) and isinstance(initial, BoundedGaussian)):
        return softened
    if softened.prior is initial.prior and softened.correlation is None:
        return softened
    return replace(softened, prior=initial.prior, correlation=None)


def require_spread(action_spec: ActionSpec, horizon: int, initial_std: Spread, min_std: Spread) -> None:
    """Check standard deviations given for each entry or decision.

    Raises:
        ValueError: If a shape does not fit, a start is not positive, or a smallest one is above its start.
    """
    start, smallest = (
        _spread(name, given, action_spec, horizon)
        for name, given in (("initial_std", initial_std), ("min_std", min_std))
    )
    positive = bool(((start > 0.0) & start.isfinite()).all())
    require(positive, "`initial_std` must be positive and finite", initial_std)
    rule = f"`min_std` must be in [0, initial_std={initial_std}]"
    require(bool(((smallest >= 0.0) & (smallest <= start)).all()), rule, min_std)


def _spread(name: str, given: Spread, action_spec: ActionSpec, horizon: int) -> torch.Tensor:
    tensor = torch.as_tensor(given, dtype=torch.float64)
    shapes: list[tuple[int, ...]] = [()]
    if isinstance(action_spec, ContinuousActions):
        shapes += [(action_spec.action_dim,), (horizon, action_spec.action_dim)]
    rule = f"`{name}` must be a number, or numbers of shape (A,) or (H, A) for continuous actions: {shapes}"
    require(tuple(tensor.shape) in shapes, rule, tuple(tensor.shape))
    return tensor


def check_warm_start(warm_start: Distribution, initial: Distribution) -> None:
    """Require a warm start of the kind, shape and device of the distribution that it replaces.

    Raises:
        ValueError: If it is another.
    """
    if type(warm_start) is not type(initial):
        rule = f"`warm_start` must be a {type(initial).__name__} for these actions (a plan's `distribution`)"
        require(False, rule, type(warm_start).__name__)
    if warm_start.shape != initial.shape:
        rule = f"`warm_start` must have the shape (B, horizon, A)={initial.shape}"
        require(False, rule, warm_start.shape)
    if warm_start.device != initial.device:
        rule = f"`warm_start` must be on the state's device {initial.device}"
        require(False, rule, warm_start.device)
