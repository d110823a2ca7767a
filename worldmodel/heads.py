"""What the features of a clean frame say: reward, continuation, value, and the next odometry.

Reward and value are categorical over bins spaced evenly in symlog (two-hot; DreamerV3, arXiv 2301.04104,
section "Critic learning"); the prediction is the mean of the bins in plain units, so that rare rewards are
not biased.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from lssvwm_agents.worldmodel.config import Odometry
from lssvwm_agents.worldmodel.odometry import OdometryDynamics, OdometryHead


def symlog(x: torch.Tensor) -> torch.Tensor:
    """sign(x) log(1 + |x|)."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: torch.Tensor) -> torch.Tensor:
    """The inverse of :func:`symlog`."""
    return torch.sign(x) * torch.expm1(torch.abs(x))


class TwoHot(nn.Module):
    """A scalar as a distribution over ``num_bins`` bins from -symexp(``limit``) to symexp(``limit``).

    What lies beyond counts as the last bin: 53.6 for a limit of 4, 147.4 for 5.
    """

    def __init__(self, num_bins: int, limit: float = 4.0) -> None:
        super().__init__()
        self.register_buffer("bins", symexp(torch.linspace(-limit, limit, num_bins)), persistent=False)
        self.bins: torch.Tensor

    def mean(self, logits: torch.Tensor) -> torch.Tensor:
        """Expected value, in float32 at least (the bins reach far): (..., bins) -> (...)."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return (torch.softmax(logits, -1) * self.bins.to(logits.dtype)).sum(-1)

    def target(self, value: torch.Tensor) -> torch.Tensor:
        """Weights on the two neighbouring bins whose mean is the value: (...) -> (..., bins)."""
        bins = self.bins.to(value.dtype)
        value = value.clamp(bins[0], bins[-1])
        above = torch.searchsorted(bins, value.contiguous()).clamp(1, len(bins) - 1)
        low, high = bins[above - 1], bins[above]
        weight = (value - low) / (high - low)
        hot_low, hot_high = F.one_hot(above - 1, len(bins)), F.one_hot(above, len(bins))
        return hot_low * (1 - weight)[..., None] + hot_high * weight[..., None]

    def loss(self, logits: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Cross-entropy against the two-hot target: (..., bins), (...) -> (...)."""
        return -(self.target(value.float()) * torch.log_softmax(logits.float(), -1)).sum(-1)


class Heads(nn.Module):
    """Small MLPs on the features (B, ..., F) of clean frames."""

    def __init__(
        self,
        feature_dim: int,
        action_dim: int,
        proprio_dim: int,
        num_bins: int,
        value: bool,
        odometry: Odometry = "vector",
        latent_dim: int = 0,
        symlog_limit: float = 4.0,
        odometry_dynamics: bool = False,
    ) -> None:
        super().__init__()
        self.two_hot = TwoHot(num_bins, symlog_limit)
        hidden = feature_dim // 2
        self.reward = _mlp(feature_dim, hidden, num_bins)
        self.continuation = nn.Linear(feature_dim, 1)
        self.value = _mlp(feature_dim, hidden, num_bins) if value else None
        self.proprio: OdometryHead | None = None
        if proprio_dim:
            inputs = feature_dim + OdometryHead.input_dim(odometry, proprio_dim) + action_dim
            changes = OdometryHead.change_dim(odometry, proprio_dim)
            by_odometry = OdometryDynamics(proprio_dim, action_dim, changes) if odometry_dynamics else None
            mlp = _mlp(inputs, hidden, changes)
            self.proprio = OdometryHead(mlp, odometry, proprio_dim, action_dim, by_odometry)
        self.visual_odometry: nn.Sequential | None = None  # from two latents and the action between them
        if latent_dim:
            change = OdometryHead.change_dim(odometry, proprio_dim)
            self.visual_odometry = _mlp(2 * latent_dim + action_dim, hidden, change)
        nn.init.zeros_(self.continuation.weight)
        nn.init.constant_(self.continuation.bias, 4.0)

    @torch.no_grad()
    def forget_odometry(self) -> None:
        """Let the odometry heads say nothing, as before any training."""
        for mlp in (None if self.proprio is None else self.proprio.mlp, self.visual_odometry):
            last = mlp[-1] if isinstance(mlp, nn.Sequential) else None
            if isinstance(last, nn.Linear):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
        if self.proprio is not None and self.proprio.by_odometry is not None:
            self.proprio.by_odometry.forget()


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    last = nn.Linear(hidden, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), last)
