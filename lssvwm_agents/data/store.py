"""Episodes on disk: a zarr group of arrays that are flat over time, and an index of where each episode lies.

An append writes the episode's frames first and replaces the index last, in one step. A writer that is killed
at any moment therefore leaves a store with every episode it had finished and nothing else. Episodes start at
chunk borders, so that an append never touches a chunk that holds an older episode; the gap costs nothing on
disk worth mentioning. (Killed means killed: what the operating system had not yet written when the power
failed may be lost. The checksum of each episode tells.)

Layout of the folder::

    zarr.json                  the group; its attributes say what made the episodes (StoreSpec, versions)
    frames/ actions/ rewards/ terminated/ truncated/ proprio/       arrays of shape (time, ...)
    index.npy                  (E, 4) int64: start, length, seed, checksum of each episode
    writer.lock                locked by the process that appends
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import io
import os
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from lssvwm_agents import __version__
from lssvwm_agents.data.episode import Episode
from lssvwm_agents.data.store_spec import StoreSpec
from lssvwm_agents.errors import StoreError

FORMAT = "lssvwm-episodes"
FORMAT_VERSION = 1
CHUNK_FRAMES = 50
CHUNK_NAMES = {"name": "default", "separator": "."}
"""All chunks of an array in one folder; stores made with zarr's folder for each chunk are read as well."""
_ARRAYS = ("frames", "actions", "rewards", "terminated", "truncated", "proprio")


