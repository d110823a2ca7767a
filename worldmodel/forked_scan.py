"""Many futures of one past: forks share the past's state and keep only their own few tokens.

A private copy of the state costs N*P numbers a head to read and write for every imagined token. Over a short
horizon it is cheaper to leave the shared state where it is and to hold a fork's own tokens in attention form,
the other side of the state-space duality (arXiv 2405.21060, section 6): a query meets the shared state once,
decayed, and every own token once.

Shape legend, beside the one of ``scan.py``:
    B pasts   n forks of each (row b*n + i)   R = B*n*num_blocks   L tokens since the fork
    S tokens of the new frame
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lssvwm_agents.worldmodel.scan import Writes, expand_groups

MAX_TOKENS = 256  # beyond this a private state is cheaper


@dataclass(frozen=True)
class ForkedScan:
    """State of one layer's recurrence for forks.

    Attributes:
        base: (B, num_blocks, H, P, N) shared state at the moment of the fork.
        keys: (R, G, L, N) ``b`` of the fork's own tokens.
        values: (R, H, L, P) ``dt * x`` of them.
        level: (R, H, L) log-decay from the fork to just after each of them.
        forks: n.
    """

    base: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    level: torch.Tensor
    forks: int

    @property
    def now(self) -> torch.Tensor:
        """Log-decay from the fork to now: (R, H)."""
        if self.level.shape[-1] == 0:
            return self.level.new_zeros(self.level.shape[:2])
        return self.level[..., -1]

    def materialise(self) -> torch.Tensor:
        """Private states (B*n, num_blocks, H, P, N), as if each fork had copied the state at once."""
        base = self.base.repeat_interleave(self.forks, dim=0)
        heads = self.level.shape[1]
        weight = torch.exp(self.now[..., None] - self.level)[..., None]
        keys_RHLN = expand_groups(self.keys.transpose(1, 2), heads).transpose(1, 2)
        written = (self.values * weight).transpose(-1, -2) @ keys_RHLN.to(self.values.dtype)
        decay = torch.exp(self.now)[..., None, None]
        state = decay * base.flatten(0, 1) + written.to(base.dtype)
        return torch.unflatten(state, 0, base.shape[:2])


def fork_scan(state: torch.Tensor, n: int, groups: int) -> ForkedScan:
    """Fork (B, num_blocks, H, P, N) n times without copying it."""
    batch, blocks, heads, channels, size = state.shape
    rows = batch * n * blocks
    return ForkedScan(
        base=state,
        keys=state.new_zeros(rows, groups, 0, size),
        values=state.new_zeros(rows, heads, 0, channels),
        level=state.new_zeros(rows, heads, 0),
        forks=n,
    )


def forked_read(c: torch.Tensor, fork: ForkedScan) -> torch.Tensor:
    """Query without writing: (R,S,G,N) -> (R,S,H,P)."""
    c_RGSN = c.transpose(1, 2)
    y = _from_base(c_RGSN, fork) * torch.exp(fork.now)[..., None, None].to(c.dtype)
    if fork.level.shape[-1]:
        decay_RHL = torch.exp(fork.now[..., None] - fork.level)
        y = y + _from_own(c_RGSN, fork.keys, fork.values, decay_RHL[:, :, None, :])
    return y.transpose(1, 2)


def forked_write(writes: Writes, a: torch.Tensor, fork: ForkedScan) -> tuple[torch.Tensor, ForkedScan]:
    """Write one frame's tokens (R,S,...) and read at each: -> (R,S,H,P) and the new forks."""
    tokens, heads = writes.x.shape[1], writes.x.shape[2]
    dt_RHS = writes.dt.transpose(1, 2).to(fork.level.dtype)
    level_RHS = fork.now[..., None] + torch.cumsum(dt_RHS * a.to(dt_RHS.dtype)[:, None], dim=-1)
    values_RHSP = writes.x.transpose(1, 2) * dt_RHS[..., None].to(writes.x.dtype)
    after = ForkedScan(
        base=fork.base,
        keys=torch.cat([fork.keys, writes.b.transpose(1, 2).to(fork.keys.dtype)], dim=2),
        values=torch.cat([fork.values, values_RHSP.to(fork.values.dtype)], dim=2),
        level=torch.cat([fork.level, level_RHS], dim=2),
        forks=fork.forks,
    )
    c_RGSN = writes.c.transpose(1, 2)
    gap = level_RHS[..., :, None] - after.level[..., None, :]
    if tokens > 1:
        length = after.level.shape[-1]
        future = torch.ones(tokens, length, dtype=torch.bool, device=gap.device).triu(length - tokens + 1)
        gap = gap.masked_fill(future, float("-inf"))
    y = _from_base(c_RGSN, fork) * torch.exp(level_RHS)[..., None].to(c_RGSN.dtype)
    y = y + _from_own(c_RGSN, after.keys, after.values, torch.exp(gap))
    assert y.shape[1] == heads
    return y.transpose(1, 2), after


def _from_base(c_RGSN: torch.Tensor, fork: ForkedScan) -> torch.Tensor:
    """What the shared state answers, undecayed: (R,H,S,P). All forks of a past are one matrix product."""
    batch, blocks, heads, _, _ = fork.base.shape
    c = expand_groups(c_RGSN.transpose(1, 2), heads)  # (R,S,H,N), R = (B, n, blocks)
    c = torch.unflatten(c, 0, (batch, fork.forks, blocks)).permute(0, 2, 4, 1, 3, 5)  # (B,blocks,H,n,S,N)
    y = c.flatten(3, 4) @ fork.base.to(c.dtype).transpose(-1, -2)  # (B,blocks,H,n*S,P)
    y = torch.unflatten(y, 3, (fork.forks, -1)).permute(0, 3, 1, 2, 4, 5)  # (B,n,blocks,H,S,P)
    return y.flatten(0, 2)


def _from_own(
    c_RGSN: torch.Tensor, keys_RGLN: torch.Tensor, values_RHLP: torch.Tensor, decay_RHSL: torch.Tensor
) -> torch.Tensor:
    """What the fork's own tokens answer: (R,H,S,P)."""
    scores = c_RGSN @ keys_RGLN.to(c_RGSN.dtype).transpose(-1, -2)  # (R,G,S,L)
    heads, groups = values_RHLP.shape[1], scores.shape[1]
    decay_RGHSL = torch.unflatten(decay_RHSL, 1, (groups, heads // groups))
    weighted = scores.unsqueeze(2) * decay_RGHSL.to(scores.dtype)
    return weighted.flatten(1, 2) @ values_RHLP.to(scores.dtype)
