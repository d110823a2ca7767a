import contextlib
import json
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from separate_processes import pipe, start

from lssvwm_agents.data import Episode, EpisodeStore, StoreSpec
from lssvwm_agents.errors import StoreError

SPEC = StoreSpec("tests/None-v0", frame_shape=(8, 8, 3), num_actions=6, proprio_dim=4)


def episode(length: int, seed: int = 0, spec: StoreSpec = SPEC) -> Episode:
    rng = np.random.default_rng(seed)
    return Episode(
        frames=rng.integers(0, 256, (length, *spec.frame_shape), dtype=np.uint8),
        actions=rng.integers(0, 6, (length, *spec.action_shape)).astype(spec.action_dtype),
        rewards=rng.normal(size=length).astype(np.float32),
        terminated=np.arange(length) == length - 1,
        truncated=np.zeros(length, bool),
        proprio=rng.normal(size=(length, spec.proprio_dim)).astype(np.float32),
        seed=seed,
    )


def same(one: Episode, other: Episode) -> bool:
    pairs = zip(one.arrays().values(), other.arrays().values(), strict=True)
    return one.seed == other.seed and all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


@settings(max_examples=12, deadline=None)
@given(lengths=st.lists(st.integers(1, 120), max_size=5), reopen=st.booleans())
def test_what_was_appended_is_read(tmp_path_factory, lengths: list[int], reopen: bool) -> None:
    path = tmp_path_factory.mktemp("store") / "episodes"
    store = EpisodeStore.create(path, SPEC)
    for number, length in enumerate(lengths):
        assert store.append(episode(length, number)) == number
        if reopen:
            store.close()
            store = EpisodeStore.open(path)
    for opened in (store, EpisodeStore.open(path)):
        assert opened.spec == SPEC
        assert opened.num_episodes == len(lengths) and opened.num_frames == sum(lengths)
        assert opened.lengths.tolist() == lengths and opened.seeds.tolist() == list(range(len(lengths)))
        assert all(same(got, episode(len(got), number)) for number, got in enumerate(opened))


@pytest.mark.parametrize(
    "spec",
    [
        replace(SPEC, proprio_dim=0),
        replace(
            SPEC,
            action_shape=(2,),
            action_dtype="float32",
            num_actions=0,
            action_low=(-1, -1),
            action_high=(1, 1),
        ),
    ],
)
def test_other_actions_and_no_proprio(tmp_path: Path, spec: StoreSpec) -> None:
    EpisodeStore.create(tmp_path / "s", spec).append(episode(60, 1, spec))
    store = EpisodeStore.open(tmp_path / "s")
    assert store.spec == spec and store.spec.action_dim == (6 if spec.num_actions else 2)
    assert same(store.episode(0), episode(60, 1, spec))


def test_zarr_alone_reads_it(tmp_path: Path) -> None:
    EpisodeStore.create(tmp_path / "s", SPEC).append(episode(60))
    group = zarr.open_group(tmp_path / "s", mode="r")
    assert np.array_equal(group["frames"][:], episode(60).frames)
    assert group.attrs["versions"]["zarr"] == zarr.__version__


def test_chunks_lie_flat_and_a_folder_for_each_is_read_as_well(tmp_path: Path, monkeypatch) -> None:
    EpisodeStore.create(tmp_path / "flat", SPEC).append(episode(120))
    assert not any(file.is_dir() for file in (tmp_path / "flat" / "frames").iterdir())
    monkeypatch.setattr("lssvwm_agents.data.store.CHUNK_NAMES", {"name": "default", "separator": "/"})
    EpisodeStore.create(tmp_path / "nested", SPEC).append(episode(120))
    assert (tmp_path / "nested" / "frames" / "c" / "2" / "0" / "0" / "0").is_file()
    monkeypatch.undo()
    nested = EpisodeStore.open(tmp_path / "nested")
    nested.append(episode(70, 1))
    assert same(nested.episode(0), episode(120)) and same(nested.episode(1), episode(70, 1))


def test_one_writer_at_a_time_and_none_loses_what_the_other_wrote(tmp_path: Path) -> None:
    first, second = EpisodeStore.create(tmp_path / "s", SPEC), EpisodeStore.open(tmp_path / "s")
    first.append(episode(3, 1))
    with pytest.raises(StoreError, match="Another process is appending"):
        second.append(episode(4, 2))
    first.close()
    assert second.append(episode(4, 2)) == 1
    assert EpisodeStore.open(tmp_path / "s").seeds.tolist() == [1, 2]


def write_until_killed(path: Path, told: Connection) -> None:
    store = EpisodeStore.open(path)
    for seed in range(store.num_episodes, 10_000):
        store.append(episode(20 + seed % 70, seed))
        told.send(seed)


