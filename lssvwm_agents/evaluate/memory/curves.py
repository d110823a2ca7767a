"""Scores by frames since a place was last seen, with 95 % intervals over mazes.

Shapes: B mazes, H imagined frames, D distances.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lssvwm_agents.evaluate.memory.controls import (
    CEILING,
    CONTEXT_CUT,
    OURS,
    SHUFFLED,
    WINDOW_ONLY,
    WRONG_ACTIONS,
)
from lssvwm_agents.evaluate.memory.episodes import NEVER
from lssvwm_agents.evaluate.memory.scoring import FrameScores
from lssvwm_agents.metrics import mean_ci95

DISTANCES = (4, 16, 32, 48, 64, 96, 128, 192, 256, 384)
"""Upper edges of the bins of frames since last seen; each bin begins after the edge before it."""
_RESAMPLES = 1000

Interval = list[float]
"""Mean, and the low and high end of its 95 % interval."""
RIVALS = (WINDOW_ONLY, CONTEXT_CUT, SHUFFLED, WRONG_ACTIONS)
"""What ours is compared with maze by maze."""


def bins_of(age: torch.Tensor) -> list[torch.Tensor]:
    """One mask (B, H) per distance."""
    edges = (0, *DISTANCES)
    return [(age > low) & (age <= high) for low, high in zip(edges[:-1], edges[1:], strict=True)]


def curves(
    scores: dict[str, FrameScores], true_color: torch.Tensor, age: torch.Tensor, far: int
) -> dict[str, Any]:
    """Everything that one path shows.

    Args:
        scores: By condition, each (B, H).
        true_color: (B, H) int64 real wall colour at the centre, -1 where there is none.
        age: (B, H) frames since last seen; `NEVER` for never, 0 for frames that do not count.
        far: Frames beyond which a place counts as far.

    Returns:
        ``frames`` per distance; ``conditions``: name to metric to one interval per distance (None without
        frames); the same over all ``far``, ``near`` and ``unseen`` frames, with ``gain_db``, the difference
        in PSNR between ours and others in the same mazes; and with a window-only model ``gap_closed``.
    """
    masks = bins_of(age)
    groups = {"far": age > far, "near": (age > 0) & (age <= far), "unseen": age == NEVER}
    result: dict[str, Any] = {
        "frames": [int(mask.sum()) for mask in masks],
        "conditions": {name: _metrics_by_mask(score, true_color, masks) for name, score in scores.items()},
    }
    for group, mask in groups.items():
        per_condition = {name: _metrics_by_mask(s, true_color, [mask]) for name, s in scores.items()}
        result[group] = {
            "frames": int(mask.sum()),
            "conditions": {name: {m: v[0] for m, v in d.items()} for name, d in per_condition.items()},
            "gain_db": {
                name: interval(scores[OURS].psnr - scores[name].psnr, mask)
                for name in RIVALS
                if name in scores
            },
        }
    if WINDOW_ONLY in scores:
        result["gap_closed"] = [gap_closed(scores, mask) for mask in masks]
        for group, mask in groups.items():
            result[group]["gap_closed"] = gap_closed(scores, mask)
        result["far"]["share_of_gain_lost"] = {
            name: _share_lost(result["far"]["conditions"], name) for name in (WRONG_ACTIONS, CONTEXT_CUT)
        }
    return result


def _metrics_by_mask(
    score: FrameScores, true_color: torch.Tensor, masks: list[torch.Tensor]
) -> dict[str, list[Interval | None]]:
    finite = torch.isfinite(score.ssim)
    return {
        "psnr": [interval(score.psnr, mask) for mask in masks],
        "psnr_frame": [interval(score.psnr_frame, mask) for mask in masks],
        "ssim": [interval(score.ssim, mask & finite) for mask in masks],
        "place": [place_content(score.color, true_color, mask) for mask in masks],
    }


def per_maze(values: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
    """Means over each maze's frames in the mask, of the mazes that have any: (at most B,)."""
    total = torch.where(mask, values, torch.zeros_like(values)).sum(1).double()
    count = mask.sum(1)
    return (total[count > 0] / count[count > 0]).numpy()


def interval(values: torch.Tensor, mask: torch.Tensor) -> Interval | None:
    """Mean over mazes of (B, H) values in a mask, with its interval; None without frames."""
    means = per_maze(values, mask)
    return list(mean_ci95(means.tolist())) if len(means) else None


def place_content(color: torch.Tensor, true_color: torch.Tensor, mask: torch.Tensor) -> Interval | None:
    """Chance-corrected accuracy of the wall colour at the centre (Cohen 1960): 0 is chance, 1 always right.

    Chance is the agreement of two independent draws from the colours imagined and the real ones, over all
    frames in the mask. The interval is that of the accuracy over mazes. None where chance is certain.
    """
    mask = mask & (true_color >= 0)
    if not bool(mask.any()):
        return None
    bins = int(max(color[mask].max(), true_color[mask].max())) + 1
    said, real = (torch.bincount(c[mask], minlength=bins).double() for c in (color, true_color))
    chance = float((said / said.sum() * real / real.sum()).sum())
    if chance > 1 - 1e-9:
        return None
    accuracy = interval((color == true_color).float(), mask)
    assert accuracy is not None
    return [(value - chance) / (1 - chance) for value in accuracy]


def gap_closed(scores: dict[str, FrameScores], mask: torch.Tensor) -> Interval | None:
    """``(ours - window_only) / (ceiling - window_only)`` in PSNR, with a bootstrap interval over mazes.

    None without frames, or where the window-only model reaches the ceiling.
    """
    ours, window, ceiling = (per_maze(scores[name].psnr, mask) for name in (OURS, WINDOW_ONLY, CEILING))
    if len(ours) == 0:
        return None

    def ratio(index: np.ndarray) -> np.ndarray:
        base = window[index].mean(-1)
        room = ceiling[index].mean(-1) - base
        return np.where(room > 1e-6, (ours[index].mean(-1) - base) / np.maximum(room, 1e-6), np.nan)

    value = float(ratio(np.arange(len(ours))))
    draws = ratio(np.random.default_rng(0).integers(len(ours), size=(_RESAMPLES, len(ours))))
    if not np.isfinite(value) or not np.isfinite(draws).all():
        return None
    low, high = np.quantile(draws, [0.025, 0.975]).tolist()
    return [value, low, high]


def _share_lost(conditions: dict[str, dict[str, Interval | None]], control: str) -> float | None:
    """Which share of ours' gain in PSNR over window-only a control loses; None where there is no gain."""
    ours, window, other = (conditions[name]["psnr"] for name in (OURS, WINDOW_ONLY, control))
    if ours is None or window is None or other is None or ours[0] <= window[0]:
        return None
    return (ours[0] - other[0]) / (ours[0] - window[0])
