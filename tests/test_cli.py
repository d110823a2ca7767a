import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from lssvwm_agents import __version__, cli
from lssvwm_agents.errors import UserError


def lssvwm(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    import os

    command = [sys.executable, "-m", "lssvwm_agents.cli", *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, **environment},
    )


def test_help_is_quick_and_fits_a_screen() -> None:
    start = time.monotonic()
    done = lssvwm("--help")
    assert time.monotonic() - start < 1.5
    assert done.returncode == 0 and len(done.stdout.splitlines()) <= 25
    assert max(map(len, done.stdout.splitlines())) <= 100
    words_of_commands = (
        "collect",
        "train",
        "train-policy",
        "plan",
        "evaluate planning",
        "evaluate policy",
        "evaluate memory",
        "compare",
        "bench planners",
        "demo",
        "play",
        "doctor",
        "report",
    )
    for words in words_of_commands:
        assert f"lssvwm {words} " in done.stdout


@pytest.mark.parametrize("command", cli.COMMANDS, ids=lambda command: "-".join(command.words))
def test_a_commands_help_lists_its_flags_without_torch(command) -> None:
    # Some commands have the fields of a configuration as flags, whose package imports torch.
    configured = (("train",), ("compare",), ("train-policy",), ("evaluate", "policy"))
    torch_free = command.words not in configured
    code = (
        f"import sys; from lssvwm_agents import cli\ntry: cli.main([*{command.words!r}, '--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        f"assert not {torch_free} or 'torch' not in sys.modules, 'torch was imported before the command ran'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert done.returncode == 0, done.stderr
    assert " ".join(command.words) in done.stdout and "--" in done.stdout


def test_version() -> None:
    assert lssvwm("--version").stdout == f"lssvwm-agents {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["colect"], "There is no command `colect`; choose one of `demo`"),
        (["evaluate", "recall"], "There is no command `evaluate recall`; choose one of"),
        (
            ["collect", "--env", "a/None-v0", "--out", "x", "--episodes", "0"],
            "`episodes` must be at least 1, got 0.",
        ),
        (
            ["collect", "--env", "CartPole-v1", "--out", "x", "--env-kwargs", "{"],
            "`--env-kwargs` must be JSON",
        ),
        (["collect", "--env", "a/None-v0", "--out", "/dev/null/x"], "`a/None-v0` cannot be made"),
    ],
)
def test_user_errors_are_one_sentence(arguments: list[str], words: str) -> None:
    done = lssvwm(*arguments, LSSVWM_DEBUG="0")
    assert done.returncode == 2 and done.stdout == ""
    assert words in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_debug_shows_the_traceback() -> None:
    done = lssvwm("collect", "--env", "a/None-v0", "--out", "x", "--episodes", "0", LSSVWM_DEBUG="1")
    assert done.returncode == 1 and "Traceback" in done.stderr


@dataclass(frozen=True)
class Args:
    """Try something."""

    what: str = "value"
    """Which error to raise."""


def run(args: Args) -> None:
    """Raise what was asked for, as one of our modules or as a foreign one."""
    if args.what == "user":
        raise UserError("Not like this.")
    if args.what == "file":
        open("/does/not/exist")
    if args.what == "extra":
        raise ImportError("Install the extra.")
    if args.what == "missing":
        import does_not_exist  # noqa: F401
    if args.what == "foreign":
        int("x")
        json_loads("{")
    if args.what == "interrupt":
        raise KeyboardInterrupt
    raise ValueError("`what` must be something else.")


def json_loads(text: str) -> None:
    import json

    json.loads(text)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions above as a command module of the package."""
    module = ModuleType("lssvwm_agents.commands.try")
    module.__dict__.update(Args=Args, json_loads=json_loads)
    exec(compile(Path(__file__).read_text(), __file__, "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(cli, "COMMANDS", (cli._Command(("try", "it"), module.__name__, "Try."),))


@pytest.mark.parametrize(
    ("what", "code", "words"),
    [
        ("value", 2, "lssvwm: `what` must be something else.\n"),
        ("user", 2, "lssvwm: Not like this.\n"),
        ("file", 2, "lssvwm: There is no file `/does/not/exist`.\n"),
        ("extra", 2, "lssvwm: Install the extra.\n"),
        ("interrupt", 130, "lssvwm: interrupted.\n"),
    ],
)
def test_what_the_user_can_mend(
    planted, capsys: pytest.CaptureFixture, what: str, code: int, words: str
) -> None:
    assert cli.main(["try", "it", "--what", what]) == code
    assert capsys.readouterr().err == words


def test_faults_of_the_program_keep_their_traceback(planted) -> None:
    with pytest.raises(ModuleNotFoundError):
        cli.main(["try", "it", "--what", "missing"])
