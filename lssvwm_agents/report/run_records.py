"""What a run left behind: log, settings, measurements and pictures, told apart by what is in them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lssvwm_agents.errors import UserError
from lssvwm_agents.trainers.run_folder import read_log

_DEPTH = 3
_SKIPPED = {"checkpoints", "tensorboard", "model", "tokenizer", "runs"}
MAX_PICTURES = 12


@dataclass
class RunRecords:
    """Everything found of one run.

    Attributes:
        name: Short, and different from those of other runs beside it.
        path: Folder or file.
        log: Lines of ``log.jsonl``.
        experiment: ``experiment.json``, or None.
        memory: Records of `lssvwm evaluate memory`.
        comparison: The record of `lssvwm compare`, or None.
        planning: Records of `lssvwm evaluate planning`.
        episodes: Records of `lssvwm demo` and `lssvwm plan`.
        pictures: PNG files.
    """

    name: str
    path: Path
    log: list[dict[str, Any]] = field(default_factory=list)
    experiment: dict[str, Any] | None = None
    memory: list[dict[str, Any]] = field(default_factory=list)
    comparison: dict[str, Any] | None = None
    planning: list[dict[str, Any]] = field(default_factory=list)
    episodes: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether nothing was found that a report could show."""
        return not (
            self.log or self.memory or self.comparison or self.planning or self.episodes or self.experiment
        )

    @property
    def records(self) -> list[dict[str, Any]]:
        """All measurements that say what made them."""
        return [*self.memory, *self.planning, *self.episodes]

    def logged(self, metric: str, phase: str = "world_model") -> tuple[list[float], list[float]]:
        """Updates and values of one metric of the log; lines without it, or with null, are left out."""
        lines = [line for line in self.log if line.get("phase") == phase and line.get(metric) is not None]
        return [line["update"] for line in lines], [line[metric] for line in lines]


def read_runs(paths: list[Path]) -> list[RunRecords]:
    """Read runs: folders of `lssvwm train`, `compare`, `evaluate memory` or `demo`, or single JSON records.

    Raises:
        UserError: If there is nothing at a path, or nothing in it that a report could show.
    """
    names = _names(paths)
    return [_read(path, name) for path, name in zip(paths, names, strict=True)]


def _names(paths: list[Path]) -> list[str]:
    """The last part of each path, and as many before it as it takes to tell them apart."""
    parts = [path.resolve().parts for path in paths]
    for count in range(1, 6):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({number})" for number, name in enumerate(names, 1)]


def _read(path: Path, name: str) -> RunRecords:
    if not path.exists():
        raise UserError(f"There is no run at `{path}`: give a folder made by `lssvwm train`, or a record.")
    run = RunRecords(name, path)
    for file in [path] if path.is_file() else _files(path, _DEPTH):
        if file.suffix == ".jsonl":
            run.log += read_log(file)
        elif file.suffix == ".json":
            _sort_in(run, _json(file, must=path.is_file()))
        elif file.suffix == ".png" and len(run.pictures) < MAX_PICTURES:
            run.pictures.append(file)
    if run.empty:
        raise UserError(
            f"`{path}` holds nothing to report on: no log.jsonl, and no record of `lssvwm evaluate memory`, "
            "`evaluate planning`, `compare`, `demo` or `plan`."
        )
    return run


def _files(folder: Path, depth: int) -> list[Path]:
    found = []
    for entry in sorted(folder.iterdir()):
        if entry.is_file():
            found.append(entry)
        elif depth > 1 and entry.is_dir() and entry.name not in _SKIPPED and not entry.name.startswith("."):
            found += _files(entry, depth - 1)
    return found


def _json(file: Path, must: bool) -> Any:
    try:
        return json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        if must:
            raise UserError(f"`{file}` is not JSON ({error}).") from error
        return None


def _sort_in(run: RunRecords, record: Any) -> None:
    """Put a record where it belongs, by the keys that its command writes; others are no records."""
    if not isinstance(record, dict):
        return
    keys = set(record)
    if {"psnr", "psnr_far", "by_baseline"} <= keys:
        run.comparison = record
    elif "distances" in keys and keys & {"retrieval", "reasoning", "events", "drift", "streaming"}:
        run.memory.append(record)
    elif {"planner", "oracle", "fraction_of_oracle"} <= keys:
        run.planning.append(record)
    elif "episodes" in keys and "imagined_frames_per_second" in keys:
        run.episodes.append(record)
    elif "experiment" in keys:
        run.experiment = record
