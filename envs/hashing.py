"""Counter-based randomness: integer hashes of (seed, stream, counter), equal on every device.

A generator would tie an environment's numbers to the rows that happen to stand before it. A hash does not:
the number depends on the row's own seed and counter alone. All arithmetic stays inside int64 without
overflow. The mixing function is ``lowbias32`` (C. Wellons, "Prospecting for hash functions", 2018).
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIER_1 = 0x7FEB352D
# The same residue as 0x846ca68b, but small enough in magnitude that a product with 32 bits fits int64.
_MULTIPLIER_2 = 0x846CA68B - (1 << 32)
_COUNTER_MULTIPLIER = 0x1E3779B9


def _mix(value: Tensor) -> Tensor:
    value = value ^ (value >> 16)
    value = (value * _MULTIPLIER_1) & _MASK
    value = value ^ (value >> 15)
    value = (value * _MULTIPLIER_2) & _MASK
    return value ^ (value >> 16)


def hash_bits(seed: Tensor, stream: int, *counters: Tensor | int) -> Tensor:
    """Hash a seed, a stream and counters to 32 uniform bits.

    Args:
        seed: int64, any shape; all 64 bits count.
        stream: Which purpose the number serves; different streams are independent.
        counters: int64 tensors or ints below 2**32 that broadcast against ``seed``.

    Returns:
        int64 in [0, 2**32), of the broadcast shape.
    """
    value = _mix((seed & _MASK) ^ ((stream * 0x9E3779B9) & _MASK))
    value = _mix(value ^ ((seed >> 32) & _MASK))
    for counter in counters:
        value = _mix((value + (counter & _MASK) * _COUNTER_MULTIPLIER) & _MASK)
    return value


def below(bits: Tensor, bound: int | Tensor) -> Tensor:
    """Scale 32 uniform bits to an integer in [0, bound); ``bound`` must be below 2**31."""
    return (bits * bound) >> 32


def chance(bits: Tensor, probability: float) -> Tensor:
    """True with the given probability, from 32 uniform bits."""
    return bits < int(probability * (1 << 32))


def derive_seeds(seed: Tensor, episode: Tensor | int) -> Tensor:
    """Give the seed of a later episode: the seed itself for episode 0, a 62-bit hash of both after it.

    Args:
        seed: (B,) int64, the seed of an environment's first episode.
        episode: (B,) int64 or an int, the number of episodes before this one.

    Returns:
        (B,) int64, not negative.
    """
    high = hash_bits(seed, 0x5EED, episode) >> 1
    low = hash_bits(seed, 0x5EEE, episode) >> 1
    first = torch.as_tensor(episode, device=seed.device) == 0
    return torch.where(first, seed, (high << 31) | low)
