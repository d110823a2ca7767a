"""Processes of their own, for commands that are killed or must not see this one.

They are forked from a server that has imported PyTorch and the package once: each starts in a moment, where a
new interpreter would take seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple

METHOD = "forkserver"
_CONTEXT = multiprocessing.get_context(METHOD)
_CONTEXT.set_forkserver_preload(["lssvwm_agents.data.collect", "lssvwm_agents.trainers.pipeline", "tyro"])


class Finished(NamedTuple):
    """What a process said, and how it ended (minus the number of the signal that killed it)."""

    returncode: int
    stdout: str
    stderr: str


def start(target: Callable[..., object], *arguments: Any) -> ForkServerProcess:
    """A process that calls ``target``, which must be importable by its module's name."""
    process = _CONTEXT.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def pipe() -> tuple[Any, Any]:
    """(receiving, sending) end, for the arguments of a process."""
    return _CONTEXT.Pipe(duplex=False)


def start_lssvwm(*words: str, **environment: str) -> ForkServerProcess:
    """``lssvwm WORDS`` in a process of its own, with further variables, that nobody listens to."""
    return start(_lssvwm, words, Path(os.devnull), Path(os.devnull), environment)


def lssvwm(*words: str, timeout: float = 240.0) -> Finished:
    """Run ``lssvwm WORDS`` in a process of its own to its end."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("stdout", "stderr")]
        process = start(_lssvwm, words, *files, {})
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"`lssvwm {' '.join(words)}` did not end in {timeout} s")
        return Finished(process.exitcode, *(file.read_text() for file in files))


def _lssvwm(words: tuple[str, ...], stdout: Path, stderr: Path, environment: dict[str, str]) -> None:
    for number, file in ((1, stdout), (2, stderr)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ |= environment
    sys.argv = ["lssvwm", *words]
    from lssvwm_agents.cli import main

    sys.exit(main(words))
