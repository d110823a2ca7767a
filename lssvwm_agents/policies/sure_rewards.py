"""Rewards that a policy may be trained on: those that the world model is sure of."""

from __future__ import annotations

import torch


def sure_reward(logits: torch.Tensor, bins: torch.Tensor, doubt: float) -> torch.Tensor:
    """The part of a predicted reward that the model is sure of.

    The mean of what may come is a haze of small chances of reward, which an optimiser gathers and reality
    does not pay. So the mean is shrunk towards 0 by ``doubt`` standard deviations of its own distribution: of
    a reward of 1 with probability p nothing is left below p = doubt^2 / (1 + doubt^2), which is 0.2 for a
    doubt of 0.5.

    Args:
        logits: (..., bins) of the reward head.
        bins: (bins,) rewards that they stand for.
        doubt: Standard deviations; 0 for the plain mean.

    Returns:
        (...) reward.
    """
    share = torch.softmax(logits.float(), dim=-1)
    mean = (share * bins).sum(dim=-1)
    variance = (share * (bins - mean[..., None]).square()).sum(dim=-1)
    return mean.sign() * (mean.abs() - doubt * (variance + 1e-12).sqrt()).clamp_min(0.0)
