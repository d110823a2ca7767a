"""What actions a planner may choose among. Inside planners actions are always float, (..., A)."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import torch

from lssvwm_agents.planners._validation import require, require_integer


@dataclass(frozen=True)
class DiscreteActions:
    """One of ``num_actions`` actions; a float action is its one-hot vector, so that A = num_actions.

    >>> spec = DiscreteActions(3)
    >>> spec.to_one_hot(torch.tensor([2, 0]))
    tensor([[0., 0., 1.],
            [1., 0., 0.]])
    >>> spec.to_index(torch.tensor([[0.0, 1.0, 0.0]]))
    tensor([1])

    Attributes:
        num_actions: How many actions there are.

    Raises:
        ValueError: If ``num_actions`` is no integer of at least 1.
    """

    num_actions: int

    def __post_init__(self) -> None:
        require_integer("num_actions", self.num_actions, 1)

    @property
    def action_dim(self) -> int:
        """Width ``A`` of a float action."""
        return self.num_actions

    def to_one_hot(self, indices: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Turn (...) integer actions into (..., A) exact one-hot vectors.

        Raises:
            ValueError: If ``indices`` is of no integer dtype, or holds a value outside [0, num_actions - 1].
        """
        is_integer = not (indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool)
        require(is_integer, "`indices` must be of an integer dtype", indices.dtype)
        if indices.numel() > 0:
            low, high = int(indices.min()), int(indices.max())
            rule = f"`indices` must be in [0, num_actions - 1 = {self.num_actions - 1}]"
            require(low >= 0, rule, low)
            require(high < self.num_actions, rule, high)
        return one_hot(indices, self.num_actions, dtype)

    def to_index(self, actions: torch.Tensor) -> torch.Tensor:
        """Turn (..., A) one-hot or relaxed actions into (...) int64: the largest entry wins.

        Raises:
            ValueError: If the last dimension is not A.
        """
        check_action_dim(actions, self.num_actions)
        return actions.argmax(dim=-1)

    def contains(self, actions: torch.Tensor) -> torch.Tensor:
        """(...) bool: which of (..., A) float actions are exactly one-hot."""
        check_action_dim(actions, self.num_actions)
        zero_or_one = ((actions == 0) | (actions == 1)).all(dim=-1)
        return zero_or_one & (actions.sum(dim=-1) == 1)


@dataclass(frozen=True)
class ContinuousActions:
    """A vector inside a box.

    >>> ContinuousActions(low=(-1, 0), high=(1, 0.5)).contains(torch.tensor([[0.3, 0.5], [0.3, 0.6]]))
    tensor([ True, False])

    Attributes:
        low: (A,) smallest value of each entry; any sequence, array or tensor is stored as a tuple of floats.
        high: (A,) largest value of each entry.

    Raises:
        ValueError: If the bounds differ in length, are empty or not finite, or a low is not below its high.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            object.__setattr__(self, name, _floats(name, getattr(self, name)))
        require(len(self.low) >= 1, "`low` must have at least one entry", self.low)
        require(
            len(self.low) == len(self.high),
            f"`high` must have as many entries as `low`, {len(self.low)}",
            len(self.high),
        )
        for name, bound in (("low", self.low), ("high", self.high)):
            require(all(math.isfinite(x) for x in bound), f"every entry of `{name}` must be finite", bound)
        require(
            all(a < b for a, b in zip(self.low, self.high, strict=True)),
            "every entry of `low` must be below its `high`",
            f"low={self.low}, high={self.high}",
        )

    @property
    def action_dim(self) -> int:
        """Width ``A`` of an action."""
        return len(self.low)

    def bounds(
        self, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The (A,) tensors ``low`` and ``high``, not to be changed."""
        return _bounds(self, torch.device(torch.get_default_device() if device is None else device), dtype)

    def contains(self, actions: torch.Tensor) -> torch.Tensor:
        """(...) bool: which of (..., A) actions lie inside the box, its faces included."""
        check_action_dim(actions, self.action_dim)
        low, high = self.bounds(actions.device, actions.dtype)
        return ((actions >= low) & (actions <= high)).all(dim=-1)


ActionSpec: TypeAlias = DiscreteActions | ContinuousActions


def nearest_permitted(action_spec: ActionSpec, actions: torch.Tensor) -> torch.Tensor:
    """Bring (..., A) float actions to permitted ones: into the box, or one-hot at the largest entry.

    >>> nearest_permitted(ContinuousActions((-1.0,), (1.0,)), torch.tensor([[3.0]]))
    tensor([[1.]])
    >>> nearest_permitted(DiscreteActions(2), torch.tensor([[0.1, 0.3]]))
    tensor([[0., 1.]])
    """
    check_action_dim(actions, action_spec.action_dim)
    if isinstance(action_spec, DiscreteActions):
        return one_hot(actions.argmax(dim=-1), action_spec.num_actions, actions.dtype)
    low, high = action_spec.bounds(actions.device, actions.dtype)
    return torch.clamp(actions, low, high)


def one_hot(indices: torch.Tensor, num_actions: int, dtype: torch.dtype) -> torch.Tensor:
    """(...) integers to (..., num_actions) exact zeros and ones, without waiting for the device."""
    return (indices.unsqueeze(-1) == torch.arange(num_actions, device=indices.device)).to(dtype)


def check_action_dim(actions: torch.Tensor, action_dim: int) -> None:
    """Require actions of shape (..., action_dim).

    Raises:
        ValueError: If the last dimension is another.
    """
    require(
        actions.ndim >= 1 and actions.shape[-1] == action_dim,
        f"actions must have shape (..., {action_dim})",
        tuple(actions.shape),
    )


@functools.lru_cache(maxsize=64)
def _bounds(
    box: ContinuousActions, device: torch.device, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Made once: a copy from the host would wait for the device, in every iteration of a search."""
    with torch.inference_mode(False):
        return (
            torch.tensor(box.low, device=device, dtype=dtype),
            torch.tensor(box.high, device=device, dtype=dtype),
        )


def _floats(name: str, values: Iterable[float] | torch.Tensor) -> tuple[float, ...]:
    if isinstance(values, torch.Tensor):
        values = values.tolist()
    try:
        return tuple(float(x) for x in values)
    except TypeError:
        raise ValueError(f"`{name}` must be a one-dimensional sequence of numbers, got {values!r}.") from None
