"""LeRobot's dataset folders (Cadene et al. 2024), versions 2 and 3: parquet tables and videos.

Version 2 has a table and, for each camera, a video of every episode; version 3 has several episodes in each
file. Actions stand at the frame that they were taken at; ``observation.state`` is the proprio.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lssvwm_agents.data.episode import Episode
from lssvwm_agents.data.formats.source import ImportOptions, Source, aligned, scaled, spec_of
from lssvwm_agents.data.formats.videos import read_video
from lssvwm_agents.errors import StoreError, UserError

_REWARD, _DONE = ("next.reward", "reward"), ("next.done", "done", "next.success")
_STATE = "observation.state"


def is_lerobot(path: str) -> bool:
    """Whether ``path`` is a LeRobot dataset's folder."""
    return (Path(path) / "meta" / "info.json").is_file()


def open_lerobot(path: str, options: ImportOptions | None = None) -> Source:
    """Open a dataset folder of version 2 or 3 whose cameras are videos.

    Raises:
        UserError: If it is another version, or has no such camera.
    """
    options, root = options or ImportOptions(), Path(path)
    info = json.loads((root / "meta" / "info.json").read_text())
    version = str(info.get("codebase_version", "")).lstrip("v")
    if version.split(".")[0] not in ("2", "3"):
        raise UserError(f"`{path}` is of LeRobot's version {version or 'unknown'}; only 2 and 3 can be read.")
    cameras = [key for key, feature in info["features"].items() if feature["dtype"] == "video"]
    if not cameras:
        raise UserError(f"`{path}` has no camera whose frames are a video; it has {list(info['features'])}.")
    camera = options.frame_key or cameras[0]
    if camera not in cameras:
        raise UserError(f"`frame_key` must be one of {cameras}, got `{camera}`.")
    places = _places_v2(root, info, camera) if version.startswith("2") else _places_v3(root, info, camera)

    def episodes() -> Iterator[Episode]:
        for number, (table, video, start) in places():
            rows = _rows(_parquet(table), number)
            frames = read_video(video, start, len(rows["action"]))
            yield _episode(rows, scaled(frames, options.frame_size), options.num_actions)

    num_actions = options.num_actions or 0
    first = next(episodes(), None)
    if first is None:
        raise UserError(f"`{path}` holds no episode.")
    known = {"env_id": "", "extra": {"lerobot": root.name, "robot": str(info.get("robot_type"))}}
    return Source("lerobot", spec_of(first, num_actions, **known), int(info["total_episodes"]), episodes)


def _places_v2(root: Path, info: dict[str, Any], camera: str) -> Any:
    """Table, video, and first frame in the video of every episode."""

    def places() -> Iterator[tuple[int, tuple[Path, Path, int]]]:
        for number in range(int(info["total_episodes"])):
            names = {
                "episode_index": number,
                "episode_chunk": number // int(info.get("chunks_size", 1000)),
                "video_key": camera,
            }
            yield (
                number,
                (root / info["data_path"].format(**names), root / info["video_path"].format(**names), 0),
            )

    return places


def _places_v3(root: Path, info: dict[str, Any], camera: str) -> Any:
    def places() -> Iterator[tuple[int, tuple[Path, Path, int]]]:
        for file in sorted((root / "meta" / "episodes").rglob("*.parquet")):
            rows = _parquet(file)
            for row, number in enumerate(rows["episode_index"]):
                data = {
                    "chunk_index": int(rows["data/chunk_index"][row]),
                    "file_index": int(rows["data/file_index"][row]),
                }
                seen = {
                    "video_key": camera,
                    "chunk_index": int(rows[f"videos/{camera}/chunk_index"][row]),
                    "file_index": int(rows[f"videos/{camera}/file_index"][row]),
                }
                start = round(float(rows[f"videos/{camera}/from_timestamp"][row]) * float(info["fps"]))
                yield (
                    int(number),
                    (
                        root / info["data_path"].format(**data),
                        root / info["video_path"].format(**seen),
                        start,
                    ),
                )

    return places


def _parquet(path: Path) -> dict[str, list[Any]]:
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as missing:
        raise UserError(
            "Reading LeRobot's tables needs the extra `lerobot`: pip install 'lssvwm-agents[lerobot]'."
        ) from missing
    try:
        columns: dict[str, list[Any]] = pyarrow.parquet.read_table(path).to_pydict()
    except (OSError, pyarrow.ArrowException) as error:
        raise StoreError(f"The table `{path}` cannot be read: {error}.") from error
    return columns


def _rows(columns: dict[str, list[Any]], episode: int) -> dict[str, NDArray[Any]]:
    """The lines of one episode, in the order of its frames."""
    chosen = [row for row, number in enumerate(columns["episode_index"]) if number == episode]
    order = sorted(chosen, key=lambda row: columns["frame_index"][row])
    wanted = ("action", _STATE, *_REWARD, *_DONE)
    return {key: np.array([columns[key][row] for row in order]) for key in wanted if key in columns}


def _episode(rows: dict[str, NDArray[Any]], frames: NDArray[np.uint8], num_actions: int | None) -> Episode:
    count = len(frames)
    actions = rows["action"]
    if num_actions is not None:
        actions = actions.reshape(count).astype(np.int64)
        if actions.min() < 0 or actions.max() >= num_actions:
            raise StoreError(f"Actions must be in [0, num_actions={num_actions}), got {int(actions.max())}.")
    else:
        actions = actions.reshape(count, -1).astype(np.float32)
    reward = next((rows[key] for key in _REWARD if key in rows), np.zeros(count)).reshape(count)
    done = (
        next((rows[key] for key in _DONE if key in rows), np.zeros(count, bool)).reshape(count).astype(bool)
    )
    # Every recording's last frame is marked as done; only one that earned something ended in the world.
    terminated = done & (reward > 0)
    return aligned(
        frames=frames,
        actions=actions,
        rewards=reward,
        terminated=terminated,
        truncated=done & ~terminated,
        proprio=rows[_STATE].reshape(count, -1) if _STATE in rows else None,
    )
