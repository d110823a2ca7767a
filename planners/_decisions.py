"""Arithmetic on the parameters of a plan's decisions, for the distributions that have them.

Legend: ``B`` rows of the batch, ``K`` candidates to refit on, ``H`` decisions, ``A`` action width.
"""

from __future__ import annotations

import torch

from lssvwm_agents.planners._validation import require, require_integer


def weighted_mean(values_BKHA: torch.Tensor, weights_BK: torch.Tensor | None) -> torch.Tensor:
    """Average (B, K, H, A) over K with (B, K) weights that sum to 1; None weighs all alike."""
    if weights_BK is None:
        return values_BKHA.mean(dim=1)
    return (values_BKHA * weights_BK[:, :, None, None]).sum(dim=1)


def split_frames(num_frames: int, frames_per_decision: int) -> tuple[int, float]:
    """Whole decisions in ``num_frames``, and the share of a new decision in the later of two old ones."""
    require_integer("num_frames", num_frames, 0)
    require_integer("frames_per_decision", frames_per_decision, 1)
    whole, rest = divmod(num_frames, frames_per_decision)
    return whole, rest / frames_per_decision


def drop_first(values_BHA: torch.Tensor, fill: torch.Tensor, count: int) -> torch.Tensor:
    """Drop the first ``count`` decisions, and append as many that hold the last ones of ``fill``.

    ``fill`` is (A,), alike for all decisions, or (H, A).
    """
    batch_size, horizon, action_dim = values_BHA.shape
    count = min(count, horizon)
    tail = fill.expand(horizon, action_dim)[horizon - count :]
    return torch.cat([values_BHA[:, count:], tail.expand(batch_size, -1, -1)], dim=1)


def check_mask(mask: torch.Tensor, batch_size: int) -> torch.Tensor:
    """A (B,) bool mask as (B, 1, 1).

    Raises:
        ValueError: If it is another kind of tensor.
    """
    require(
        mask.shape == (batch_size,) and mask.dtype == torch.bool,
        f"`mask` must be bool of shape ({batch_size},)",
        f"{mask.dtype} of shape {tuple(mask.shape)}",
    )
    return mask[:, None, None]
