"""The scan token by token: slow, short, and what every other backend is tested against."""

from __future__ import annotations

import torch

from lssvwm_agents.worldmodel.scan import ScanOutput, Writes, expand_groups


def reference_scan(
    writes: Writes,
    a: torch.Tensor,
    state: torch.Tensor,
    *,
    c_read: torch.Tensor | None,
    tokens_per_frame: int,
) -> ScanOutput:
    """Sequential recurrence; arguments and result as :func:`lssvwm_agents.worldmodel.scan.scan`."""
    heads = writes.x.shape[2]
    b_RLHN, c_RLHN = expand_groups(writes.b, heads), expand_groups(writes.c, heads)
    read_RLHN = None if c_read is None else expand_groups(c_read, heads)
    outputs, reads = [], []
    state_before_frame = state
    for token in range(writes.x.shape[1]):
        if token % tokens_per_frame == 0:
            state_before_frame = state
        dt_RH = writes.dt[:, token]
        decay_RH = torch.exp(dt_RH * a)
        written_RHPN = torch.einsum("rh,rhp,rhn->rhpn", dt_RH, writes.x[:, token], b_RLHN[:, token])
        state = decay_RH[..., None, None] * state + written_RHPN
        outputs.append(torch.einsum("rhpn,rhn->rhp", state, c_RLHN[:, token]))
        if read_RLHN is not None:
            reads.append(torch.einsum("rhpn,rhn->rhp", state_before_frame, read_RLHN[:, token]))
    return ScanOutput(torch.stack(outputs, 1), torch.stack(reads, 1) if reads else None, state)
