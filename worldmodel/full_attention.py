"""Full causal attention over every past frame, with a cache that grows: the baseline without a limit.

It stands where the block scan stands (``BackboneConfig.memory = "full_attention"``); local attention and MLP
stay as they are, so that the memory alone differs. Positions in time are rotary on half of the channels, with
wavelengths up to thousands of frames; the other half matches by content alone.

Shape legend: B batch  T new frames  F cached frames  S tokens of a frame  H heads  E head channels
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from lssvwm_agents.worldmodel.config import BackboneConfig
from lssvwm_agents.worldmodel.fused import rms_norm
from lssvwm_agents.worldmodel.rotary import rotate

SLOWEST = -3.0  # log10 of the slowest rotation, in radians per frame: a wavelength of 6,283 frames


@dataclass(frozen=True)
class FrameCache:
    """Keys and values of every frame so far; grows by one frame a frame.

    Attributes:
        keys: (B, F, S, H, E), rotated to the frames' own times.
        values: (B, F, S, H, E).
        seen: (B, F) 1 where the frame belongs to the row's episode, 0 where it was forgotten by a reset.
    """

    keys: torch.Tensor
    values: torch.Tensor
    seen: torch.Tensor


class FullAttention(nn.Module):
    """Causal by frame, full inside a frame, over all of time; called as the block scan is."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = config.width // config.head_dim, config.head_dim
        self.project_in = nn.Linear(config.width, 3 * config.width, bias=False)
        self.project_out = nn.Linear(config.width, config.width, bias=False)
        self.norm_q = nn.RMSNorm(config.head_dim)
        self.norm_k = nn.RMSNorm(config.head_dim)

    def initial_state(self, batch: int, tokens_per_frame: int, like: torch.Tensor) -> FrameCache:
        """An empty cache: no frames."""
        keys = like.new_zeros(batch, 0, tokens_per_frame, self.heads, self.head_dim)
        return FrameCache(keys, torch.zeros_like(keys), like.new_zeros(batch, 0))

    def forward(
        self, write: torch.Tensor | None, read_only: torch.Tensor | None, cache: FrameCache
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, FrameCache]:
        """Attend; take the writing frames into the cache.

        Writing tokens of frame t see writing tokens of frames up to t; reading ones those of frames up to
        t-1 and their own frame.

        Args:
            write: (B,T,h,w,D) tokens that enter memory, or None.
            read_only: (B,T,h,w,D) tokens that only read, or None. Without ``write``, T must be 1.
            cache: What was written before.

        Returns:
            The two streams' outputs (or None) and the new cache.
        """
        if write is None:
            assert read_only is not None and read_only.shape[1] == 1
            return None, self._read(read_only, cache, cache), cache
        q, k, v = self._project(write, cache)
        seen = torch.cat([cache.seen, cache.seen.new_ones(k.shape[:2])], dim=1)
        after = FrameCache(
            keys=torch.cat([cache.keys, k.to(cache.keys.dtype)], dim=1),
            values=torch.cat([cache.values, v.to(cache.values.dtype)], dim=1),
            seen=seen,
        )
        out = self._attend(q, after, _causal(cache.seen, q.shape[1], q.shape[2], own=False))
        out_read = None if read_only is None else self._read(read_only, cache, after)
        return self._finish(out, write), out_read, after

    def _read(self, read_only: torch.Tensor, before: FrameCache, written: FrameCache) -> torch.Tensor:
        """Queries that see ``written`` up to the frame before theirs, and their own frame's tokens."""
        q, k, v = self._project(read_only, before)
        frames, tokens = q.shape[1:3]
        own = FrameCache(
            keys=torch.cat([written.keys.to(k.dtype), k], dim=1),
            values=torch.cat([written.values.to(v.dtype), v], dim=1),
            seen=written.seen,
        )
        mask = _causal(before.seen, frames, tokens, own=True, written=written.keys.shape[1])
        return self._finish(self._attend(q, own, mask), read_only)

    def _project(
        self, tokens: torch.Tensor, before: FrameCache
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries and keys, rotated to their frame's time in its episode, and values: (B,T,S,H,E) each."""
        q, k, v = (
            self.project_in(tokens.flatten(2, 3)).unflatten(-1, (3, self.heads, self.head_dim)).unbind(-3)
        )
        wide = torch.promote_types(q.dtype, torch.float32)
        start = before.seen.detach().to(wide).sum(1)
        time_BT = start[:, None] + torch.arange(tokens.shape[1], device=q.device, dtype=wide)
        pairs = self.head_dim // 4
        frequency = torch.logspace(0.0, SLOWEST, pairs, device=q.device, dtype=wide)
        angle = (time_BT[..., None] * frequency)[:, :, None, None, :]
        q, k = rms_norm(q, self.norm_q.weight), rms_norm(k, self.norm_k.weight)
        return _rotate_half(q, angle), _rotate_half(k, angle), v

    def _attend(self, q: torch.Tensor, cache: FrameCache, mask: torch.Tensor | None) -> torch.Tensor:
        def rows(tensor: torch.Tensor) -> torch.Tensor:  # (B, H, frames*S, E)
            return tensor.to(q.dtype).flatten(1, 2).transpose(1, 2)

        out = F.scaled_dot_product_attention(rows(q), rows(cache.keys), rows(cache.values), attn_mask=mask)
        return out.transpose(1, 2).reshape(q.shape)

    def _finish(self, out: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self.project_out(out.flatten(-2))
        return projected.reshape(like.shape)


def _rotate_half(tensor: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Rotate half of the channels of (B,T,S,H,E) by (B,T,1,1,E/4) angles; the rest has no position."""
    turned, still = tensor.chunk(2, dim=-1)
    return torch.cat([rotate(turned, angle), still], dim=-1)


def _causal(
    seen_before: torch.Tensor, frames: int, tokens: int, *, own: bool, written: int = 0
) -> torch.Tensor:
    """Which keys the queries of ``frames`` new frames may see: (B or 1, 1, frames*S, keys*S) bool.

    Args:
        seen_before: (B, F) of the cache before the new frames.
        frames: New frames T.
        tokens: S.
        own: Keys are F cached, then ``written - F`` written (T or none), then T of the queries' own; the
            written ones of a query's own frame are hidden. Otherwise keys are F cached, then T written.
        written: Frames cached and written, with ``own``.
    """
    device, past = seen_before.device, seen_before.shape[1]
    query = torch.arange(frames, device=device)[:, None]
    key = torch.arange(frames, device=device)[None, :]
    parts = [query > key] * (written > past) + [query == key] if own else [query >= key]
    new = torch.cat(parts, dim=1).repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)[None, None]
    if past == 0:
        return new
    old = (seen_before > 0).repeat_interleave(tokens, 1)[:, None, None, :]
    batch, length = seen_before.shape[0], frames * tokens
    return torch.cat([old.expand(batch, 1, length, -1), new.expand(batch, 1, length, -1)], dim=-1)
