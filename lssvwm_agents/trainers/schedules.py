"""Learning rate and window length as functions of how far the training is."""

from __future__ import annotations

import math
from collections.abc import Sequence


def decay_factor(progress: float, decay: str, decay_start: float = 0.0) -> float:
    """Factor of the learning rate after the warm-up: 1 until ``decay_start``, then falling to 0 at 1.

    Args:
        progress: Share of the training done, in [0, 1].
        decay: ``cosine``, ``linear`` or ``constant``.
        decay_start: Share of the training at which the fall begins.
    """
    if decay == "constant":
        return 1.0
    done = min(max((progress - decay_start) / (1.0 - decay_start), 0.0), 1.0)
    if decay == "linear":
        return 1.0 - done
    if decay == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    raise ValueError(f"`decay` must be 'cosine', 'linear' or 'constant', got {decay!r}.")


def warmup_factor(update: int, warmup_updates: int) -> float:
    """Factor that rises linearly to 1; update 0 already moves a little."""
    return min(1.0, (update + 1) / warmup_updates) if warmup_updates > 0 else 1.0


def curriculum_length(curriculum: Sequence[tuple[float, int]], progress: float) -> int:
    """Window length at a share of the training done."""
    return [length for start, length in curriculum if start <= progress or start == 0.0][-1]


def ema_decay_at(update: int, decay: float) -> float:
    """Decay of the averaged weights: short at first, so that the random start is soon forgotten."""
    return min(decay, (1.0 + update) / (10.0 + update))
