"""Contexts of imagined episodes, read from an episode store."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lssvwm_agents.data.episode import Episode
from lssvwm_agents.data.latents import actions_to_float
from lssvwm_agents.data.store import EpisodeStore
from lssvwm_agents.data.store_spec import StoreSpec
from lssvwm_agents.envs.contexts import Context
from lssvwm_agents.errors import StoreError
from lssvwm_agents.seeding import fold_in


class StoreContexts:
    """Windows of recorded episodes, anywhere in them but at the very end, where nothing is left to imagine.

    Args:
        path: Folder of an episode store.
        num_frames: Frames ``T`` of each context.

    Raises:
        StoreError: If there is no such store, or no episode is longer than ``num_frames``.
    """

    def __init__(self, path: str | Path, num_frames: int = 64) -> None:
        if num_frames < 1:
            raise ValueError(f"`num_frames` of a context must be at least 1, got {num_frames}.")
        self.path, self.num_frames = Path(path), num_frames
        if not len(self._long_enough):
            raise StoreError(
                f"Contexts of {num_frames} frames need an episode of more, but the longest of "
                f"`{path}` has {int(self._store.lengths.max(initial=0))}."
            )

    def __reduce__(self) -> tuple[type[StoreContexts], tuple[Path, int]]:
        """A worker opens the store for itself."""
        return type(self), (self.path, self.num_frames)

    @cached_property
    def _store(self) -> EpisodeStore:
        return EpisodeStore.open(self.path)

    @cached_property
    def _long_enough(self) -> NDArray[np.int64]:
        return np.flatnonzero(self._store.lengths > self.num_frames)

    @property
    def spec(self) -> StoreSpec:
        """What the store's episodes have in common."""
        return self._store.spec

    def draw(self, seeds: torch.Tensor) -> Context:
        """One window for each of ``seeds`` (B,) int64."""
        windows = [self._window(seed) for seed in seeds.tolist()]
        frames, actions, known, proprio = (
            torch.from_numpy(np.stack(parts)) for parts in zip(*windows, strict=True)
        )
        return Context(frames, actions, known, proprio if proprio.shape[-1] else None)

    def _window(
        self, seed: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]:
        which = fold_in(seed, 0) % len(self._long_enough)
        episode: Episode = self._store.episode(int(self._long_enough[which]))
        start = fold_in(seed, 1) % (len(episode) - self.num_frames)
        window = slice(start, start + self.num_frames)
        known = np.arange(len(episode)) > 0
        actions = actions_to_float(episode.actions, self.spec.num_actions or None)
        return episode.frames[window], actions[window], known[window], episode.proprio[window]
