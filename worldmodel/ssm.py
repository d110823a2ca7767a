"""Block-wise state-space memory: every block of the token grid is a sequence through time with its own state.

The projections are Mamba-2's (arXiv 2405.21060); ``rotary_ssd`` adds Mamba-3's data-dependent rotation of B
and C, ``normalise_keys`` its normalisation of them. There is no short convolution (a reading token must not
see other noisy tokens, and local attention does its work), and with it goes the activation on b and c: keys
of either sign can be told apart more sharply.

Glossary: ``x`` the values written, ``z`` the output gate, ``b`` the key written at, ``c`` the key read at,
``dt`` the step.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from lssvwm_agents.worldmodel import rotary
from lssvwm_agents.worldmodel.blocks import from_blocks, num_blocks, to_blocks
from lssvwm_agents.worldmodel.config import BackboneConfig, Odometry
from lssvwm_agents.worldmodel.forked_scan import ForkedScan, forked_read, forked_write
from lssvwm_agents.worldmodel.fused import rms_norm
from lssvwm_agents.worldmodel.place import PlaceRotation
from lssvwm_agents.worldmodel.scan import Backend, Writes, read, scan
from lssvwm_agents.worldmodel.state import ScanMemory


class _Parts(NamedTuple):
    z: torch.Tensor  # (R,L,H*P)
    x: torch.Tensor  # (R,L,H,P)
    b: torch.Tensor  # (R,L,G,N)
    c: torch.Tensor  # (R,L,G,N)
    dt: torch.Tensor  # (R,L,H), before softplus
    turn: torch.Tensor | None  # (R,L,H,N/2), rotation increments in radians


class BlockScan(nn.Module):
    """Memory of one layer, for blocks of ``block`` x ``block`` tokens on a ``grid`` of (h, w) tokens."""

    def __init__(
        self,
        config: BackboneConfig,
        block: int,
        grid: tuple[int, int],
        odometry: tuple[Odometry, int] = ("vector", 0),
    ) -> None:
        super().__init__()
        self.block, self.grid = block, grid
        self.heads, self.head_dim, self.state_dim = config.num_heads, config.head_dim, config.state_dim
        self.rotary = config.recurrence == "rotary_ssd"
        self.groups = self.heads if self.rotary else config.num_groups
        self.backend: Backend = "auto"
        inner = self.heads * self.head_dim
        turns = self.heads * self.state_dim // 2 if self.rotary else 0
        self.sizes = [
            inner,
            inner,
            self.groups * self.state_dim,
            self.groups * self.state_dim,
            self.heads,
            turns,
        ]
        self.project_in = nn.Linear(config.width, sum(self.sizes), bias=False)
        self.project_out = nn.Linear(inner, config.width, bias=False)
        self.norm = nn.RMSNorm(inner)
        self.skip = nn.Parameter(torch.ones(self.heads))
        a, dt_bias = _initial_decay(self.heads, config.half_life_frames, block * block)
        self.log_a = nn.Parameter(torch.log(a))
        self.dt_bias = nn.Parameter(dt_bias)
        self.half_life_factor = config.half_life_factor
        if self.half_life_factor:  # the rates stay, and the steps stay near their initial ones
            self.log_a.requires_grad_(False)
            self.dt_bias.requires_grad_(False)
        self.key_scale: nn.Parameter | None = None
        if config.normalise_keys:
            self.key_scale = nn.Parameter(torch.ones(2, self.groups, self.state_dim))
        self.place: PlaceRotation | None = None
        if config.place_keys:
            self.place = PlaceRotation(self.groups, self.state_dim // 2, *odometry, block)
            self.key_bias = nn.Parameter(torch.ones(2, self.groups, self.state_dim))
        if turns:
            with torch.no_grad():  # begin close to no rotation
                self.project_in.weight[-turns:] *= 0.1

    def initial_state(self, batch: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Zero state (B, num_blocks, H, P, N) and angle (B, num_blocks, H, N/2 or 0)."""
        blocks = num_blocks(self.block, self.grid)
        pairs = self.state_dim // 2 if self.rotary else 0
        dtype = torch.promote_types(like.dtype, torch.float32)
        state = like.new_zeros(batch, blocks, self.heads, self.head_dim, self.state_dim, dtype=dtype)
        return state, like.new_zeros(batch, blocks, self.heads, pairs, dtype=dtype)

    def forward(
        self,
        write: torch.Tensor | None,
        read_only: torch.Tensor | None,
        state: ScanMemory,
        angle: torch.Tensor,
        write_place: torch.Tensor | None = None,
        read_place: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, ScanMemory, torch.Tensor]:
        """Scan the writing tokens; answer the reading ones.

        Args:
            write: (B,T,h,w,D) tokens that enter memory, or None.
            read_only: (B,T,h,w,D) tokens; those of frame t see memory as it stood after the writes of frame
                t-1. Without ``write``, T must be 1.
            state: (B, num_blocks, H, P, N), or forks of one (then T must be 1).
            angle: (B, num_blocks, H, N/2 or 0).
            write_place: (B,T,Q+1) places of the writing frames, for place keys.
            read_place: (B,T,Q+1) places of the reading frames.

        Returns:
            The two streams' outputs (or None), the new state and the new angle.
        """
        start = angle.flatten(0, 1)
        if write is None:
            assert read_only is not None and read_only.shape[1] == 1
            parts = self._split(read_only, read_place)
            c = self._rotate_reads(parts, start[:, None, None])
            y = forked_read(c, state) if isinstance(state, ForkedScan) else read(c, state.flatten(0, 1))
            return None, self._finish(parts, y), state, angle

        parts = self._split(write, write_place)
        b, c, after = parts.b, parts.c, start
        before_frames = None
        if parts.turn is not None:
            running = rotary.running_angle(parts.turn, start)
            b, c = rotary.rotate(b, running), rotary.rotate(c, running)
            ends = running[:, self.block**2 - 1 :: self.block**2]
            before_frames = torch.cat([start[:, None], ends[:, :-1]], dim=1)[:, :, None]
            after = rotary.wrap(ends[:, -1])
        reads = None if read_only is None else self._split(read_only, read_place)
        c_read = None if reads is None else self._rotate_reads(reads, before_frames)
        writes = Writes(parts.x, self.step_sizes(parts.dt), b, c)
        rates = -torch.exp(self.log_a)
        after = torch.unflatten(after, 0, angle.shape[:2])
        if isinstance(state, ForkedScan):
            assert reads is None and write.shape[1] == 1
            y, forks = forked_write(writes, rates, state)
            return self._finish(parts, y), None, forks, after
        result = scan(
            writes,
            rates,
            state.flatten(0, 1),
            c_read=c_read,
            tokens_per_frame=self.block**2,
            backend=self.backend,
        )
        out = self._finish(parts, result.y)
        out_read = None
        if reads is not None and result.y_read is not None:
            out_read = self._finish(reads, result.y_read)
        return out, out_read, torch.unflatten(result.state, 0, state.shape[:2]), after

    def step_sizes(self, dt: torch.Tensor) -> torch.Tensor:
        """Steps of the recurrence in float32 at least: (...,H) -> (...,H).

        softplus(dt + bias); with bounded half-lives softplus(bias), by at most their factor more or less.
        """
        wide = torch.promote_types(dt.dtype, torch.float32)
        if self.half_life_factor:
            nearby = torch.exp(math.log(self.half_life_factor) * torch.tanh(dt.to(wide)))
            return F.softplus(self.dt_bias.to(wide)) * nearby
        return F.softplus(dt.to(wide) + self.dt_bias.to(wide))

    def _split(self, tokens: torch.Tensor, place: torch.Tensor | None) -> _Parts:
        z, x, b, c, dt, turn = self.project_in(to_blocks(tokens, self.block)).split(self.sizes, dim=-1)
        b, c = (torch.unflatten(key, -1, (self.groups, self.state_dim)) for key in (b, c))
        if self.key_scale is not None:
            scale = self.key_scale.to(b.dtype)
            b, c = (scale[i] * F.rms_norm(key, key.shape[-1:]) for i, key in enumerate((b, c)))
        if self.place is not None:
            assert place is not None
            blocks = num_blocks(self.block, self.grid)
            turned = self.place(place).repeat_interleave(blocks, dim=0)  # rows are (batch, block)
            bias = self.key_bias.to(b.dtype)
            b, c = rotary.rotate(b + bias[0], turned), rotary.rotate(c + bias[1], turned)
        return _Parts(
            z=z,
            x=torch.unflatten(F.silu(x), -1, (self.heads, self.head_dim)),
            b=b,
            c=c,
            dt=dt,
            turn=math.pi * torch.tanh(torch.unflatten(turn, -1, (self.heads, -1))) if self.rotary else None,
        )

    def _rotate_reads(self, parts: _Parts, before_frames: torch.Tensor | None) -> torch.Tensor:
        """Advance the phase by the reading frame's own turns, from (R, T, 1, H, N/2) before each frame."""
        if parts.turn is None:
            return parts.c
        assert before_frames is not None
        own = torch.unflatten(parts.turn, 1, (-1, self.block**2)).to(before_frames.dtype).cumsum(dim=2)
        return rotary.rotate(parts.c, (before_frames + own).flatten(1, 2))

    def _finish(self, parts: _Parts, y: torch.Tensor) -> torch.Tensor:
        y = y + self.skip[:, None].to(y.dtype) * parts.x
        gated = rms_norm(y.flatten(-2).to(parts.z.dtype) * F.silu(parts.z), self.norm.weight)
        return from_blocks(self.project_out(gated), self.block, self.grid)


def _initial_decay(
    heads: int, half_life_frames: tuple[float, float], tokens_per_frame: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decay rates (H,) and dt biases (H,) such that half-lives spread evenly in log-space over the heads."""
    shortest, longest = half_life_frames
    half_life = (
        torch.logspace(math.log10(shortest), math.log10(longest), heads) * tokens_per_frame
    )  # in tokens
    dt = torch.exp(torch.empty(heads).uniform_(math.log(0.02), math.log(0.1)))
    a = math.log(2.0) / (half_life * dt)
    return a, dt + torch.log(-torch.expm1(-dt))  # the inverse of softplus
