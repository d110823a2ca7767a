"""Checkpoints: folders of safetensors and JSON that are either whole or not there.

A checkpoint is written under a temporary name, renamed, and only then named by the file ``latest``. A process
killed at any moment leaves the previous checkpoint in force.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from lssvwm_agents.files import write_bytes, write_tensors

_PREFIX = "update-"


@dataclass(frozen=True)
class Checkpoint:
    """What a training loop needs to go on.

    Attributes:
        tensors: Groups of tensors by name: the model, its average, the optimisers' states.
        progress: Plain numbers: update, elapsed seconds, skipped updates.
    """

    tensors: dict[str, dict[str, torch.Tensor]]
    progress: dict[str, Any]


def save_checkpoint(directory: Path, update: int, checkpoint: Checkpoint, keep: int = 2) -> Path:
    """Write a checkpoint, make it the latest, and remove all but the last ``keep``."""
    directory.mkdir(parents=True, exist_ok=True)
    for stale in directory.glob(".tmp-*"):
        shutil.rmtree(stale)
    temporary = directory / f".tmp-{os.getpid()}"
    temporary.mkdir()
    for name, group in checkpoint.tensors.items():
        write_tensors(temporary / f"{name}.safetensors", group)
    (temporary / "progress.json").write_text(json.dumps(checkpoint.progress, indent=1))
    target = directory / f"{_PREFIX}{update:09d}"
    if target.exists():
        # The same update saved again holds the same content; the pointer may still be older.
        shutil.rmtree(temporary)
    else:
        os.replace(temporary, target)
    write_bytes(directory / "latest", target.name.encode())
    for old in sorted(directory.glob(f"{_PREFIX}*"))[:-keep]:
        shutil.rmtree(old)
    return target


def load_latest(directory: Path, device: torch.device | str = "cpu") -> Checkpoint | None:
    """Read the checkpoint that ``latest`` names, or None where there is none."""
    pointer = directory / "latest"
    if not pointer.is_file():
        return None
    folder = directory / pointer.read_text().strip()
    if not (folder / "progress.json").is_file():
        raise ValueError(
            f"{pointer} names the checkpoint {folder.name!r}, which is not there: remove {pointer}."
        )
    tensors = {
        path.stem: load_file(path, device=str(device)) for path in sorted(folder.glob("*.safetensors"))
    }
    return Checkpoint(tensors, json.loads((folder / "progress.json").read_text()))


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """An optimiser's state as tensors by name, ``<parameter index>.<state name>``."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, values in state.items()
        for name, value in values.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Put a state made by `flatten_optimizer` back."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