def test_killed_at_any_moment_it_loses_no_finished_episode(tmp_path: Path) -> None:
    path = tmp_path / "s"
    EpisodeStore.create(path, SPEC)
    for attempt in range(4):
        heard, told = pipe()
        process = start(write_until_killed, path, told)
        told.close()  # the writer's is the only one left
        last = [heard.recv() for _ in range(5)][-1]
        time.sleep(0.0037 * attempt)
        process.kill()
        process.join()
        with contextlib.suppress(EOFError, OSError):  # the end, maybe in the middle of a number
            while True:
                last = heard.recv()
        store = EpisodeStore.open(path)
        assert store.num_episodes >= last + 1 >= 5
        for seed, got in enumerate(store):
            assert same(got, episode(20 + seed % 70, seed))
    number = EpisodeStore.open(path).append(episode(33, 12345))
    assert same(EpisodeStore.open(path).episode(number), episode(33, 12345))


def test_garbage_of_an_unfinished_episode_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "s"
    store = EpisodeStore.create(path, SPEC)
    store.append(episode(60, 0))
    store.append(episode(170, 1))
    index = np.load(path / "index.npy")
    np.save(path / "index.npy", index[:1])  # as if killed before the index was replaced
    store.close()
    store = EpisodeStore.open(path)
    short = replace(episode(70, 2), frames=np.zeros((70, 8, 8, 3), np.uint8))
    store.append(short)
    reopened = EpisodeStore.open(path)
    assert reopened.num_episodes == 2
    assert same(reopened.episode(0), episode(60, 0)) and same(reopened.episode(1), short)


def test_episodes_that_do_not_fit(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "s", SPEC)
    for bad, words in [
        (
            episode(5, spec=replace(SPEC, frame_shape=(16, 16, 3))),
            r"frames of shape \(8, 8, 3\), got \(16, 16, 3\)",
        ),
        (episode(5, spec=replace(SPEC, action_dtype="float32")), "actions of dtype int64, got float32"),
        (episode(5, spec=replace(SPEC, action_shape=(2,))), r"actions of shape \(\), got \(2,\)"),
        (episode(5, spec=replace(SPEC, proprio_dim=2)), "proprio of width 4, got 2"),
    ]:
        with pytest.raises(StoreError, match=words):
            store.append(bad)
    assert store.num_episodes == 0


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("frames", np.zeros((5, 8, 8, 3), np.float32), "`frames` must be"),
        ("frames", np.zeros((0, 8, 8, 3), np.uint8), "at least its reset frame"),
        ("frames", np.zeros((5, 8, 8, 1), np.uint8), "`frames` must be"),
        ("rewards", np.zeros(4, np.float32), "`rewards` must be"),
        ("rewards", np.zeros(5, np.float64), "`rewards` must be"),
        ("rewards", np.full(5, np.nan, np.float32), "finite"),
        ("terminated", np.zeros(5, np.int64), "`terminated` must be"),
        ("truncated", np.zeros(6, bool), "`truncated` must be"),
        ("proprio", np.zeros(5, np.float32), "`proprio` must be"),
        ("actions", np.zeros(6, np.int64), "`actions` must be"),
    ],
)
def test_wrong_episodes(name: str, value: np.ndarray, words: str) -> None:
    with pytest.raises(StoreError, match=words):
        replace(episode(5), **{name: value})


def mix_sizes(path: Path) -> None:
    file = path / "frames" / "zarr.json"
    described = json.loads(file.read_text())
    described["shape"] = [described["shape"][0], 32, 32, 3]
    file.write_text(json.dumps(described))


def damage_chunk(path: Path) -> None:
    chunk = path / "frames" / "c.0.0.0.0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 255
    chunk.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "damage",
    [
        damage_chunk,
        mix_sizes,
        lambda path: (path / "frames" / "c.0.0.0.0").unlink(),
        lambda path: (path / "index.npy").unlink(),
        lambda path: (path / "index.npy").write_bytes(b"x"),
        lambda path: np.save(path / "index.npy", np.zeros((3, 2))),
        lambda path: np.save(path / "index.npy", np.array([[0, 999, 0, 0]])),
        lambda path: (path / "zarr.json").write_text("{"),
        lambda path: (path / "rewards" / "zarr.json").unlink(),
    ],
)
def test_damaged_stores(tmp_path: Path, damage) -> None:
    EpisodeStore.create(tmp_path / "s", SPEC).append(episode(60))
    damage(tmp_path / "s")
    with pytest.raises(StoreError, match="is damaged") as caught:
        EpisodeStore.open(tmp_path / "s").episode(0)
    assert "\n" not in str(caught.value)


def test_foreign_stores(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="There is no episode store at"):
        EpisodeStore.open(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="is not an episode store"):
        EpisodeStore.open(tmp_path)
    zarr.create_group(tmp_path / "other").create_array("frames", shape=(5,), dtype="int64")
    with pytest.raises(StoreError, match="is not an episode store"):
        EpisodeStore.open(tmp_path / "other")
    with pytest.raises(StoreError, match="exists already"):
        EpisodeStore.create(tmp_path / "other", SPEC)
    EpisodeStore.create(tmp_path / "s", SPEC)
    content = json.loads((tmp_path / "s" / "zarr.json").read_text())
    content["attributes"]["format_version"] = 99
    (tmp_path / "s" / "zarr.json").write_text(json.dumps(content))
    with pytest.raises(StoreError, match="format version 99"):
        EpisodeStore.open(tmp_path / "s")
