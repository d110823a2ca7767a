"""Run a shell command that a page shows, or let the parser that it names read it."""

from __future__ import annotations

import argparse
import configparser
import contextlib
import io
import json
import re
import runpy
import shlex
import sys
import time
from typing import Any

import pytest
import tyro
from doc_blocks import ROOT

from lssvwm_agents import cli

SIZES = frozenset(
    f"--{flag}"
    for flag in (
        "episodes num-envs seconds mazes look-around max-moves min-moves steps samples horizon iterations "
        "repeats contexts columns "
        "planner.num-samples planner.num-elites planner.num-iterations planner.horizon "
        "planner.gradient-updates "
        "options.context options.horizon options.periods options.delays options.drift-frames "
        "options.drift-episodes options.longest-stream "
        "data.num-envs data.episode-length data.num-validation-store-episodes "
        "tokenizer-training.updates tokenizer-training.frames-per-batch tokenizer-training.num-frames "
        "tokenizer-training.num-validation-frames "
        "training.updates training.frames-per-batch training.curriculum training.num-validation-episodes "
        "training.validation-context training.validation-horizon"
    ).split()
)
"""Flags that a comment may change: they say how much is done, and never what."""


class _UnderstoodError(Exception):
    """Raised in place of a script's work, once its flags are parsed."""


def words_of(command: str) -> list[str]:
    """The words of a command, without comment, variables before it, and the ampersand after it."""
    words = shlex.split(command, comments=True)
    while re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    words = words[:-1] if words[-1] == "&" else words
    return [re.sub(r"^\.venv[\w-]*/bin/", "", words[0]), *words[1:]]


def smaller(words: list[str], flags: tuple[str, ...]) -> list[str]:
    """The words with the sizes in ``flags`` in place of their own.

    Raises:
        ValueError: Where one of the flags is no size.
    """
    words = list(words)
    for index, flag in enumerate(flags):
        if not flag.startswith("--"):
            continue
        if flag == "--env-kwargs":
            _only_shorter_episodes(words, flags[index + 1])
        elif flag not in SIZES:
            raise ValueError(f"`{flag}` is no size: a page's command must run as it is written, only smaller")
        if flag in words:
            start = words.index(flag)
            stop = next((i for i in range(start + 1, len(words)) if words[i].startswith("--")), len(words))
            del words[start:stop]
    return [*words, *flags]


def _only_shorter_episodes(words: list[str], value: str) -> None:
    """``--env-kwargs`` may only differ in the length of episodes."""
    written = json.loads(words[words.index("--env-kwargs") + 1]) if "--env-kwargs" in words else {}
    changed = json.loads(value)
    written.pop("max_episode_steps", None)
    if changed.pop("max_episode_steps", None) is None or changed != written:
        raise ValueError(f"`--env-kwargs {value}` changes more than max_episode_steps")


def run_command(words: list[str]) -> None:
    """Run one of our commands in the working folder and in this process, as its entry point would.

    Its last line must say what to try next.
    """
    if words[0] != "lssvwm":
        raise ValueError(f"`{words[0]}` cannot be run here: say `parse: WHY` or `skip: WHY`")
    began, said = time.perf_counter(), io.StringIO()
    with contextlib.redirect_stdout(said):
        status = cli.main(words[1:])
    print(f"{said.getvalue()}{time.perf_counter() - began:.1f} s: {shlex.join(words)}")
    assert status == 0, f"`{shlex.join(words)}` ended with status {status}"
    last = said.getvalue().strip().splitlines()[-1]
    assert "Next: " in last or words[1] == "--help", f"`{shlex.join(words)}` ends with `{last}`"


def parse_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command's own parser read it.

    Raises:
        AssertionError: Where it refuses.
        ValueError: Where the command has no parser here.
    """
    program, rest = words[0], words[1:]
    try:
        if words == ["lssvwm", "--help"]:
            return
        if program == "lssvwm":
            cli.parse_command(rest)
        elif program == "torchrun":
            _parse_torchrun(rest, monkeypatch)
        elif program == "python":
            _parse_script(rest, monkeypatch)
        elif program == "make":
            _parse_make(rest)
        elif program == "pip":
            _parse_extras(rest)
        else:
            raise ValueError(f"`{program}` has no parser here: say `skip: WHY`")
    except SystemExit as error:  # how argparse and tyro refuse; `--help` leaves with status 0
        assert not error.code, f"`{shlex.join(words)}` is not understood"
    except Exception as error:
        if cli.explain(error) is None or program != "lssvwm":
            raise
        raise AssertionError(f"`{shlex.join(words)}`: {error}") from error


def skippable(words: list[str]) -> bool:
    """Whether a command is of a program that is not ours, and has no flags of ours."""
    return words[0] in ("git", "cd", "wait") or (words[0] == "pip" and "lssvwm" not in " ".join(words))


def _parse_torchrun(rest: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed.run import get_args_parser

    args = get_args_parser().parse_args(rest)
    assert args.module and args.training_script == "lssvwm_agents.cli", (
        "torchrun of something that is not ours"
    )
    parse_command(["lssvwm", *args.training_script_args], monkeypatch)


def _parse_script(rest: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Start a script of ours, and stop it where its flags have been parsed."""
    read_tyro, read_argparse = tyro.cli, argparse.ArgumentParser.parse_args

    def tyro_then_stop(*args: Any, **kwargs: Any) -> None:
        read_tyro(*args, **kwargs)
        raise _UnderstoodError

    def argparse_then_stop(self: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
        read_argparse(self, *args, **kwargs)
        raise _UnderstoodError

    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", [str(ROOT / rest[0]), *rest[1:]])
        patch.setattr(tyro, "cli", tyro_then_stop)
        patch.setattr(argparse.ArgumentParser, "parse_args", argparse_then_stop)
        with pytest.raises(_UnderstoodError):
            runpy.run_path(str(ROOT / rest[0]), run_name="__main__")


def _parse_make(rest: list[str]) -> None:
    """Every target and every variable is in the Makefile."""
    text = (ROOT / "Makefile").read_text()
    for word in rest:
        name, _, value = word.partition("=")
        pattern = rf"^{name}\s*\?=" if value else rf"^{name}:"
        assert re.search(pattern, text, re.MULTILINE), f"the Makefile has no `{word}`"


def _parse_extras(rest: list[str]) -> None:
    """Every extra of ours that is asked for is in setup.cfg."""
    (wanted,) = (re.fullmatch(r"lssvwm-agents\[([\w,-]+)\]", word) for word in rest[1:])
    assert rest[0] == "install" and wanted is not None, (
        f"`pip {shlex.join(rest)}` installs none of our extras"
    )
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    known = set(config["options.extras_require"])
    assert set(wanted[1].split(",")) <= known, f"setup.cfg has no extra {set(wanted[1].split(',')) - known}"
