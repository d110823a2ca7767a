"""What made a result: the commit, the versions, the device, the weights' hash."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import torch

import lssvwm_agents


def commit() -> str | None:
    """The commit of the checkout that this runs from (``-dirty`` if files differ), or None outside one."""
    root = Path(lssvwm_agents.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        dirty = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("-dirty" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of what its numbers depend on."""
    found = {"python": platform.python_version(), "lssvwm-agents": lssvwm_agents.__version__}
    for name in ("torch", "numpy", "gymnasium"):
        found[name] = importlib.metadata.version(name)
    return found


def device_name(device: torch.device | str) -> str:
    """A readable name of ``device``: the card's, or the processor's with its number of torch threads."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({os.cpu_count()} cores, {torch.get_num_threads()} torch threads, {platform.machine()})"


def command_line() -> str:
    """The command that this process was started with, with the program's name shortened."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_info(device: torch.device | str) -> dict[str, object]:
    """``command``, ``commit``, ``device`` and ``versions``: what every report carries."""
    return {
        "command": command_line(),
        "commit": commit(),
        "device": device_name(device),
        "versions": versions(),
    }


def model_sha256(name_or_path: str | Path) -> str:
    """SHA-256 of a world model's ``model.safetensors``; named as for ``lssvwm_agents.weights.load_model``."""
    from lssvwm_agents.weights import find_model

    found = find_model(name_or_path)
    if isinstance(found, Path):
        return file_sha256(found / "model.safetensors")
    from huggingface_hub import hf_hub_download

    return file_sha256(hf_hub_download(found, "model.safetensors"))
