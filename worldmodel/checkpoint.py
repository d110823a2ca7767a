"""Writing a model's files whole or not at all, and finding its weights again. Never a pickle."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from huggingface_hub import hf_hub_download
from torch import nn

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
_T = TypeVar("_T")
_Module = TypeVar("_Module", bound=nn.Module)


def save_whole(save: Callable[[Path], _T], target: Path) -> _T:
    """Let ``save`` fill a folder of its own, then move its files into ``target``, each atomically.

    A model card that is there already stays: it may have been written by hand.
    """
    target.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".saving-", dir=target))
    try:
        result = save(staging)
        for file in sorted(staging.iterdir(), reverse=True):  # weights before the config that announces them
            if file.name != CARD or not (target / CARD).exists():
                apply_umask(file)
                os.replace(file, target / file.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return result


def apply_umask(file: Path) -> None:
    """Give a file the mode that newly made files have; safetensors lets only the owner read."""
    mask = os.umask(0)
    os.umask(mask)
    file.chmod(0o666 & ~mask)


def compacted(module: _Module, prefixes: tuple[str, ...]) -> _Module:
    """A copy of a module whose matrices have bfloat16, where their names begin with one of the prefixes."""
    small = copy.deepcopy(module)
    with torch.no_grad():
        for name, parameter in small.named_parameters():
            if parameter.ndim >= 2 and name.startswith(prefixes):
                parameter.data = parameter.data.to(torch.bfloat16)
    return small


def find_weights(model_id: str, **download: Any) -> str:
    """Path of the weights of a model in a local folder, or on the Hugging Face Hub (then downloaded).

    Raises:
        FileNotFoundError: If the local folder has none.
    """
    if not os.path.isdir(model_id):
        return str(hf_hub_download(repo_id=model_id, filename=WEIGHTS, **download))
    path = os.path.join(model_id, WEIGHTS)
    if not os.path.isfile(path):
        raise missing(model_id, WEIGHTS)
    return path


def missing(model_id: str, name: str) -> FileNotFoundError:
    """The error for a model without one of its files."""
    return FileNotFoundError(f"{model_id} holds no world model: its {name} is missing.")


def load_weights(module: nn.Module, path: str, device: str | torch.device = "cpu") -> None:
    """Load all weights; every name must be there, and no other.

    Raises:
        RuntimeError: If the file's names or shapes are not the module's.
    """
    safetensors.torch.load_model(module, path, strict=True, device=str(device))
