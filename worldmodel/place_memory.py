"""A memory asked by place: every token holds a linear map from where the camera is to what it saw there.

It is a linear recurrence with a matrix state of constant size, as the block scan is, but learnt by recursive
least squares (`place_regression`): what is written takes back what earlier places would have said there,
whereas keys that are merely added (Mamba-2, linear attention) blur after a few dozen. With more places than
features the fit is the least-squares one, and recall of each gets worse. MesaNet (von Oswald et al. 2025,
arXiv 2506.05233) solves the same least squares for keys made of tokens, DeltaNet (Yang et al. 2024, arXiv
2406.06484) follows its gradient; here the keys are places, so that all tokens of a view share one solution.

Shape legend: B batch  T frames  Q numbers of a place  N features  S tokens of a frame  V value channels
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from lssvwm_agents.worldmodel.config import BackboneConfig, Odometry
from lssvwm_agents.worldmodel.forked_place import ForkedPlace, forked_learn, forked_recall
from lssvwm_agents.worldmodel.place import PlaceFeatures
from lssvwm_agents.worldmodel.place_regression import PlacePrior, PlaceState, Said, learn, recall

LEAST_NOVELTY = 1e-4


class PlaceMemory(nn.Module):
    """Memory branch of layer ``index``, for a ``grid`` of (h, w) tokens.

    The first layer's is sharp and trusts every sighting, the last one's smooth and careful.
    """

    def __init__(
        self, config: BackboneConfig, index: int, grid: tuple[int, int], kind: Odometry, proprio_dim: int
    ) -> None:
        super().__init__()
        self.grid, self.values = grid, config.place_values
        share = index / max(1, config.num_layers - 1)
        length, ridge = (_between(ends, share) for ends in (config.place_lengths, config.place_ridges))
        self.features = PlaceFeatures(config.place_features, length, kind, proprio_dim)
        self.prior = PlacePrior(ridge, -math.log(2.0) / config.place_half_life_frames)
        self.project_in = nn.Linear(config.width, 2 * self.values, bias=False)
        self.gate_novelty = nn.Parameter(torch.zeros(2, self.values))
        self.project_out = nn.Linear(self.values, config.width, bias=False)

    def initial_state(self, batch: int, like: torch.Tensor) -> PlaceState:
        """Nothing known of any place."""
        dtype = torch.promote_types(like.dtype, torch.float32)
        size, tokens = self.features.size, self.grid[0] * self.grid[1]
        return PlaceState(
            like.new_zeros(batch, tokens, self.values, size, dtype=dtype),
            like.new_zeros(batch, size, size, dtype=dtype),
        )

    def forward(
        self,
        write: torch.Tensor | None,
        read_only: torch.Tensor | None,
        state: PlaceState | ForkedPlace,
        write_place: torch.Tensor | None,
        read_place: torch.Tensor | None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, PlaceState | ForkedPlace]:
        """Say what is known of each frame's place before it; then learn the writing frames.

        Args:
            write: (B,T,h,w,D) tokens that enter memory, or None.
            read_only: (B,T,h,w,D) tokens; those of frame t see memory as it stood after the writes of frame
                t-1. Without ``write``, T must be 1.
            state: What is known; of forks T must be 1.
            write_place: (B,T,Q+1) places of the writing frames.
            read_place: (B,T,Q+1) of the reading ones; the very same tensor saves work.

        Returns:
            The two streams' outputs (or None), and the new state.
        """
        if write is None:
            assert read_only is not None and read_place is not None and read_only.shape[1] == 1
            with torch.autocast(read_only.device.type, enabled=False):
                phi = self.features(read_place)
                if isinstance(state, ForkedPlace):
                    said = forked_recall(phi, state)
                else:
                    said = recall(phi, state, self.prior)
            return None, self._finish(self._split(read_only)[1], said), state
        assert write_place is not None
        v, gate = self._split(write)
        with torch.autocast(write.device.type, enabled=False):
            phi, asked = self.features(write_place), None
            if isinstance(state, ForkedPlace):
                assert read_only is None
                said, state = forked_learn(v, phi, state)
                read = said
            else:
                if read_only is not None and read_place is not write_place:
                    assert read_place is not None
                    asked = self.features(read_place)
                said, read, state = learn(v, phi, asked, state, self.prior)
        out_read = None if read_only is None else self._finish(self._split(read_only)[1], read)
        return self._finish(gate, said), out_read, state

    def _split(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B,T,h,w,D) -> values and gate (B,T,S,V)."""
        values, gate = self.project_in(tokens.flatten(2, 3)).chunk(2, dim=-1)
        return values, gate

    def _finish(self, gate: torch.Tensor, said: Said) -> torch.Tensor:
        """Gate (B,T,S,V) and what was said -> (B,T,h,w,D). The gate knows how new the place is."""
        novelty = torch.stack([said.novelty, torch.log(said.novelty.clamp(min=LEAST_NOVELTY))], dim=-1)
        gate = gate + (novelty.to(gate.dtype) @ self.gate_novelty.to(gate.dtype))[:, :, None]
        out: torch.Tensor = self.project_out(said.values.to(gate.dtype) * F.silu(gate))
        return torch.unflatten(out, 2, self.grid)


def _between(ends: tuple[float, float], share: float) -> float:
    """From the first (share 0) to the second (1), in equal ratios."""
    ratio: float = (ends[1] / ends[0]) ** share
    return ends[0] * ratio
