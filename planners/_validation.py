"""Checks that end in one sentence naming the rule and the value."""

from __future__ import annotations

import math


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
