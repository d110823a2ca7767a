"""How long a large store takes to open, and how fast its episodes stream.

    python benchmarks/store_open.py --path /tmp/large --json benchmarks/results/store_open.json

Makes a store of that many gigabytes of frames, unless there is one at the path: a few episodes are written
as they always are, and the chunks of all others are hard links to theirs, so that index, folders and number
of files are those of a large store while the disk holds little. It is opened in fresh processes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from tqdm import trange

from lssvwm_agents.data import Episode, EpisodeStore, StoreSpec
from lssvwm_agents.data.store import CHUNK_FRAMES
from lssvwm_agents.files import write_json
from lssvwm_agents.report import run_info

SPEC = StoreSpec("benchmarks/None-v0", num_actions=6, proprio_dim=4)
ARRAYS = ("frames", "actions", "rewards", "terminated", "truncated", "proprio")


def noise_episode(length: int, seed: int) -> Episode:
    """Frames of coloured squares of 4x4 pixels, of which some change from one to the next."""
    draws = np.random.default_rng(seed)
    squares = draws.integers(0, 256, (length, 16, 16, 3), dtype=np.uint8)
    keep = draws.random((length, 16, 16, 1)) < 0.9
    for t in range(1, length):
        squares[t] = np.where(keep[t], squares[t - 1], squares[t])
    return Episode(
        frames=squares.repeat(4, axis=1).repeat(4, axis=2),
        actions=draws.integers(0, 6, length),
        rewards=draws.normal(size=length).astype(np.float32),
        terminated=np.zeros(length, np.bool_),
        truncated=np.arange(length) == length - 1,
        proprio=draws.normal(size=(length, 4)).astype(np.float32),
        seed=seed,
    )


def make_store(path: Path, gigabytes: float, length: int, distinct: int) -> None:
    """Write the first ``distinct`` episodes, and link the rest."""
    count = round(gigabytes * 1e9 / (length * int(np.prod(SPEC.frame_shape))))
    distinct = min(distinct, count)
    with EpisodeStore.create(path, SPEC) as store:
        for seed in trange(distinct, desc="write", unit="episode"):
            store.append(noise_episode(length, seed))
    index = np.load(path / "index.npy")
    chunks = -(-length // CHUNK_FRAMES)
    group = zarr.open_group(path, mode="r+")
    for name in ARRAYS:
        array: Any = group[name]
        array.resize(((count - 1) * chunks * CHUNK_FRAMES + length, *array.shape[1:]))
        rest = ".0" * (array.ndim - 1)
        for number in trange(distinct, count, desc=f"link {name}", unit="episode"):
            for chunk in range(chunks):
                there = path / name / f"c.{number % distinct * chunks + chunk}{rest}"
                if there.exists():  # nothing is written of a chunk that holds zeros alone
                    os.link(there, path / name / f"c.{number * chunks + chunk}{rest}")
    rows = index[np.arange(count) % distinct]
    rows[:, 0] = np.arange(count) * chunks * CHUNK_FRAMES
    np.save(path / "index.npy", rows)


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(path: Path, episodes: int) -> dict[str, float]:
    """In this process: seconds to open, to read a first episode, then a stream of ``episodes`` of them."""
    began = time.perf_counter()
    store = EpisodeStore.open(path)
    opened = time.perf_counter()
    store.episode(store.num_episodes // 2)
    first = time.perf_counter()
    before, frames = peak_megabytes(), 0
    for index in np.random.default_rng(0).integers(store.num_episodes, size=episodes):
        frames += len(store.episode(int(index)))
    return {
        "seconds_to_open": opened - began,
        "seconds_first_episode": first - opened,
        "frames_per_second": frames / (time.perf_counter() - first),
        "peak_megabytes_after_first_episode": before,
        "peak_megabytes_after_stream": peak_megabytes(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--path", type=Path, required=True, help="folder of the store")
    parser.add_argument("--gigabytes", type=float, default=100.0, help="of frames, as they are unpacked")
    parser.add_argument("--episode-frames", type=int, default=1000)
    parser.add_argument("--distinct", type=int, default=16, help="episodes written; the others are links")
    parser.add_argument("--read", type=int, default=100, help="episodes to stream")
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--measure-here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure_here:
        print(json.dumps(measure(args.path, args.read)))
        return
    if not args.path.exists():
        make_store(args.path, args.gigabytes, args.episode_frames, args.distinct)
    here = [sys.executable, __file__, "--path", str(args.path), "--read", str(args.read), "--measure-here"]
    runs = [json.loads(subprocess.check_output(here, text=True)) for _ in range(3)]
    store = EpisodeStore.open(args.path)
    result = {
        "episodes": store.num_episodes,
        "frames": store.num_frames,
        "gigabytes_of_frames": store.num_frames * int(np.prod(store.spec.frame_shape)) / 1e9,
        "runs": runs,
        **run_info("cpu"),
    }
    print(json.dumps({name: result[name] for name in ("episodes", "gigabytes_of_frames", "runs")}, indent=2))
    if args.json is not None:
        write_json(args.json, result)


if __name__ == "__main__":
    main()
