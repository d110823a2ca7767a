"""Episodes through the field's formats and back."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import pytest
from data_builders import episode, same_episodes, store_of
from gymnasium import spaces
from separate_processes import start

from lssvwm_agents.data import Episode, EpisodeStore
from lssvwm_agents.data.formats import ImportOptions, convert, open_source
from lssvwm_agents.data.formats.source import aligned
from lssvwm_agents.errors import StoreError, UserError

KINDS = [
    {"discrete": True, "proprio_dim": 3},
    {"discrete": False, "proprio_dim": 4},
    {"discrete": True, "proprio_dim": 0},
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("format_", ["minari", "folder", "store"])
def test_there_and_back_nothing_changes(tmp_path: Path, format_: str, kind: dict[str, Any]) -> None:
    if format_ == "minari":
        pytest.importorskip("minari")
        pytest.importorskip("h5py")
    store = store_of(tmp_path / "store", [episode(n, seed=n, **kind) for n in (2, 7, 60)])
    convert(store.path, tmp_path / "there", format_)
    convert(tmp_path / "there", tmp_path / "back", "store")
    back = EpisodeStore.open(tmp_path / "back")
    assert back.spec == store.spec
    assert same_episodes(back, store)


# --- Minari ---------------------------------------------------------------------------------------


def test_minari_itself_reads_what_we_write(tmp_path: Path) -> None:
    minari = pytest.importorskip("minari")
    pytest.importorskip("h5py")
    one = episode(6, seed=4)
    convert(store_of(tmp_path / "store", [one]).path, tmp_path / "minari", "minari")
    dataset = minari.MinariDataset(tmp_path / "minari" / "data")
    assert dataset.total_episodes == 1 and dataset.total_steps == 5
    assert dataset.action_space == spaces.Discrete(5)
    theirs = dataset[0]
    assert np.array_equal(theirs.observations["frame"], one.frames)
    assert np.array_equal(theirs.observations["proprio"], one.proprio)
    assert np.array_equal(theirs.actions, one.actions[1:]) and np.array_equal(theirs.rewards, one.rewards[1:])
    assert theirs.terminations.tolist() == one.terminated[1:].tolist()


def test_what_minari_collected_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minari = pytest.importorskip("minari")
    pytest.importorskip("h5py")
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    camera = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    space = spaces.Dict(
        robot=spaces.Dict(camera=camera, arm=spaces.Box(-1, 1, (2,))), goal=spaces.Box(-1, 1, (1,))
    )
    frames = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    arm, goal = np.linspace(0, 1, 8).reshape(4, 2), np.full((4, 1), 0.5)
    buffer = EpisodeBuffer(
        seed=3,
        observations={"robot": {"camera": frames, "arm": arm}, "goal": goal},
        actions=np.array([[0.1], [0.2], [0.3]]),
        rewards=[0.0, 0.0, 1.0],
        terminations=[False, False, True],
        truncations=[False] * 3,
    )
    minari.create_dataset_from_buffers(
        "test/arm-v0",
        [buffer],
        observation_space=space,
        action_space=spaces.Box(-1, 1, (1,), np.float64),
        data_format="hdf5",
        jpeg_encoding=False,
    )
    source = open_source("minari:test/arm-v0")
    (one,) = source.episodes()
    assert np.array_equal(one.frames, frames) and one.seed == 3
    assert one.actions.tolist() == [[0.0], [0.1], [0.2], [0.3]] and one.actions.dtype == np.float64
    assert one.rewards.tolist() == [0, 0, 0, 1] and one.terminated.tolist() == [False] * 3 + [True]
    assert np.allclose(one.proprio, np.concatenate([goal, arm], axis=1))  # as the spaces order their parts
    assert source.spec.action_low == (-1.0,) and source.spec.num_actions == 0
    (small,) = open_source("minari:test/arm-v0", ImportOptions(frame_size=4)).episodes()
    assert small.frames.shape == (4, 4, 4, 3)
    with pytest.raises(UserError, match="`frame_key` must be one of"):
        open_source("minari:test/arm-v0", ImportOptions(frame_key="wrist"))
    with pytest.raises(UserError, match="no Minari dataset"):
        open_source("minari:test/missing-v0")


# --- videos with tables ---------------------------------------------------------------------------


def write_recording(folder: Path, name: str, frames: np.ndarray, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(exist_ok=True)
    imageio.mimwrite(
        folder / f"{name}.mp4", list(frames), format="FFMPEG", fps=10, codec="libx264", macro_block_size=1
    )
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def grey(count: int) -> np.ndarray:
    return np.stack([np.full((16, 16, 3), 20 * t, np.uint8) for t in range(count)])


def test_other_people_s_videos_with_tables(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    for name in ("a", "b"):
        rows = [
            {
                "timestamp": t / 10,
                "action_0": t / 10,
                "action_1": -t / 10,
                "reward": t,
                "done": t == 4,
                "x": t,
            }
            for t in range(5)
        ]
        write_recording(folder, name, grey(5), rows)
    source = open_source(folder)
    first, _ = source.episodes()
    assert source.num_episodes == 2 and source.spec.num_actions == 0 and source.spec.action_dim == 2
    assert np.allclose(first.actions, [[0, 0], [0, 0], [0.1, -0.1], [0.2, -0.2], [0.3, -0.3]])
    assert first.rewards.tolist() == [
        0,
        0,
        1,
        2,
        3 + 4,
    ]  # what the last action earned counts for the last frame
    assert first.terminated.tolist() == [False] * 4 + [True]
    assert first.proprio[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert np.abs(first.frames.astype(int) - grey(5)).max() < 8  # what H.264 leaves of them
    convert(folder, tmp_path / "store")
    assert same_episodes(EpisodeStore.open(tmp_path / "store"), list(source.episodes()))


def test_whole_numbers_in_one_column_are_discrete_actions(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    write_recording(folder, "a", grey(4), [{"action": a} for a in (2, 0, 1, "")])
    source = open_source(folder)
    assert source.spec.num_actions == 3 and source.spec.proprio_dim == 0
    assert next(source.episodes()).actions.tolist() == [0, 2, 0, 1]
    assert open_source(folder, ImportOptions(num_actions=6)).spec.num_actions == 6
    with pytest.raises(StoreError, match="more than every action, got 2"):
        open_source(folder, ImportOptions(num_actions=2))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"action": 1}] * 3, "4 frames, but its table 3 lines"),
        ([{"speed": 1}] * 4, "no column `action`"),
        ([{"action": 0.5}, {"action": ""}, {"action": 0.5}, {"action": 0.5}], "empty action before"),
        ([{"action": "left"}] * 4, "`action` of .* no number"),
    ],
)
def test_tables_that_do_not_fit(tmp_path: Path, rows: list[dict[str, Any]], words: str) -> None:
    write_recording(tmp_path / "videos", "a", grey(4), rows)
    with pytest.raises(StoreError, match=words):
        convert(tmp_path / "videos", tmp_path / "store")
    assert not (tmp_path / "store").exists() and not list(tmp_path.glob(".store*"))


# --- LeRobot --------------------------------------------------------------------------------------


def lerobot_table(path: Path, numbers: list[int], lengths: list[int]) -> None:
    pq, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    path.parent.mkdir(parents=True, exist_ok=True)
    columns: dict[str, list[Any]] = {
        k: [] for k in ("action", "observation.state", "next.reward", "next.done")
    }
    columns |= {"episode_index": [], "frame_index": []}
    for number, length in zip(numbers, lengths, strict=True):
        for t in range(length):
            columns["action"].append([float(number), float(t)])
            columns["observation.state"].append([float(t)] * 3)
            columns["next.reward"].append(float(t == length - 1))
            columns["next.done"].append(t == length - 1)
            columns["episode_index"].append(number)
            columns["frame_index"].append(t)
    pq.write_table(pa.table(columns), path)


def lerobot(root: Path, version: int) -> None:
    """Two episodes of 4 and 3 frames, each frame as grey as its place in the recording."""
    pytest.importorskip("pyarrow")
    lengths, camera = [4, 3], "observation.images.top"
    info: dict[str, Any] = {
        "codebase_version": f"v{version}.0" if version == 3 else "v2.1",
        "total_episodes": 2,
        "fps": 10,
        "features": {camera: {"dtype": "video"}, "action": {"dtype": "float32"}},
    }
    if version == 2:
        info |= {
            "chunks_size": 1000,
            "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
            "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        }
        for number, length in enumerate(lengths):
            names = {"episode_chunk": 0, "episode_index": number, "video_key": camera}
            lerobot_table(root / info["data_path"].format(**names), [number], [length])
            video = root / info["video_path"].format(**names)
            video.parent.mkdir(parents=True, exist_ok=True)
            imageio.mimwrite(video, list(grey(length)), format="FFMPEG", fps=10, macro_block_size=1)
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        info |= {
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        }
        lerobot_table(root / "data/chunk-000/file-000.parquet", [0, 1], lengths)
        video = root / f"videos/{camera}/chunk-000/file-000.mp4"
        video.parent.mkdir(parents=True, exist_ok=True)
        both = np.concatenate([grey(4), grey(3)])
        imageio.mimwrite(video, list(both), format="FFMPEG", fps=10, macro_block_size=1)
        episodes = root / "meta/episodes/chunk-000/file-000.parquet"
        episodes.parent.mkdir(parents=True)
        zeros = {
            name: [0, 0]
            for part in ("data", f"videos/{camera}")
            for name in (f"{part}/chunk_index", f"{part}/file_index")
        }
        starts = {f"videos/{camera}/from_timestamp": [0.0, 0.4]}
        pq.write_table(pa.table({"episode_index": [0, 1], **zeros, **starts}), episodes)
    (root / "meta").mkdir(exist_ok=True)
    (root / "meta/info.json").write_text(json.dumps(info))


@pytest.mark.parametrize("version", [2, 3])
def test_lerobot_s_folders(tmp_path: Path, version: int) -> None:
    lerobot(tmp_path / "robot", version)
    source = open_source(tmp_path / "robot")
    first, second = source.episodes()
    assert (source.format, source.num_episodes) == ("lerobot", 2)
    assert (len(first), len(second)) == (4, 3)
    assert second.actions.tolist() == [[0, 0], [1, 0], [1, 1]]
    assert second.rewards.tolist() == [0, 0, 1] and second.terminated.tolist() == [False, False, True]
    assert second.proprio[:, 0].tolist() == [0, 1, 2]
    assert np.abs(second.frames.astype(int) - grey(3)).max() < 8
    convert(tmp_path / "robot", tmp_path / "store")
    assert same_episodes(EpisodeStore.open(tmp_path / "store"), [first, second])


def test_other_versions_of_lerobot_are_named(tmp_path: Path) -> None:
    lerobot(tmp_path / "robot", 2)
    info = tmp_path / "robot/meta/info.json"
    info.write_text(info.read_text().replace("v2.1", "v1.6"))
    with pytest.raises(UserError, match="version 1.6"):
        open_source(tmp_path / "robot")


# --- what all share -------------------------------------------------------------------------------


def test_steps_must_fit_the_frames() -> None:
    frames, zeros = np.zeros((3, 4, 4, 3), np.uint8), np.zeros
    with pytest.raises(StoreError, match="T=3 frames needs T or T - 1"):
        aligned(frames, zeros(5), zeros(5), zeros(5, bool), zeros(5, bool), None)


def test_what_is_nothing_known(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is no episode store"):
        open_source(tmp_path / "empty")
    with pytest.raises(UserError, match="There is no folder"):
        open_source(tmp_path / "missing")
    store = store_of(tmp_path / "store", [episode(3)])
    with pytest.raises(StoreError, match="exists already"):
        convert(store.path, tmp_path / "store", "folder")
    with pytest.raises(UserError, match="`to` must be one of"):
        convert(store.path, tmp_path / "out", "lerobot")
    with pytest.raises(UserError, match="takes no frame key"):
        open_source(store.path, ImportOptions(frame_size=8))


def convert_and_die_at_the_third(path: Path, out: Path) -> None:
    append = EpisodeStore.append

    def dies(self: EpisodeStore, episode: Episode) -> None:
        append(self, episode)
        if len(self) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    EpisodeStore.append = dies
    convert(path, out)


def test_killed_while_converting_there_is_no_half_of_a_store(tmp_path: Path) -> None:
    store_of(tmp_path / "store", [episode(20, seed=n) for n in range(4)])
    process = start(convert_and_die_at_the_third, tmp_path / "store", tmp_path / "out")
    process.join(60)
    assert process.exitcode == -9
    assert not (tmp_path / "out").exists()
    convert(tmp_path / "store", tmp_path / "out")
    assert EpisodeStore.open(tmp_path / "out").num_episodes == 4


def test_opening_reads_no_frames_and_stays_quick(tmp_path: Path) -> None:
    """A store of 100 GB has some 16,000 episodes of 500 frames: as many entries in the index."""
    store = store_of(tmp_path / "store", [episode(60, seed=n) for n in range(3)])
    expected = store.lengths.tolist()
    for file in (tmp_path / "store" / "frames").rglob("*"):
        if file.is_file() and file.name != "zarr.json":
            file.unlink()
    opened = EpisodeStore.open(tmp_path / "store")
    assert opened.lengths.tolist() == expected and opened.num_frames == 180
    with pytest.raises(StoreError, match="damaged"):
        opened.episode(0)
    rows = np.load(tmp_path / "store" / "index.npy")
    np.save(tmp_path / "store" / "index.npy", np.concatenate([rows] * 6000))
    began = time.perf_counter()
    assert EpisodeStore.open(tmp_path / "store").num_episodes == 18_000
    assert time.perf_counter() - began < 1.0
