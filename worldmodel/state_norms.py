"""How large the scan's memory is along a stream, and how large it can become.

The recurrence of ``scan.py`` unrolls to a weighted sum of everything ever written::

    state = sum_l  dt[l] * exp(-rate * (dt[l+1] + ... + dt[L])) * outer(x[l], b[l])

Each weight is at most ``u / (1 - exp(-rate * u))`` times the integral of ``rate * exp(-rate * s)`` over its
own stretch of ``s``, where ``u`` is the longest step. The stretches do not overlap, so the weights of a
stream of any length add up to at most :func:`decay_bound`. Rotating ``b`` changes no norm. Hence, for every
head and at all times::

    norm(state) <= decay_bound(rate, longest step) * max_l norm(x[l]) * norm(b[l])

with equality in the limit for the same write again and again. A step is a step of the scan: one token.

Shape legend: B batch  L layers  H heads  M measurements
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import nn

from lssvwm_agents.worldmodel.forked_scan import ForkedScan
from lssvwm_agents.worldmodel.model import WorldModel
from lssvwm_agents.worldmodel.ssm import BlockScan
from lssvwm_agents.worldmodel.state import WorldState

Piece = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


class StreamNorms(NamedTuple):
    """``norms`` (M,B,L), root mean square of each layer's scan state, after ``frames`` (M,) frames."""

    frames: tuple[int, ...]
    norms: torch.Tensor


def decay_bound(rate: torch.Tensor, longest_step: torch.Tensor) -> torch.Tensor:
    """Most that the weights of all writes to a head can add up to, however long the stream.

    Args:
        rate: (...) positive decay rates: ``exp(log_a)`` of a scan.
        longest_step: (...) upper bound of ``dt``, positive.

    Returns:
        (...) between 1 / rate and 1 / rate + longest_step.
    """
    return longest_step / -torch.expm1(-rate * longest_step)


def state_norms(state: WorldState) -> torch.Tensor:
    """Root mean square of the numbers of each layer's scan state: (B,L).

    Raises:
        ValueError: If a layer has no scan.
    """
    columns = []
    for index, layer in enumerate(state.layers):
        scan = layer.scan.materialise() if isinstance(layer.scan, ForkedScan) else layer.scan
        if not isinstance(scan, torch.Tensor) or scan.ndim != 5:
            raise ValueError(
                f"state norms need `memory`='block_scan' in every layer, got another in layer {index}."
            )
        columns.append(scan.square().mean(dim=(1, 2, 3, 4)).sqrt())
    return torch.stack(columns, dim=1)


@torch.no_grad()
def stream_norms(model: WorldModel, pieces: Iterable[Piece]) -> StreamNorms:
    """Observe a stream, piece by piece, and measure the scan states after each piece.

    Args:
        model: Whose memory is the block scan.
        pieces: Latents (B,T,C,h,w), actions (B,T,A) and odometry (B,T,P) or None, in the stream's order; T
            may differ from piece to piece.

    Raises:
        ValueError: If there is no piece, a shape does not fit, or the model has no scan.
    """
    state: WorldState | None = None
    seen, frames, norms = 0, [], []
    for latents, actions, proprio in pieces:
        if state is None:
            state = model.initial_state(latents.shape[0])
        state, _ = model.observe_latents(state, latents, actions, proprio)
        seen += latents.shape[1]
        frames.append(seen)
        norms.append(state_norms(state))
    if not norms:
        raise ValueError("at least 1 piece of a stream is needed to measure states, got 0.")
    return StreamNorms(tuple(frames), torch.stack(norms))


@torch.no_grad()
def half_lives(model: WorldModel, piece: Piece) -> torch.Tensor:
    """Frames in which each head forgets half of what it holds, at its mean decay over a video: (L,H).

    Args:
        model: Whose memory is the block scan.
        piece: Latents (B,T,C,h,w), actions (B,T,A) and odometry (B,T,P) or None, from an
            episode's first frame.

    Raises:
        ValueError: If the model has no scan in some layer.
    """
    scans = [module for module in model.backbone.modules() if isinstance(module, BlockScan)]
    if len(scans) != model.config.backbone.num_layers:
        raise ValueError(f"half-lives need `memory`='block_scan', got {model.config.backbone.memory}.")
    found: list[torch.Tensor] = []

    def listen(scan: BlockScan) -> Any:
        def hook(_: nn.Module, __: object, projected: torch.Tensor) -> None:
            steps = scan.step_sizes(torch.split(projected, scan.sizes, dim=-1)[4])
            decay_per_frame = scan.block**2 * torch.exp(scan.log_a) * steps.mean(dim=(0, 1))
            found.append(math.log(2.0) / decay_per_frame)

        return scan.project_in.register_forward_hook(hook)

    handles = [listen(scan) for scan in scans]
    try:
        model.observe_latents(model.initial_state(piece[0].shape[0]), *piece)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(found)
