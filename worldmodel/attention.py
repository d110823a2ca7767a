"""Dense local attention over a frame and the last ``k`` frames (LSSVWM, arXiv 2505.20171, section 4.2).

Before an episode's first frame stand frames of zero keys and zero values: attention then has somewhere to
look, and a fresh state is all zeros. Positions in time are relative (RoPE on the offset inside the window),
so nothing grows with the video.

Shape legend: B batch  T frames  S tokens of a frame  H heads  E head channels  K window
    C chunks of c frames
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from lssvwm_agents.worldmodel.config import BackboneConfig
from lssvwm_agents.worldmodel.fused import rms_norm
from lssvwm_agents.worldmodel.rotary import rotate, time_angles


class FrameAttention(nn.Module):
    """Causal by frame, full inside a frame, over a rolling window."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.window = config.window
        self.heads, self.head_dim = config.width // config.head_dim, config.head_dim
        self.project_in = nn.Linear(config.width, 3 * config.width, bias=False)
        self.project_out = nn.Linear(config.width, config.width, bias=False)
        self.norm_q = nn.RMSNorm(config.head_dim)
        self.norm_k = nn.RMSNorm(config.head_dim)

    def initial_state(self, batch: int, tokens_per_frame: int, like: torch.Tensor) -> torch.Tensor:
        """Zero keys (or values): (B, K, S, H, E)."""
        return like.new_zeros(batch, self.window, tokens_per_frame, self.heads, self.head_dim)

    def forward(
        self,
        write: torch.Tensor | None,
        read_only: torch.Tensor | None,
        keys: torch.Tensor,
        values: torch.Tensor,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor, torch.Tensor]:
        """Attend; arguments and results as :meth:`lssvwm_agents.worldmodel.ssm.BlockScan.forward`.

        Writing tokens of frame t see writing tokens of frames t-K .. t; reading ones those of t-K .. t-1 and
        their own frame.
        """
        if write is None:
            assert read_only is not None and read_only.shape[1] == 1
            q, k, v = self._project(read_only)
            out = _attend(q, keys, values, self.window, own=(k, v))
            return None, self._finish(out, read_only), keys, values
        q, k, v = self._project(write)
        past_k = torch.cat([keys.to(k.dtype), k], dim=1)
        past_v = torch.cat([values.to(v.dtype), v], dim=1)
        out_write = self._finish(_attend(q, past_k, past_v, self.window), write)
        out_read = None
        if read_only is not None:
            q, k_own, v_own = self._project(read_only)
            out_read = self._finish(
                _attend(q, past_k[:, :-1], past_v[:, :-1], self.window, own=(k_own, v_own)), read_only
            )
        last_k, last_v = past_k[:, -self.window :], past_v[:, -self.window :]
        return out_write, out_read, last_k.to(keys.dtype), last_v.to(values.dtype)

    def _project(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        q, k, v = (
            self.project_in(tokens.flatten(2, 3)).unflatten(-1, (3, self.heads, self.head_dim)).unbind(-3)
        )
        return rms_norm(q, self.norm_q.weight), rms_norm(k, self.norm_k.weight), v

    def _finish(self, out: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self.project_out(out.flatten(-2))
        return projected.reshape(like.shape)


def _attend(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    window: int,
    own: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Banded attention in chunks of frames.

    Args:
        q: (B,T,S,H,E) queries.
        keys: (B,K+T,S,H,E), from K frames before the first query's frame to the last query's own; with
            ``own``, (B,K+T-1,...).
        values: As ``keys``.
        window: K.
        own: Keys and values (B,T,S,H,E) that queries of the same frame see instead of the frame's entry in
            ``keys``.

    Returns:
        (B,T,S,H,E).
    """
    batch, time, tokens, heads, channels = q.shape
    size = min(max(window, 1), time)
    chunks = -(-time // size)
    pad = chunks * size - time
    reach = window + size - (own is not None)  # frames of keys that one chunk of queries meets

    def tail(tensor: torch.Tensor) -> torch.Tensor:
        return F.pad(tensor, (0, 0, 0, 0, 0, 0, 0, pad)) if pad else tensor

    def unfold(tensor: torch.Tensor) -> torch.Tensor:  # (B,C,frames,S,H,E)
        return tail(tensor).unfold(1, reach, size).movedim(-1, 2)

    angles = time_angles(window + size, channels // 4, q.device, torch.promote_types(q.dtype, torch.float32))
    q_chunks = _rotate_half(torch.unflatten(tail(q), 1, (chunks, size)), angles[window:])
    k_chunks = _rotate_half(unfold(keys), angles[:reach])
    v_chunks = unfold(values)
    if own is not None:
        own_k = _rotate_half(torch.unflatten(tail(own[0]), 1, (chunks, size)), angles[window:])
        k_chunks = torch.cat([k_chunks, own_k], dim=2)
        v_chunks = torch.cat([v_chunks, torch.unflatten(tail(own[1]), 1, (chunks, size))], dim=2)
    mask = _band(size, window, tokens, own is not None, q.device) if size > 1 else None

    def rows(tensor: torch.Tensor) -> torch.Tensor:  # (B*C, H, frames*S, E)
        return tensor.reshape(batch * chunks, -1, heads, channels).transpose(1, 2)

    out = F.scaled_dot_product_attention(rows(q_chunks), rows(k_chunks), rows(v_chunks), attn_mask=mask)
    return out.transpose(1, 2).reshape(batch, chunks * size, tokens, heads, channels)[:, :time]


def _rotate_half(tensor: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Rotate half of the channels of (B,C,frames,S,H,E) by (frames, E/4) angles; the rest has no position."""
    turned, still = tensor.chunk(2, dim=-1)
    return torch.cat([rotate(turned, angles[:, None, None, :]), still], dim=-1)


def _band(size: int, window: int, tokens: int, own: bool, device: torch.device) -> torch.Tensor:
    """(size*S, frames*S) bool: which keys a query of a chunk may see."""
    frame = torch.arange(size, device=device)[:, None]
    if own:
        offset = torch.arange(window + size - 1, device=device)[None, :]
        same = frame == torch.arange(size, device=device)[None, :]
        visible = torch.cat([(offset >= frame) & (offset < frame + window), same], dim=1)
    else:
        offset = torch.arange(window + size, device=device)[None, :]
        visible = (offset >= frame) & (offset <= frame + window)
    return visible.repeat_interleave(tokens, dim=0).repeat_interleave(tokens, dim=1)
