"""The scan in matrix form, chunk by chunk (SSD, arXiv 2405.21060, section 6), in plain PyTorch.

Within a chunk of ``Q`` tokens every query meets every key once, weighted by the decay between them; between
chunks only the state passes. Reading tokens are further queries on the same keys: they double the queries,
not the keys.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lssvwm_agents.worldmodel.scan import ScanOutput, Writes, expand_groups


def chunked_scan(
    writes: Writes,
    a: torch.Tensor,
    state: torch.Tensor,
    *,
    c_read: torch.Tensor | None,
    tokens_per_frame: int,
    chunk_size: int,
) -> ScanOutput:
    """Chunk-parallel recurrence; arguments and result as :func:`lssvwm_agents.worldmodel.scan.scan`."""
    rows, length, heads, channels = writes.x.shape
    size = min(max(1, chunk_size // tokens_per_frame) * tokens_per_frame, length)
    pad = -length % size
    chunks = (length + pad) // size

    def chunk(
        tensor: torch.Tensor,
    ) -> torch.Tensor:  # (R,L,H,...) -> (R,C,H,Q,...); padding has dt = 0: no trace
        if pad:
            tensor = F.pad(tensor, (0, 0) * (tensor.ndim - 2) + (0, pad))
        return tensor.reshape(rows, chunks, size, *tensor.shape[2:]).transpose(2, 3)

    wide = torch.promote_types(state.dtype, torch.float32)
    dt_RCHQ = chunk(writes.dt.to(wide))
    level_RCHQ = torch.cumsum(dt_RCHQ * a.to(wide)[:, None], dim=-1)  # log-decay since the chunk began
    total_RCH = level_RCHQ[..., -1]
    xdt_RCHQP = chunk(writes.x) * dt_RCHQ[..., None].to(writes.x.dtype)
    b_RCHQN = chunk(expand_groups(writes.b, heads))
    query_RCHQN = chunk(expand_groups(writes.c, heads))
    query_level = level_RCHQ
    visible_QQ = _causal(size, size, writes.x.device)
    if c_read is not None:
        query_RCHQN = torch.cat([query_RCHQN, chunk(expand_groups(c_read, heads))], dim=3)
        query_level = torch.cat([level_RCHQ, _level_before_frame(level_RCHQ, tokens_per_frame)], dim=-1)
        visible_QQ = torch.cat([visible_QQ, _earlier_frames(size, tokens_per_frame, writes.x.device)])

    # inside a chunk
    gap = query_level[..., :, None] - level_RCHQ[..., None, :]
    decay = torch.exp(gap.masked_fill(~visible_QQ, float("-inf")))
    scores = query_RCHQN @ b_RCHQN.transpose(-1, -2)
    y = (scores * decay.to(scores.dtype)) @ xdt_RCHQP

    # between chunks, in full precision
    to_end_RCHQ = torch.exp(total_RCH[..., None] - level_RCHQ)
    written_RCHPN = (xdt_RCHQP * to_end_RCHQ[..., None].to(xdt_RCHQP.dtype)).transpose(-1, -2) @ b_RCHQN
    with torch.autocast(writes.x.device.type, enabled=False):
        entering_RCHPN, final = _pass_states(written_RCHPN.to(wide), total_RCH, state.to(wide))
    carried = query_RCHQN @ entering_RCHPN.transpose(-1, -2).to(query_RCHQN.dtype)
    y = y + carried * torch.exp(query_level)[..., None].to(y.dtype)

    y = y.transpose(2, 3)  # (R,C,Q or 2Q,H,P)
    y_write = y[:, :, :size].reshape(rows, chunks * size, heads, channels)[:, :length]
    if c_read is None:
        return ScanOutput(y_write, None, final)
    y_read = y[:, :, size:].reshape(rows, chunks * size, heads, channels)[:, :length]
    return ScanOutput(y_write, y_read, final)


def _pass_states(
    written_RCHPN: torch.Tensor, total_RCH: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """States entering each chunk (R,C,H,P,N), and the state after the last one (R,H,P,N)."""
    if total_RCH.shape[1] == 1:
        decay_RH = torch.exp(total_RCH[:, 0])
        return state[:, None], torch.addcmul(written_RCHPN[:, 0], state, decay_RH[..., None, None])
    sources = torch.cat(
        [state[:, None], written_RCHPN], dim=1
    )  # what is handed on: the start, then each chunk's writes
    log_decay_RHCC = _segment_sums(total_RCH.transpose(1, 2))
    visible = _causal(sources.shape[1], sources.shape[1], sources.device)
    decay_RHCC = torch.exp(log_decay_RHCC.masked_fill(~visible, float("-inf")))
    states = torch.einsum("rhij,rjhpn->rihpn", decay_RHCC, sources)
    return states[:, :-1], states[:, -1]


def _segment_sums(total_RHC: torch.Tensor) -> torch.Tensor:
    """(R,H,C) -> (R,H,C+1,C+1), entry (i, j <= i): the sum of totals j .. i-1.

    Summed, not a difference of running sums, which loses digits far from the start.
    """
    size = total_RHC.shape[-1] + 1
    steps = F.pad(total_RHC, (1, 0))[..., :, None].expand(*total_RHC.shape[:-1], size, size)
    return steps.masked_fill(~_causal(size, size, steps.device).tril(-1), 0.0).cumsum(-2)


def _level_before_frame(level_RCHQ: torch.Tensor, tokens_per_frame: int) -> torch.Tensor:
    """Log-decay at the end of the frame before each token's own; 0 in the chunk's first frame."""
    ends = level_RCHQ[..., tokens_per_frame - 1 :: tokens_per_frame]
    return F.pad(ends, (1, 0))[..., :-1].repeat_interleave(tokens_per_frame, dim=-1)


def _causal(queries: int, keys: int, device: torch.device) -> torch.Tensor:
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril()


def _earlier_frames(size: int, tokens_per_frame: int, device: torch.device) -> torch.Tensor:
    frame = torch.arange(size, device=device) // tokens_per_frame
    return frame[:, None] > frame[None, :]
