"""One vector per frame for AdaLN (DiT, arXiv 2212.09748): noise level, action and odometry, summed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

NUM_OCTAVES = 5


class FrameConditioning(nn.Module):
    """Embeds noise level, action and odometry; an unknown action or odometry is a learned null."""

    def __init__(self, width: int, action_dim: int, proprio_dim: int) -> None:
        super().__init__()
        self.action_dim, self.proprio_dim = action_dim, proprio_dim
        self.embed_noise = nn.Linear(1 + 2 * NUM_OCTAVES, width)
        self.embed_action = nn.Linear(action_dim, width)
        self.null_action = nn.Parameter(torch.zeros(width))
        self.embed_proprio = nn.Linear(max(proprio_dim, 1) * (1 + 2 * NUM_OCTAVES), width)
        self.null_proprio = nn.Parameter(torch.zeros(width))
        self.mix = nn.Linear(width, width)
        self.register_buffer("proprio_mean", torch.zeros(proprio_dim))
        self.register_buffer("proprio_std", torch.ones(proprio_dim))
        self.proprio_mean: torch.Tensor
        self.proprio_std: torch.Tensor

    @torch.no_grad()
    def fit_proprio(self, proprio: torch.Tensor) -> None:
        """Store mean and standard deviation of odometry (M, P) for standardising."""
        self.proprio_mean.copy_(proprio.mean(0))
        self.proprio_std.copy_(proprio.std(0).clamp(min=1e-3))

    def standardise(self, proprio: torch.Tensor) -> torch.Tensor:
        """Odometry in its own units (..., P) -> about unit variance."""
        return (proprio - self.proprio_mean) / self.proprio_std

    def restore(self, standardised: torch.Tensor) -> torch.Tensor:
        """The inverse of :meth:`standardise`."""
        return standardised * self.proprio_std + self.proprio_mean

    def forward(
        self,
        noise_level: torch.Tensor,
        action: torch.Tensor,
        action_known: torch.Tensor,
        proprio: torch.Tensor,
        proprio_known: torch.Tensor,
    ) -> torch.Tensor:
        """(B,T), (B,T,A), (B,T), (B,T,P), (B,T) -> (B,T,width). ``*_known`` may be soft, in [0, 1]."""
        dtype = self.embed_action.weight.dtype
        total = self.embed_noise(_octaves(2.0 * noise_level.to(dtype)[..., None] - 1.0))
        known = action_known.to(dtype)[..., None]
        total = total + known * self.embed_action(action.to(dtype)) + (1 - known) * self.null_action
        if self.proprio_dim:
            known = proprio_known.to(dtype)[..., None]
            embedded = self.embed_proprio(_octaves(self.standardise(proprio.to(dtype))))
            total = total + known * embedded + (1 - known) * self.null_proprio
        mixed: torch.Tensor = F.silu(self.mix(F.silu(total)))
        return mixed


def _octaves(x: torch.Tensor) -> torch.Tensor:
    """(..., P) -> (..., P * (1 + 2 * NUM_OCTAVES)): the value, sines and cosines at doubling rates."""
    scale = 2.0 ** torch.arange(NUM_OCTAVES, device=x.device, dtype=x.dtype)
    phase = x[..., None] * scale
    return torch.cat([x[..., None], torch.sin(phase), torch.cos(phase)], dim=-1).flatten(-2)
