"""Write files so that nobody ever meets half of one: a temporary file, then ``os.replace``."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on a clean exit it replaces ``path``, on an error it is removed.

    The temporary file keeps the suffix of ``path``, because writers of videos and pictures read it.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{final.stem}.", suffix=final.suffix, dir=final.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        apply_umask(temporary)
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def apply_umask(file: Path) -> None:
    """Give a file the mode that newly made files have; tempfile and safetensors let only the owner read."""
    mask = os.umask(0)
    os.umask(mask)
    file.chmod(0o666 & ~mask)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; refuses NaN and infinity, which JSON has not."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def write_tensors(path: str | Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors as safetensors, from whatever device, atomically."""
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        # Copies, because safetensors refuses tensors that share memory.
        on_cpu = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
        save_file(on_cpu, temporary)
