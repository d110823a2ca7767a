"""What the world model remembers: tensors of constant size, carried in the open.

(The baseline with full attention is the one exception: its cache grows with every frame.) All tensors lead
with the batch. The state of a fresh episode is all zeros, so that forgetting is a multiplication by zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch.utils import _pytree as pytree

from lssvwm_agents.worldmodel.forked_place import MAX_FRAMES, ForkedPlace, fork_place
from lssvwm_agents.worldmodel.forked_scan import MAX_TOKENS, ForkedScan, fork_scan
from lssvwm_agents.worldmodel.full_attention import FrameCache
from lssvwm_agents.worldmodel.place_regression import PlacePrior, PlaceState

ScanMemory = torch.Tensor | ForkedScan


@dataclass(frozen=True)
class LayerState:
    """Memory of one layer.

    Attributes:
        scan: (B, num_blocks, H, P, N) state of every block's recurrence, or forks of one; (B, 0) without
            memory; the cache of all frames with full attention.
        angle: (B, num_blocks, H, N/2) running rotation in radians; last size 0 unless ``rotary_ssd``.
        keys: (B, k, h*w, heads, d) keys of the last k frames, oldest first; zero before the episode began.
        values: (B, k, h*w, heads, d).
        place: What the layer knows of places, or forks of it; (B, 0) tensors without such a memory.
    """

    scan: ScanMemory | FrameCache
    angle: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    place: PlaceState | ForkedPlace


@dataclass(frozen=True)
class WorldState:
    """Everything the world model remembers of ``B`` episodes.

    Attributes:
        features: (B, F) features of the last frame.
        proprio: (B, P) odometry of the last frame; P may be 0.
        proprio_known: (B,) 1 where that odometry was given or predicted from a given one, else 0.
        latent: (B, C, h, w) of the last frame, for visual odometry and for policies.
        layers: One :class:`LayerState` per layer.
    """

    features: (
        torch.Tensor
    )  # first: forks share the tensors in their layers, and the first leaf tells the batch size
    proprio: torch.Tensor
    proprio_known: torch.Tensor
    latent: torch.Tensor
    layers: tuple[LayerState, ...]

    @property
    def batch_size(self) -> int:
        """Number of episodes ``B``."""
        return self.features.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes held; grows with the number of frames seen only with full attention."""
        return sum(leaf.nbytes for leaf in pytree.tree_leaves(self))

    def fork(self, n: int, groups: tuple[int, ...], priors: tuple[PlacePrior | None, ...]) -> WorldState:
        """As :meth:`repeat`, but the forks share long memory instead of copying it (a cache is copied).

        Args:
            n: Forks of every row.
            groups: Groups ``G`` of every layer's scan; 0 for a layer without.
            priors: Of every layer's memory of places; None for a layer without.
        """
        own = self.materialise()
        return WorldState(
            features=_repeat(own.features, n),
            proprio=_repeat(own.proprio, n),
            proprio_known=_repeat(own.proprio_known, n),
            latent=_repeat(own.latent, n),
            layers=tuple(
                _fork(layer, n, group, prior)
                for layer, group, prior in zip(own.layers, groups, priors, strict=True)
            ),
        )

    def materialise(self, only_long: bool = False) -> WorldState:
        """Give every fork a private memory (with ``only_long``, only where that is cheaper by now)."""

        def private(layer: LayerState) -> LayerState:
            scan, place = layer.scan, layer.place
            if isinstance(scan, ForkedScan) and not (only_long and scan.level.shape[-1] < MAX_TOKENS):
                layer = replace(layer, scan=scan.materialise())
            if isinstance(place, ForkedPlace) and not (only_long and place.frames < MAX_FRAMES):
                layer = replace(layer, place=place.materialise())
            return layer

        return replace(self, layers=tuple(private(layer) for layer in self.layers))

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> WorldState:
        """Apply ``function`` to every tensor."""
        mapped: WorldState = pytree.tree_map(function, self)
        return mapped

    def repeat(self, n: int) -> WorldState:
        """Fork every row n times: row b becomes rows b*n .. b*n+n-1."""
        return _repeat(self.materialise(), n)

    def select(self, index: torch.Tensor) -> WorldState:
        """Rows ``index`` (int64), in that order."""
        return self.materialise().map(lambda leaf: leaf.index_select(0, index.to(leaf.device)))

    def reset(self, mask: torch.Tensor) -> WorldState:
        """Forget the episodes where ``mask`` (B,) is True."""
        keep = ~mask.to(self.features.device).bool()
        return self.materialise().map(
            lambda leaf: torch.where(_column(keep, leaf), leaf, torch.zeros_like(leaf))
        )

    def detach(self) -> WorldState:
        """The same state, cut from the autograd graph."""
        return self.map(torch.Tensor.detach)

    def to(self, device: torch.device | str) -> WorldState:
        """The same state on another device."""
        return self.map(lambda leaf: leaf.to(device))


_Tree = TypeVar("_Tree")


def _repeat(tree: _Tree, n: int) -> _Tree:
    repeated: _Tree = pytree.tree_map(lambda leaf: leaf.repeat_interleave(n, dim=0), tree)
    return repeated


def _fork(layer: LayerState, n: int, groups: int, prior: PlacePrior | None) -> LayerState:
    scan: ScanMemory | FrameCache
    if groups:
        assert isinstance(layer.scan, torch.Tensor)
        scan = fork_scan(layer.scan, n, groups)
    else:
        scan = _repeat(layer.scan, n)
    assert isinstance(layer.place, PlaceState)
    place = _repeat(layer.place, n) if prior is None else fork_place(layer.place, n, prior)
    return LayerState(
        scan=scan,
        angle=_repeat(layer.angle, n),
        keys=_repeat(layer.keys, n),
        values=_repeat(layer.values, n),
        place=place,
    )


def _column(mask: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
    return mask.reshape(-1, *([1] * (leaf.ndim - 1)))


def _register(cls: type[Any], constant: tuple[str, ...] = ()) -> None:
    names = [f.name for f in fields(cls) if f.name not in constant]
    pytree.register_pytree_node(
        cls,
        lambda node: ([getattr(node, name) for name in names], [getattr(node, name) for name in constant]),
        lambda children, kept: cls(**dict(zip((*names, *constant), (*children, *kept), strict=True))),
        serialized_type_name=f"lssvwm_agents.{cls.__name__}",
    )


_register(FrameCache)
_register(PlaceState)
_register(ForkedScan, constant=("forks",))
_register(ForkedPlace, constant=("forks", "prior"))
_register(LayerState)
_register(WorldState)
