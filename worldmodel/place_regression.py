"""Recursive least squares from places to what was seen there, one frame at a time or many at once.

The recurrence is a Kalman filter over the weights W of a linear map, with features phi of the odometry for
inputs and token values v for outputs::

    e[t] = v[t] - decay * W[t-1] phi[t]                       what memory got wrong
    W[t] = decay * W[t-1] + e[t] gain[t]^T                    the delta rule ...
    gain[t] = P phi[t] / (1 + phi[t]^T P phi[t])              ... with the step size that is optimal

``P`` is the covariance of W before frame t; all tokens of the view share it. W is forgotten as a stationary
Ornstein-Uhlenbeck process forgets: P never exceeds its initial value, and nothing grows with the video.

In parallel over T frames this is Gaussian-process regression (Rasmussen and Williams 2006, section 2.2): with
``L`` the Cholesky factor of the frames' covariance, innovations are ``L^-1 v``, and what memory would have
said before each frame is the strict lower triangle of L times the innovations.

Shape legend: B batch  T frames  N features  S tokens of a frame  V value channels
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

CHUNK = 256
"""Frames regressed at once; changes no result."""


@dataclass(frozen=True)
class PlacePrior:
    """What is believed before anything is seen, and in the end after all is forgotten.

    Attributes:
        ridge: Precision of the weights: how much the prior counts beside one sighting. Small recalls exactly,
            large averages over what was seen nearby.
        log_decay: Of the weights, per frame; at most 0.
    """

    ridge: float
    log_decay: float


@dataclass(frozen=True)
class PlaceState:
    """What one layer knows of places; all zeros when it knows nothing.

    Attributes:
        weights: (B, S, V, N) W.
        certainty: (B, N, N) how far the covariance of W is below the prior's.
    """

    weights: torch.Tensor
    certainty: torch.Tensor


@dataclass(frozen=True)
class Said:
    """What memory says of places.

    Attributes:
        values: (B,T,S,V).
        novelty: (B,T) in [0, 1]: the variance left at the place, by the prior's. 1 before anything was
            seen; it falls everywhere when more places were seen than there are features. 0 where the place
            is unknown.
    """

    values: torch.Tensor
    novelty: torch.Tensor


def recall(phi: torch.Tensor, state: PlaceState, prior: PlacePrior) -> Said:
    """What memory says, one frame on, about a place with features (B,1,N)."""
    decay = math.exp(prior.log_decay)
    phi = phi.to(state.weights.dtype)
    values = decay * (phi @ state.weights.flatten(1, 2).transpose(1, 2))
    certain = decay**2 * (phi @ state.certainty * phi).sum(-1)
    return Said(torch.unflatten(values, 2, state.weights.shape[1:3]), _novelty(phi, prior.ridge * certain))


def learn(
    v: torch.Tensor, phi: torch.Tensor, asked: torch.Tensor | None, state: PlaceState, prior: PlacePrior
) -> tuple[Said, Said, PlaceState]:
    """Learn frames, one after the other.

    Args:
        v: (B,T,S,V) values to be remembered.
        phi: (B,T,N) features of their places, of length 1, or 0 where the place is not known.
        asked: (B,T,N) further places, each asked about just before frame t is learnt; None for the same.
        state: What is known before.
        prior: The memory's.

    Returns:
        What memory said about each frame's place before it learnt the frame, the same for ``asked``, and what
        it knows afterwards.
    """
    parts = []
    for start in range(0, v.shape[1], CHUNK):
        piece = slice(start, start + CHUNK)
        also = None if asked is None else asked[:, piece]
        parts.append(_learn(v[:, piece], phi[:, piece], also, state, prior))
        state = parts[-1][2]
    if len(parts) == 1:
        return parts[0]
    said, read = _joined([part[0] for part in parts]), _joined([part[1] for part in parts])
    return said, read, state


def _joined(parts: list[Said]) -> Said:
    """One after the other in time."""
    return Said(
        torch.cat([part.values for part in parts], dim=1), torch.cat([part.novelty for part in parts], dim=1)
    )


def _learn(
    v: torch.Tensor, phi: torch.Tensor, asked: torch.Tensor | None, state: PlaceState, prior: PlacePrior
) -> tuple[Said, Said, PlaceState]:
    wide, frames, tokens = state.weights.dtype, phi.shape[1], v.shape[2:]
    phi = phi.to(wide)
    time = torch.arange(1, frames + 1, device=phi.device, dtype=wide)
    decay = torch.exp(prior.log_decay * time)  # since the state was made
    between = torch.exp(prior.log_decay * (time[:, None] - time).abs())
    through = phi @ state.certainty  # (B,T,N)

    def covariance(left: torch.Tensor) -> torch.Tensor:  # of what is asked with what is learnt: (B,T,T)
        at_first = between / prior.ridge * (left @ phi.transpose(1, 2))
        return at_first - decay[:, None] * decay * (left @ through.transpose(1, 2))

    def expected(features: torch.Tensor) -> torch.Tensor:  # by the state alone: (B,T,S*V)
        return decay[:, None] * (features @ state.weights.flatten(1, 2).transpose(1, 2))

    noisy = covariance(phi) + torch.eye(frames, device=phi.device, dtype=wide)
    factor = torch.linalg.cholesky_ex(noisy).L if frames > 1 else torch.sqrt(noisy)
    values = expected(phi)
    error = _solve(factor, v.flatten(2).to(wide) - values)
    values = values + torch.tril(factor, -1) @ error
    left_over = torch.diagonal(factor, dim1=1, dim2=2).square() - 1.0
    said = read = Said(torch.unflatten(values, 2, tokens), (prior.ridge * left_over).clamp(min=0.0))
    if asked is not None:
        asked = asked.to(wide)
        cross = _solve(factor, covariance(asked).transpose(1, 2))
        cross = torch.tril(cross.transpose(1, 2), -1)
        certain = decay.square() * (asked @ state.certainty * asked).sum(-1) + cross.square().sum(-1)
        read = Said(
            torch.unflatten(expected(asked) + cross @ error, 2, tokens),
            _novelty(asked, prior.ridge * certain),
        )
    to_end = (decay[-1] / decay)[:, None] / prior.ridge * phi - (decay[-1] * decay)[:, None] * through
    gain = _solve(factor, to_end)  # (B,T,N)
    weights = decay[-1] * state.weights + torch.unflatten(error.transpose(1, 2) @ gain, 1, tokens)
    certainty = decay[-1].square() * state.certainty + gain.transpose(1, 2) @ gain
    return said, read, PlaceState(weights, certainty)


def _solve(factor: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Lower triangles (B,T,T), one frame being a division."""
    if factor.shape[-1] == 1:
        return right / factor
    solved: torch.Tensor = torch.linalg.solve_triangular(factor, right, upper=False)
    return solved


def _novelty(phi: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    return (phi.square().sum(-1) - known).clamp(min=0.0)
