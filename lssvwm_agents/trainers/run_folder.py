"""A run's folder: what it was made by, and that nobody goes on with it under other settings."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from lssvwm_agents.errors import UserError
from lssvwm_agents.files import write_json

_FREE = {
    "log_every",
    "validate_every",
    "checkpoint_every",
    "checkpoint_every_seconds",
    "compile",
    "compile_render",
    "compact_weights",
    "num_validation_episodes",
    "validation_context",
    "validation_horizon",
}
"""Settings that change no weights: a resumed run may change them."""


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def differences(before: dict[str, Any], now: dict[str, Any], free: Collection[str] = ()) -> str:
    """What differs between flat settings, in words, the first three named; empty where nothing does.

    Settings whose last name is ``free`` may differ.
    """
    missing = "nothing"
    different = [
        f"{name} was {before.get(name, missing)!r} and is now {now.get(name, missing)!r}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and name.rsplit(".", 1)[-1] not in free
    ]
    more = f" (and {len(different) - 3} more)" if len(different) > 3 else ""
    return "; ".join(different[:3]) + more


def claim(directory: Path, settings: dict[str, Any], defaults: dict[str, Any] | None = None) -> None:
    """Note in ``experiment.json`` what a run is made by, or check that it is the same as before.

    Args:
        directory: The run's folder.
        settings: Nested, of JSON's kinds.
        defaults: Values of settings that the folder's file does not know: a run of an earlier version was
            made by what is the default of a setting added since.

    Raises:
        UserError: If the folder holds a run with other settings, or other files.
    """
    path = directory / "experiment.json"
    settings, defaults = (json.loads(json.dumps(part)) for part in (settings, defaults or {}))
    if path.is_file():
        try:
            before = flatten(json.loads(path.read_text()))
        except json.JSONDecodeError as error:
            raise UserError(f"{path} is not JSON ({error}): choose another folder with --out.") from error
        now = flatten(settings)
        before = {name: value for name, value in flatten(defaults).items() if name in now} | before
        different = differences(before, now, _FREE)
        if different:
            raise UserError(
                f"`{directory}` holds a run with other settings: {different}. Resume it "
                "with the settings it began with, or choose another folder with --out."
            )
        return
    if directory.exists() and any(directory.iterdir()):
        raise UserError(f"`{directory}` is not empty and holds no run: choose another folder with --out.")
    write_json(path, settings)


def training_progress(directory: Path, phase: str = "world_model") -> dict[str, Any] | None:
    """How far a run has come: ``update``, ``elapsed`` seconds; None if it has not begun.

    By its latest checkpoint; where there are none any more, by the last lines of its log.
    """
    folder = directory / "checkpoints" / phase
    pointer = folder / "latest"
    if pointer.is_file():
        progress: dict[str, Any] = json.loads(
            (folder / pointer.read_text().strip() / "progress.json").read_text()
        )
        return progress
    log = directory / "log.jsonl"
    if not log.is_file():
        return None
    lines = [line for line in read_log(log) if line["phase"] == phase]
    elapsed = [line["elapsed"] for line in lines if "elapsed" in line]
    return {"update": lines[-1]["update"], "elapsed": elapsed[-1]} if elapsed else None


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a ``log.jsonl``; one that a kill cut short is left out, as a resumed run drops it."""
    lines = []
    for text in path.read_text().splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict) and "update" in line:
            lines.append(line)
    return lines
