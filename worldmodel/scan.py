"""One linear-recurrent scan over block sequences, with several backends that give the same numbers.

The recurrence is Mamba-2's state-space duality (SSD; Dao and Gu 2024, arXiv 2405.21060, section 6)::

    state[l] = exp(dt[l] * a) * state[l-1] + dt[l] * outer(x[l], b[l])
    y[l]     = state[l] @ c[l]

Tokens come in frames of ``S`` tokens. Beside the tokens that *write*, tokens may only *read*: a reading token
of frame t sees the state as it stood after frame t-1 and leaves no trace (that is how a frame is denoised
without touching memory).

Shape legend, for this file and every backend:
    R rows (batch x blocks)   L = T*S tokens in time order   S tokens per frame and block
    H heads   P head channels   N state size   G groups of heads that share b and c
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

Backend = Literal["auto", "reference", "chunked", "mamba"]
BACKENDS: tuple[str, ...] = ("auto", "reference", "chunked", "mamba")


class Writes(NamedTuple):
    """What writing tokens bring: ``x`` (R,L,H,P), ``dt`` (R,L,H) > 0, ``b`` and ``c`` (R,L,G,N)."""

    x: torch.Tensor
    dt: torch.Tensor
    b: torch.Tensor
    c: torch.Tensor


class ScanOutput(NamedTuple):
    """``y`` (R,L,H,P) of the writing tokens, ``y_read`` (R,L,H,P) or None, ``state`` (R,H,P,N) at the end."""

    y: torch.Tensor
    y_read: torch.Tensor | None
    state: torch.Tensor


def scan(
    writes: Writes,
    a: torch.Tensor,
    state: torch.Tensor,
    *,
    c_read: torch.Tensor | None = None,
    tokens_per_frame: int = 1,
    backend: Backend = "auto",
    chunk_size: int = 64,
) -> ScanOutput:
    """Run the recurrence over all tokens, in parallel over time.

    Args:
        writes: The writing tokens.
        a: (H,) negative decay rates.
        state: (R,H,P,N) state before the first token.
        c_read: (R,L,G,N) queries of the reading tokens, frame by frame as the writing ones, or None.
        tokens_per_frame: ``S``; must divide L.
        backend: ``reference`` steps token by token; ``chunked`` is matrix form in plain PyTorch; ``mamba``
            calls mamba-ssm's Triton kernel (CUDA only, tuned for a minute or more at each new shape);
            ``auto`` is ``chunked``.
        chunk_size: Tokens computed at once (rounded to whole frames); changes no result.

    Raises:
        ValueError: If S does not divide L or the backend is unknown.
    """
    length = writes.x.shape[1]
    if length % tokens_per_frame:
        raise ValueError(
            f"`tokens_per_frame`={tokens_per_frame} must divide the number of tokens, got {length}."
        )
    if backend not in BACKENDS:
        raise ValueError(f"`backend` must be one of {BACKENDS}, got {backend!r}.")
    if backend == "reference":
        from lssvwm_agents.worldmodel.scan_reference import reference_scan

        return reference_scan(writes, a, state, c_read=c_read, tokens_per_frame=tokens_per_frame)
    if backend == "mamba":
        from lssvwm_agents.worldmodel.scan_mamba import mamba_scan

        return mamba_scan(
            writes, a, state, c_read=c_read, tokens_per_frame=tokens_per_frame, chunk_size=chunk_size
        )
    from lssvwm_agents.worldmodel.scan_chunked import chunked_scan

    return chunked_scan(
        writes, a, state, c_read=c_read, tokens_per_frame=tokens_per_frame, chunk_size=chunk_size
    )


def read(c_read: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    """Query the state without writing: (R,L,G,N), (R,H,P,N) -> (R,L,H,P)."""
    c_RHLN = expand_groups(c_read, state.shape[1]).transpose(1, 2)
    return (c_RHLN @ state.to(c_RHLN.dtype).transpose(-1, -2)).transpose(1, 2)


def expand_groups(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """(R,L,G,N) -> (R,L,H,N): every head gets its group's row."""
    groups = tensor.shape[2]
    if groups == heads:
        return tensor
    return tensor.repeat_interleave(heads // groups, dim=2)
