"""How far returns are spread, followed over the updates: what advantages are divided by."""

from __future__ import annotations

import torch
from torch import nn


class ReturnScale(nn.Module):
    """The range between two percentiles of the returns, averaged over updates (DreamerV3, arXiv 2301.04104).

    Rare large returns do not squeeze all others, as a standard deviation would let them; returns that are
    spread less than ``floor`` are not blown up, so that noise stays noise where nothing is to be gained.

    Args:
        low: Lower percentile, in [0, 1].
        high: Upper one.
        decay: Of the average, per update; the first update sets it.
        floor: Smallest scale.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self, low: float = 0.05, high: float = 0.95, decay: float = 0.99, floor: float = 1.0
    ) -> None:
        super().__init__()
        if not 0.0 <= low < high <= 1.0:
            raise ValueError(f"percentiles must be 0 <= low < high <= 1, got {low} and {high}.")
        if not 0.0 <= decay < 1.0 or floor <= 0:
            raise ValueError(f"`decay` must be in [0, 1) and `floor` above 0, got {decay} and {floor}.")
        self.percentiles, self.decay, self.floor = (low, high), decay, floor
        self.register_buffer("range", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))  # of what was averaged so far; corrects the start
        self.range: torch.Tensor
        self.weight: torch.Tensor

    @torch.no_grad()
    def update(self, returns: torch.Tensor) -> None:
        """Take in the returns of one update, of any shape; returns that are not finite change nothing."""
        low, high = (torch.quantile(returns.flatten().float(), q) for q in self.percentiles)
        spread = high - low
        good = torch.isfinite(spread)
        keep = torch.where(good, self.decay, 1.0)
        self.range.copy_(self.range * keep + (1 - keep) * torch.where(good, spread, 0.0))
        self.weight.copy_(self.weight * keep + (1 - keep))

    def forward(self) -> torch.Tensor:
        """() what to divide by."""
        return (self.range / self.weight.clamp_min(1e-8)).clamp_min(self.floor)