class EpisodeStore:
    """Episodes in a folder. Many may read; one process at a time may append."""

    def __init__(self, path: Path, spec: StoreSpec, group: zarr.Group, index: NDArray[np.int64]) -> None:
        """Use :meth:`create` or :meth:`open`."""
        self.path = path
        self.spec = spec
        self._group = group
        self._arrays: dict[str, Any] = {name: group[name] for name in _ARRAYS}
        self._index = index
        self._lock: IO[bytes] | None = None

    # -------------------- making and opening

    @classmethod
    def create(cls, path: str | Path, spec: StoreSpec) -> EpisodeStore:
        """Make an empty store in a folder that does not exist yet, or is empty.

        Raises:
            StoreError: When something is there already.
        """
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise StoreError(f"`{path}` exists already and is not empty; choose a new folder or remove it.")
        # Made beside its place and moved there when complete, so that a killed process leaves no half of a
        # store.
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        group = zarr.create_group(unfinished, zarr_format=3)
        for name, (shape, dtype) in _layout(spec).items():
            group.create_array(
                name,
                shape=(0, *shape),
                chunks=(CHUNK_FRAMES, *(max(1, size) for size in shape)),
                dtype=dtype,
                chunk_key_encoding=CHUNK_NAMES,
                compressors=zarr.codecs.BloscCodec(cname="zstd", clevel=3, shuffle="noshuffle"),
            )
        group.attrs.update(
            {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "spec": asdict(spec),
                "versions": _versions(),
            }
        )
        _replace_index(unfinished, np.zeros((0, 4), np.int64))
        unfinished.chmod(0o755)
        os.replace(unfinished, path)
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path) -> EpisodeStore:
        """Open a store for reading and appending.

        Raises:
            StoreError: When the folder is missing, holds something else, or is damaged.
        """
        path = Path(path)
        if not path.is_dir():
            raise StoreError(f"There is no episode store at `{path}`; `lssvwm collect` makes one.")
        foreign = StoreError(f"`{path}` is not an episode store; `lssvwm collect` makes one in a new folder.")
        if not (path / "zarr.json").is_file():
            raise foreign
        try:
            group = zarr.open_group(path, mode="r+", zarr_format=3, use_consolidated=False)
            attributes = dict(group.attrs)
        except Exception as error:
            raise StoreError(
                f"The episode store `{path}` is damaged: its `zarr.json` cannot be read."
            ) from error
        if attributes.get("format") != FORMAT:
            raise foreign
        if attributes.get("format_version") != FORMAT_VERSION:
            raise StoreError(
                f"The episode store `{path}` has format version {attributes.get('format_version')}, but only "
                f"{FORMAT_VERSION} can be read; collect again, or install the lssvwm-agents that made it."
            )
        try:
            spec = StoreSpec(**attributes["spec"])  # type: ignore[arg-type]
            index = np.load(path / "index.npy", allow_pickle=False)
            store = cls(path, spec, group, index)
        except StoreError:
            raise
        except FileNotFoundError as error:
            raise StoreError(f"The episode store `{path}` is damaged: `index.npy` is missing.") from error
        except Exception as error:
            raise StoreError(f"The episode store `{path}` is damaged: {error}.") from error
        store._check_index()
        return store

    def _check_index(self) -> None:
        index = self._index
        if (
            index.ndim != 2
            or index.shape[1] != 4
            or index.dtype != np.int64
            or (index[:, :3].min(initial=0) < -1)
        ):
            raise StoreError(
                f"The episode store `{self.path}` is damaged: its index does not hold (E, 4) integers."
            )
        end = int((index[:, 0] + index[:, 1]).max(initial=0))
        for name, (shape, dtype) in _layout(self.spec).items():
            array = self._arrays[name]
            if array.shape[1:] != shape or array.dtype != dtype:
                raise StoreError(
                    f"The episode store `{self.path}` is damaged: `{name}` holds {array.dtype} of shape "
                    f"{array.shape[1:]}, but its specification says {dtype} of {shape}; collect it again."
                )
            if array.shape[0] < end:
                raise StoreError(
                    f"The episode store `{self.path}` is damaged: its index names {end} frames, "
                    f"but `{name}` holds {array.shape[0]}."
                )

    # -------------------- reading

    @property
    def num_episodes(self) -> int:
        """Number of finished episodes."""
        return len(self._index)

    def __len__(self) -> int:
        """Number of finished episodes."""
        return len(self._index)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(E,) frames of each episode."""
        return self._index[:, 1].copy()

    @property
    def seeds(self) -> NDArray[np.int64]:
        """(E,) seed of each episode, -1 where it is unknown."""
        return self._index[:, 2].copy()

    @property
    def num_frames(self) -> int:
        """Frames of all episodes together."""
        return int(self._index[:, 1].sum())

    def episode(self, index: int) -> Episode:
        """Read episode ``index`` (0 is the first that was appended) and check it against its checksum.

        Raises:
            IndexError: When there is no such episode.
            StoreError: When what is on disk is not what was appended.
        """
        if not 0 <= index < self.num_episodes:
            raise IndexError(f"`index` must be in [0, {self.num_episodes}), got {index}.")
        start, length, seed, checksum = (int(value) for value in self._index[index])
        damaged = f"The episode store `{self.path}` is damaged: episode {index} is not what was recorded"
        try:
            arrays = {name: np.asarray(array[start : start + length]) for name, array in self._arrays.items()}
        except Exception as error:
            raise StoreError(f"{damaged} ({error}).") from error
        episode = Episode(**arrays, seed=seed)
        if episode.checksum() != checksum:
            raise StoreError(f"{damaged}.")
        return episode

    def __iter__(self) -> Iterator[Episode]:
        """All episodes, in the order in which they were appended."""
        return (self.episode(index) for index in range(self.num_episodes))

    # -------------------- appending

    def append(self, episode: Episode) -> int:
        """Write one episode; when this returns it is in the store, whatever then happens to the process.

        Returns:
            Its index.

        Raises:
            StoreError: When the episode does not fit the store, or another process is appending.
        """
        self._check_fits(episode)
        self._acquire()
        end = int(self._index[-1, :2].sum()) if len(self._index) else 0
        start = -(-end // CHUNK_FRAMES) * CHUNK_FRAMES
        for name, values in episode.arrays().items():
            array = self._arrays[name]
            if array.shape[0] != start + len(episode):
                array.resize((start + len(episode), *array.shape[1:]))
            array[start : start + len(episode)] = values
        row = np.array([[start, len(episode), episode.seed, episode.checksum()]], np.int64)
        self._index = np.concatenate([self._index, row])
        _replace_index(self.path, self._index)
        return self.num_episodes - 1

    def _check_fits(self, episode: Episode) -> None:
        spec = self.spec
        rules = (
            ("frames of shape", spec.frame_shape, episode.frames.shape[1:]),
            ("actions of shape", spec.action_shape, episode.actions.shape[1:]),
            ("actions of dtype", spec.action_dtype, str(episode.actions.dtype)),
            ("proprio of width", spec.proprio_dim, episode.proprio.shape[1]),
        )
        for what, expected, got in rules:
            if expected != got:
                raise StoreError(f"The episode store `{self.path}` holds {what} {expected}, got {got}.")
        if not -1 <= episode.seed < 2**63:
            raise StoreError(f"An episode's seed must be in [0, 2**63), or -1 for none, got {episode.seed}.")

    def _acquire(self) -> None:
        """Become the only writer until :meth:`close`, and take in what others appended before."""
        if self._lock is not None:
            return
        lock = open(self.path / "writer.lock", "ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise StoreError(
                f"Another process is appending to `{self.path}`; wait for it, or stop it."
            ) from error
        self._lock = lock
        self._index = np.load(self.path / "index.npy", allow_pickle=False)
        self._arrays = {name: self._group[name] for name in _ARRAYS}
        self._check_index()

    def close(self) -> None:
        """Let another process append."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> EpisodeStore:
        """The store itself; leaving the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _layout(spec: StoreSpec) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape of one row and dtype of each array."""
    return {
        "frames": (spec.frame_shape, "uint8"),
        "actions": (spec.action_shape, spec.action_dtype),
        "rewards": ((), "float32"),
        "terminated": ((), "bool"),
        "truncated": ((), "bool"),
        "proprio": ((spec.proprio_dim,), "float32"),
    }


def _versions() -> dict[str, str]:
    """Versions of what made the episodes."""
    versions = {"lssvwm-agents": __version__, "python": platform.python_version()}
    for package in ("gymnasium", "numpy", "torch", "zarr"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _replace_index(path: Path, index: NDArray[np.int64]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, index, allow_pickle=False)
    temporary = path / f"index.npy.{os.getpid()}"
    temporary.write_bytes(buffer.getvalue())
    os.replace(temporary, path / "index.npy")
