"""One layer: memory, memory of places, local attention, MLP, each a residual branch behind AdaLN-zero.

The memory is the block-wise scan; in baselines there is none, or full attention over all past frames. The
memory of places is optional.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from lssvwm_agents.worldmodel.attention import FrameAttention
from lssvwm_agents.worldmodel.config import BackboneConfig, Odometry
from lssvwm_agents.worldmodel.full_attention import FrameCache, FullAttention
from lssvwm_agents.worldmodel.place_memory import PlaceMemory
from lssvwm_agents.worldmodel.place_regression import PlaceState
from lssvwm_agents.worldmodel.ssm import BlockScan
from lssvwm_agents.worldmodel.state import LayerState


class Stream(NamedTuple):
    """Tokens (B,T,h,w,D) of frames, their conditioning (B,T,K) and places (B,T,Q+1) or None."""

    tokens: torch.Tensor
    conditioning: torch.Tensor
    place: torch.Tensor | None


class Layer(nn.Module):
    """Updates a writing stream and a reading stream (either may be absent) and the layer's memory."""

    def __init__(
        self,
        config: BackboneConfig,
        block: int,
        grid: tuple[int, int],
        odometry: tuple[Odometry, int] = ("vector", 0),
        index: int = 0,
    ) -> None:
        super().__init__()
        self.width, self.grid = config.width, grid
        self.scan = BlockScan(config, block, grid, odometry) if config.memory == "block_scan" else None
        self.full_attention = FullAttention(config) if config.memory == "full_attention" else None
        self.place_memory = PlaceMemory(config, index, grid, *odometry) if config.place_features else None
        self.branches = 3 + (self.place_memory is not None)
        self.attention = FrameAttention(config)
        inner = int(config.mlp_ratio * config.width)
        self.mlp = nn.Sequential(
            nn.Linear(config.width, inner), nn.GELU(approximate="tanh"), nn.Linear(inner, config.width)
        )
        self.modulation = nn.Linear(config.conditioning_width, 3 * self.branches * config.width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def initial_state(self, batch: int, like: torch.Tensor) -> LayerState:
        """The memory of ``batch`` fresh episodes: zeros."""
        tokens = self.grid[0] * self.grid[1]
        scan: torch.Tensor | FrameCache
        scan = angle = like.new_zeros(batch, 0)
        if self.scan is not None:
            scan, angle = self.scan.initial_state(batch, like)
        elif self.full_attention is not None:
            scan = self.full_attention.initial_state(batch, tokens, like)
        keys = self.attention.initial_state(batch, tokens, like)
        place = PlaceState(like.new_zeros(batch, 0), like.new_zeros(batch, 0))
        if self.place_memory is not None:
            place = self.place_memory.initial_state(batch, like)
        return LayerState(scan, angle, keys, torch.zeros_like(keys), place)

    def forward(
        self, write: Stream | None, read: Stream | None, state: LayerState
    ) -> tuple[Stream | None, Stream | None, LayerState]:
        """Run all branches on both streams."""
        w = _Branches(write, self.modulation, self.width, self.branches) if write is not None else None
        r = _Branches(read, self.modulation, self.width, self.branches) if read is not None else None
        scan, angle, keys, values = state.scan, state.angle, state.keys, state.values
        if self.scan is not None:
            out_w, out_r, scan, angle = self.scan(
                _enter(w, 0), _enter(r, 0), scan, angle, _place(write), _place(read)
            )
            _leave(w, out_w, 0)
            _leave(r, out_r, 0)
        elif self.full_attention is not None:
            out_w, out_r, scan = self.full_attention(_enter(w, 0), _enter(r, 0), scan)
            _leave(w, out_w, 0)
            _leave(r, out_r, 0)
        place = state.place
        if self.place_memory is not None:
            out_w, out_r, place = self.place_memory(
                _enter(w, 3), _enter(r, 3), place, _place(write), _place(read)
            )
            _leave(w, out_w, 3)
            _leave(r, out_r, 3)
        out_w, out_r, keys, values = self.attention(_enter(w, 1), _enter(r, 1), keys, values)
        _leave(w, out_w, 1)
        _leave(r, out_r, 1)
        for branches in (w, r):
            if branches is not None:
                branches.leave(self.mlp(branches.enter(2)), 2)
        return _stream(w), _stream(r), LayerState(scan, angle, keys, values, place)


class _Branches:
    """A stream on its way through a layer: normalise and modulate before a branch, gate and add after it."""

    def __init__(self, stream: Stream, modulation: nn.Linear, width: int, branches: int) -> None:
        self.tokens, self.width, self._stream = stream.tokens, width, stream
        modulated: torch.Tensor = modulation(stream.conditioning)
        self.parts = modulated[:, :, None, None, :].chunk(3 * branches, dim=-1)

    def enter(self, branch: int) -> torch.Tensor:
        shift, scale = self.parts[3 * branch], self.parts[3 * branch + 1]
        return F.rms_norm(self.tokens, (self.width,)) * (1 + scale) + shift

    def leave(self, out: torch.Tensor, branch: int) -> None:
        self.tokens = self.tokens + self.parts[3 * branch + 2] * out

    def stream(self) -> Stream:
        return self._stream._replace(tokens=self.tokens)


def _place(stream: Stream | None) -> torch.Tensor | None:
    return None if stream is None else stream.place


def _enter(branches: _Branches | None, branch: int) -> torch.Tensor | None:
    return None if branches is None else branches.enter(branch)


def _stream(branches: _Branches | None) -> Stream | None:
    return None if branches is None else branches.stream()


def _leave(branches: _Branches | None, out: torch.Tensor | None, branch: int) -> None:
    if branches is not None and out is not None:
        branches.leave(out, branch)
