"""Episodes and stores for tests of the data's formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lssvwm_agents.data import Episode, EpisodeStore, StoreSpec


def episode(
    length: int, seed: int = 0, discrete: bool = True, proprio_dim: int = 3, size: int = 16
) -> Episode:
    """Random in every number, with the null action and no reward at the reset."""
    draws = np.random.default_rng(seed)
    actions: Any = (
        draws.integers(0, 5, length) if discrete else draws.normal(size=(length, 2)).astype(np.float32)
    )
    actions[0] = 0
    rewards = draws.normal(size=length).astype(np.float32)
    rewards[0] = 0
    terminated, truncated = np.zeros(length, bool), np.zeros(length, bool)
    terminated[-1], truncated[-1] = length > 1 and seed % 2 == 0, length > 1 and seed % 2 == 1
    return Episode(
        frames=draws.integers(0, 256, (length, size, size, 3), np.uint8),
        actions=actions,
        rewards=rewards,
        terminated=terminated,
        truncated=truncated,
        proprio=draws.normal(size=(length, proprio_dim)).astype(np.float32),
        seed=seed,
    )


def store_of(path: Path, episodes: list[Episode], **known: Any) -> EpisodeStore:
    """A store of these episodes."""
    first = episodes[0]
    discrete = first.actions.ndim == 1
    spec = StoreSpec(
        **{
            "env_id": "lssvwm/RaycastMaze-7x7-v0",
            "env_kwargs": {"texture": "rich"},
            "policy": "forager",
            "frame_shape": first.frames.shape[1:],
            "action_shape": first.actions.shape[1:],
            "action_dtype": str(first.actions.dtype),
            "num_actions": 5 if discrete else 0,
            "action_low": () if discrete else (-4.0, -4.0),
            "action_high": () if discrete else (4.0, 4.0),
            "proprio_dim": first.proprio.shape[1],
            **known,
        }
    )
    with EpisodeStore.create(path, spec) as store:
        for one in episodes:
            store.append(one)
    return EpisodeStore.open(path)


def same_episodes(one: Any, other: Any) -> bool:
    """Bit for bit."""
    return [each.checksum() for each in one] == [each.checksum() for each in other]
