"""Checks that end in one sentence naming the rule and the value."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch


def require(condition: bool, rule: str, value: object) -> None:
    """Raise ``ValueError`` with ``rule`` and ``value`` unless ``condition`` holds.

    Raises:
        ValueError: If ``condition`` is false.
    """
    if not condition:
        raise ValueError(f"{rule}, got {value}.")


def require_integer(name: str, value: object, low: int, high: int | None = None, high_name: str = "") -> None:
    """Require an ``int`` in [low, high]; no upper bound where ``high`` is None; ``high_name`` is its source.

    Raises:
        ValueError: If ``value`` is no integer, or lies outside.
    """
    if high is None:
        rule = f"`{name}` must be an integer of at least {low}"
    else:
        rule = f"`{name}` must be in [{low}, {f'{high_name}={high}' if high_name else high}]"
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    require(is_integer, rule, value)
    if isinstance(value, int):
        require(low <= value and (high is None or value <= high), rule, value)


def require_fraction(name: str, value: float) -> None:
    """Require a number in [0, 1].

    Raises:
        ValueError: If ``value`` lies outside, or is NaN.
    """
    require(0.0 <= value <= 1.0, f"`{name}` must be in [0, 1]", value)


def require_positive(name: str, value: float) -> None:
    """Require a finite number above 0.

    Raises:
        ValueError: If ``value`` is not.
    """
    require(value > 0.0 and math.isfinite(value), f"`{name}` must be positive and finite", value)


def require_search(
    *,
    action_spec: object,
    horizon: int,
    num_samples: int,
    action_repeat: int,
    discount: float,
    objective: Callable[[Any], torch.Tensor] | None,
    terminal_value: Callable[[Any], torch.Tensor] | None,
    max_rows: int | None,
    dtype: torch.dtype,
) -> None:
    """Check the fields that every sampling planner has.

    Raises:
        ValueError: If one of them breaks its rule.
    """
    from lssvwm_agents.planners.action_spec import ContinuousActions, DiscreteActions

    require(
        isinstance(action_spec, DiscreteActions | ContinuousActions),
        "`action_spec` must be DiscreteActions or ContinuousActions",
        type(action_spec).__name__,
    )
    require_integer("horizon", horizon, 1)
    require_integer("num_samples", num_samples, 1)
    require_integer("action_repeat", action_repeat, 1)
    require_fraction("discount", discount)
    require(
        objective is None or callable(objective), "`objective` must be a function of an Outcome", objective
    )
    require(
        terminal_value is None or callable(terminal_value),
        "`terminal_value` must be a function of an Outcome",
        terminal_value,
    )
    if max_rows is not None:
        require_integer("max_rows", max_rows, 1)
    require(dtype in (torch.float32, torch.float64), "`dtype` must be torch.float32 or torch.float64", dtype)
