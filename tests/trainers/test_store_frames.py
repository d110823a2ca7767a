"""Which frames of a store the tokenizer is trained on."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lssvwm_agents.data import Episode, EpisodeStore, StoreSpec
from lssvwm_agents.trainers import training_data


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    """Eight episodes; every pixel of episode e is e."""
    spec = StoreSpec("tests/None-v0", frame_shape=(4, 4, 3), num_actions=2)
    with EpisodeStore.create(tmp_path / "store", spec) as store:
        for number in range(8):
            store.append(
                Episode(
                    frames=np.full((10, 4, 4, 3), number, np.uint8),
                    actions=np.zeros(10, np.int64),
                    rewards=np.zeros(10, np.float32),
                    terminated=np.zeros(10, bool),
                    truncated=np.arange(10) == 9,
                    proprio=np.zeros((10, 0), np.float32),
                )
            )
    return store


def test_frames_come_from_every_episode_and_of_very_many_from_some(store: EpisodeStore, monkeypatch) -> None:
    def shown(episodes: range) -> dict[int, int]:
        frames = training_data.stored_frames(store, episodes, 12, seed=0)
        assert frames.shape == (12, 4, 4, 3)
        found, counts = frames[:, 0, 0, 0].unique(return_counts=True)
        return dict(zip(found.tolist(), counts.tolist(), strict=True))

    assert shown(range(6)) == {number: 2 for number in range(6)}
    monkeypatch.setattr(training_data, "POOL_EPISODES", 3)
    assert shown(range(6)) == {0: 4, 2: 4, 4: 4}
    assert shown(range(1, 6)) == {1: 3, 2: 3, 3: 3, 4: 3}


def test_half_of_the_frames_are_flipped_where_mirror_images_are_learnt(tmp_path: Path) -> None:
    spec = StoreSpec("lssvwm/RaycastMaze-7x7-v0", frame_shape=(4, 4, 3), num_actions=6)
    columns = np.broadcast_to(np.arange(4, dtype=np.uint8)[:, None], (10, 4, 4, 3)).copy()
    columns[..., 2] = np.arange(10)[:, None, None]
    with EpisodeStore.create(tmp_path / "store", spec) as store:
        for _ in range(4):
            store.append(
                Episode(
                    frames=columns,
                    actions=np.zeros(10, np.int64),
                    rewards=np.zeros(10, np.float32),
                    terminated=np.zeros(10, bool),
                    truncated=np.arange(10) == 9,
                    proprio=np.zeros((10, 0), np.float32),
                )
            )
    plain = training_data.stored_frames(store, range(4), 20, seed=0)
    mirrored = training_data.stored_frames(store, range(4), 20, seed=0, mirror=True)
    flipped = mirrored[:, 0, 0, 0] == 3
    assert int(flipped.sum()) == 10 and 0 < int(flipped[:10].sum()) < 10
    assert torch.equal(torch.where(flipped[:, None, None, None], mirrored.flip(2), mirrored), plain)
