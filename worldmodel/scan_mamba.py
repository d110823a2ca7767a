"""The scan by mamba-ssm's Triton kernel (``pip install "lssvwm-agents[mamba]"``, CUDA only).

The kernel knows no reading tokens. Each frame is therefore laid out as [reading tokens with dt = 0, writing
tokens]: a dt of exactly zero neither decays nor writes, so the reading tokens see the state after the frame
before. The lengths double.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import torch

from lssvwm_agents.worldmodel.scan import ScanOutput, Writes

_EXTRA = 'the scan backend "mamba" needs mamba-ssm and a CUDA device: pip install "lssvwm-agents[mamba]"'


@functools.cache
def mamba_is_available() -> bool:
    """Whether mamba-ssm's kernel can be imported here."""
    try:
        _kernel()
    except ImportError:
        return False
    return torch.cuda.is_available()


@functools.cache
def _kernel() -> Any:
    # Triton multiplies float32 in tf32 unless told otherwise, an error of 1e-3: here float32 means float32.
    os.environ.setdefault("TRITON_F32_DEFAULT", "ieee")
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined  # type: ignore[import-not-found]

    return torch.compiler.disable(mamba_chunk_scan_combined)  # type: ignore[no-untyped-call]


def mamba_scan(
    writes: Writes,
    a: torch.Tensor,
    state: torch.Tensor,
    *,
    c_read: torch.Tensor | None,
    tokens_per_frame: int,
    chunk_size: int,
) -> ScanOutput:
    """Triton recurrence; arguments and result as :func:`lssvwm_agents.worldmodel.scan.scan`.

    Raises:
        ImportError: If mamba-ssm is not installed.
    """
    try:
        kernel = _kernel()
    except ImportError as error:
        raise ImportError(_EXTRA) from error
    x, dt, b, c = writes
    if c_read is not None:
        x = _interleave(torch.zeros_like(x), x, tokens_per_frame)
        dt = _interleave(torch.zeros_like(dt), dt, tokens_per_frame)
        c = _interleave(c_read, c, tokens_per_frame)
        b = _interleave(torch.zeros_like(b), b, tokens_per_frame)
    dtype = x.dtype
    with torch.autocast("cuda", enabled=False):
        y, final = kernel(
            x.contiguous(),
            dt.float().contiguous(),
            a.float(),
            b.to(dtype).contiguous(),
            c.to(dtype).contiguous(),
            chunk_size=_power_of_two(chunk_size),
            initial_states=state.to(dtype).contiguous(),
            return_final_states=True,
        )
    final = final.to(state.dtype)
    if c_read is None:
        return ScanOutput(y, None, final)
    y_read, y_write = _deinterleave(y, tokens_per_frame)
    return ScanOutput(y_write, y_read, final)


def _interleave(first: torch.Tensor, second: torch.Tensor, tokens_per_frame: int) -> torch.Tensor:
    """(R,L,...), (R,L,...) -> (R,2L,...): frame by frame, first's tokens before second's."""
    split = (first.shape[1] // tokens_per_frame, tokens_per_frame)
    pair = torch.stack([torch.unflatten(first, 1, split), torch.unflatten(second, 1, split)], dim=2)
    return pair.flatten(1, 3)


def _deinterleave(tensor: torch.Tensor, tokens_per_frame: int) -> tuple[torch.Tensor, torch.Tensor]:
    pair = torch.unflatten(tensor, 1, (-1, 2, tokens_per_frame))
    return pair[:, :, 0].flatten(1, 2), pair[:, :, 1].flatten(1, 2)


def _power_of_two(chunk_size: int) -> int:
    return max(16, 1 << (chunk_size.bit_length() - 1))
