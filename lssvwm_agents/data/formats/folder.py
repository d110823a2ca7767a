"""A folder of videos, each with a table of the same name: ``episode_000000.mp4`` and ``episode_000000.csv``.

A table has one line for each frame: ``action``, or ``action_0``, ``action_1`` and so on, taken *at* that
frame; ``reward``, and ``terminated`` and ``truncated`` (or ``done``), that it brought; every other column of
numbers is proprio, in the order of the columns. ``frame``, ``timestamp`` and ``episode`` are passed over.
Without a table, a video has no actions, and cannot be used.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lssvwm_agents.data.episode import Episode
from lssvwm_agents.data.formats.source import (
    ImportOptions,
    Source,
    aligned,
    finished_folder,
    scaled,
    spec_from_json,
    spec_of,
    spec_to_json,
)
from lssvwm_agents.data.formats.videos import VIDEO_SUFFIXES, read_video, write_lossless
from lssvwm_agents.errors import StoreError
from lssvwm_agents.files import atomic_path

_PASSED_OVER = ("frame", "index", "frame_index", "timestamp", "time", "episode", "episode_index")
_ENDS = ("reward", "terminated", "truncated", "done")
SPEC_FILE = "spec.json"


def videos_of(path: str | Path) -> list[Path]:
    """The videos of a folder that have a table, by name."""
    folder = Path(path)
    if not folder.is_dir():
        return []
    found = (file for file in folder.iterdir() if file.suffix.lower() in VIDEO_SUFFIXES)
    return sorted(file for file in found if file.with_suffix(".csv").is_file())


def open_folder(path: str, options: ImportOptions | None = None) -> Source:
    """Open a folder of videos and tables.

    Raises:
        StoreError: If there are none, or a table does not fit its video.
    """
    options = options or ImportOptions()
    videos = videos_of(path)
    if not videos:
        raise StoreError(f"`{path}` holds no videos with a table (.csv) of the same name.")
    written = Path(path) / SPEC_FILE
    known = spec_from_json(written.read_text()) if written.is_file() else None
    columns = _read_table(videos[0].with_suffix(".csv"))
    discrete = options.num_actions is not None or (known is not None and known.num_actions > 0)
    if known is None and options.num_actions is None:
        discrete = list(_action_names(columns)) == ["action"] and _all_whole(videos)

    def episodes() -> Iterator[Episode]:
        for video in videos:
            yield _episode(video, options, discrete, list(columns))

    if known is not None and options == ImportOptions():
        return Source("folder", known, len(videos), episodes)
    num_actions = 0
    if discrete:
        largest = max(int(np.nanmax(_read_table(v.with_suffix(".csv"))["action"])) for v in videos)
        num_actions = options.num_actions or (known.num_actions if known else largest + 1)
        if largest >= num_actions:
            raise StoreError(
                f"`num_actions` must be more than every action, got {num_actions} for {largest}."
            )
    spec = spec_of(next(episodes()), num_actions, env_id="", extra={"folder": Path(path).name})
    return Source("folder", spec, len(videos), episodes)


def _read_table(path: Path) -> dict[str, NDArray[np.float64]]:
    """Columns of numbers by name; empty cells are NaN."""
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    if len(rows) < 2:
        raise StoreError(f"The table `{path}` must have a line of names and one for each frame.")
    names, columns = [name.strip() for name in rows[0]], {}
    for place, name in enumerate(names):
        try:
            cells = [row[place].strip().lower() for row in rows[1:]]
            columns[name] = np.array([_number(cell) for cell in cells])
        except (ValueError, IndexError) as error:
            raise StoreError(f"The column `{name}` of `{path}` holds something that is no number.") from error
    return columns


def _number(cell: str) -> float:
    return {"": np.nan, "true": 1.0, "false": 0.0}[cell] if cell in ("", "true", "false") else float(cell)


def _action_names(columns: dict[str, NDArray[np.float64]]) -> list[str]:
    return [name for name in columns if name == "action" or name.startswith(("action_", "action."))]


def _all_whole(videos: list[Path]) -> bool:
    for video in videos:
        values = _read_table(video.with_suffix(".csv"))["action"]
        values = values[~np.isnan(values)]
        if (values < 0).any() or (values % 1 != 0).any():
            return False
    return True


def _episode(video: Path, options: ImportOptions, discrete: bool, expected: list[str]) -> Episode:
    table_path = video.with_suffix(".csv")
    columns = _read_table(table_path)
    if list(columns) != expected:
        raise StoreError(f"`{table_path}` has columns {list(columns)}, but the first table has {expected}.")
    names = _action_names(columns)
    if not names:
        raise StoreError(f"`{table_path}` has no column `action` or `action_0`, only {list(columns)}.")
    frames = read_video(video)
    count = len(columns[names[0]])
    if count != len(frames):
        raise StoreError(f"`{video}` has {len(frames)} frames, but its table {count} lines.")
    actions = np.stack([columns[name] for name in names], axis=1)
    steps = count - 1 if np.isnan(actions[-1]).any() else count  # nothing was done at the last frame
    if np.isnan(actions[:steps]).any():
        raise StoreError(f"`{table_path}` has an empty action before its last line.")
    taken = actions[:steps, 0].astype(np.int64) if discrete else actions[:steps].astype(np.float32)

    def ends(*which: str) -> NDArray[np.float64]:
        found = next((columns[name] for name in which if name in columns), np.zeros(count))
        return np.nan_to_num(found[:steps])

    state = [
        n for n in columns if n not in names and n not in _ENDS and n not in _PASSED_OVER and n != "seed"
    ]
    proprio = np.stack([columns[name] for name in state], axis=1) if state else None
    seed = columns.get("seed", np.array([-1.0]))[0]
    return aligned(
        frames=scaled(frames, options.frame_size),
        actions=taken,
        rewards=ends("reward"),
        terminated=ends("terminated", "done") > 0,
        truncated=ends("truncated") > 0,
        proprio=proprio,
        seed=-1 if np.isnan(seed) else int(seed),
    )


def write_folder(source: Source, out: str | Path) -> None:
    """Write videos (without loss) and tables to a new folder, and ``spec.json``, which says what they are.

    Raises:
        StoreError: If the folder is there already.
    """
    with finished_folder(out) as folder:
        for number, episode in enumerate(source.episodes()):
            name = f"episode_{number:06d}"
            write_lossless(folder / f"{name}.mp4", episode.frames)
            _write_table(folder / f"{name}.csv", episode)
        (folder / SPEC_FILE).write_text(spec_to_json(source.spec))


def _write_table(path: Path, episode: Episode) -> None:
    actions = episode.actions.reshape(len(episode), -1)
    discrete = episode.actions.ndim == 1
    action_names = ["action"] if discrete else [f"action_{i}" for i in range(actions.shape[1])]
    proprio_names = [f"proprio_{i}" for i in range(episode.proprio.shape[1])]
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["frame", "seed", *action_names, *_ENDS[:3], *proprio_names])
        for t in range(len(episode)):
            last = t + 1 == len(episode)
            step: list[object] = [""] * (len(action_names) + 3)
            if not last:
                step = [_text(value) for value in actions[t + 1]]
                step += [_text(episode.rewards[t + 1])]
                step += [int(episode.terminated[t + 1]), int(episode.truncated[t + 1])]
            writer.writerow([t, episode.seed, *step, *(_text(value) for value in episode.proprio[t])])


def _text(value: np.generic) -> str:
    """The shortest decimal that is read as the same number."""
    return str(value.item()) if isinstance(value, np.integer) else np.format_float_positional(value, trim="-")
