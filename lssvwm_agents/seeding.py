"""Seeds derived from seeds: equal numbers always give the same stream, different ones independent streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def _mix(value: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): a bijection on 64-bit integers."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def fold_in(seed: int, *counters: int) -> int:
    """Derive a new seed from ``seed`` and any number of counters, the same on every machine.

    The order of the counters matters: ``fold_in(s, 1, 2)`` and ``fold_in(s, 2, 1)`` are unrelated.

    Args:
        seed: Any integer; taken modulo 2**64.
        *counters: Any integers, such as the number of an episode, a process or an update.

    Returns:
        An integer in [0, 2**63), which torch, numpy and Gymnasium all accept as a seed.
    """
    value = _mix((int(seed) + _GOLDEN) & _MASK)
    for counter in counters:
        value = _mix((value + _GOLDEN + _mix((int(counter) + 2 * _GOLDEN) & _MASK)) & _MASK)
    return value >> 1


def generator(device: torch.device | str, seed: int, *counters: int) -> torch.Generator:
    """A ``torch.Generator`` on ``device``, seeded with ``fold_in(seed, *counters)``."""
    import torch

    return torch.Generator(device=device).manual_seed(fold_in(seed, *counters))
