"""How the decisions of a plan hang together in time: as coloured noise does, or as good plans do.

Legend: ``B`` rows of the batch, ``K`` candidates to refit on, ``H`` decisions, ``A`` action width.
"""

from __future__ import annotations

import functools

import torch

PRIOR_SHARE = 0.02
"""Of the prior in every refitted correlation: elites that lie in a plane do not confine the search to it."""
DIAGONAL_SHARE = 1e-3
"""Of independence in every prior, so that a factor exists in single precision."""


@functools.lru_cache(maxsize=64)
def colour_correlation(
    horizon: int, colour: float, device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """(H, H) correlation of :func:`~lssvwm_agents.planners.coloured_normal`, not to be changed.

    >>> colour_correlation(3, 0.0)
    tensor([[1., 0., 0.],
            [0., 1., 0.],
            [0., 0., 1.]])
    """
    with torch.inference_mode(False):
        time = torch.arange(horizon, dtype=torch.float64)
        if colour == 0.0 or horizon == 1:
            return torch.eye(horizon, device=device, dtype=dtype)
        frequency = torch.arange(horizon // 2 + 1, dtype=torch.float64)
        power = frequency.clamp(min=1.0) ** -colour
        # Frequency 0 and, of an even length, the highest one have one part; the others have two.
        power[1 : (horizon + 1) // 2] *= 2.0
        apart = (time[:, None] - time[None, :]).unsqueeze(-1)
        waves = torch.cos(2.0 * torch.pi * frequency * apart / horizon)
        correlation = (power * waves).sum(dim=-1) / power.sum()
        correlation = torch.lerp(correlation, torch.eye(horizon, dtype=torch.float64), DIAGONAL_SHARE)
        return correlation.to(device=device, dtype=dtype)


def refitted_correlation(
    deviations: torch.Tensor, std: torch.Tensor, weights: torch.Tensor | None, prior: torch.Tensor
) -> torch.Tensor:
    """(B, A, H, H) correlation in time of candidates, with :data:`PRIOR_SHARE` of the prior.

    Args:
        deviations: (B, K, H, A) from their mean.
        std: (B, H, A) theirs; 0 where all agree on a decision.
        weights: (B, K) sum to 1 in each row; None weighs all alike.
        prior: (H, H).
    """
    scaled = (deviations / std.clamp_min(torch.finfo(std.dtype).tiny).unsqueeze(1)).permute(0, 3, 2, 1)
    weighted = scaled / scaled.shape[-1] if weights is None else scaled * weights[:, None, None, :]
    correlation = torch.lerp(weighted @ scaled.mT, prior, PRIOR_SHARE)
    # Rounding, and decisions that all agree on, leave less than 1 on the diagonal.
    correlation.diagonal(dim1=-2, dim2=-1).fill_(1.0)
    return correlation
