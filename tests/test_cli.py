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


def test_help_of_commands_lists_their_flags_without_torch() -> None:
    # Some commands have the fields of a configuration as flags, whose package imports torch; their help is
    # read in test_cli_conventions.py.
    configured = (("train",), ("compare",), ("train-policy",), ("evaluate", "policy"))
    told = [command.words for command in cli.COMMANDS if command.words not in configured]
    code = (
        "import sys; from lssvwm_agents import cli\n"
        f"for words in {told!r}:\n"
        "    try: cli.main([*words, '--help'])\n"
        "    except SystemExit as end: assert not end.code\n"
        "    assert 'torch' not in sys.modules, f'torch was imported before {words} ran'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert done.returncode == 0, done.stderr
    for words in told:
        assert f"usage: lssvwm {' '.join(words)} " in done.stdout


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"lssvwm-agents {__version__}\n"


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
def test_user_errors_are_one_sentence(
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LSSVWM_DEBUG", "0")
    assert cli.main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == "" and words in said.err and len(said.err.strip().splitlines()) == 1


def test_the_program_ends_with_the_status_and_debug_shows_the_traceback() -> None:
    done = lssvwm("colect", LSSVWM_DEBUG="0")
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.strip().splitlines()) == 1
    done = lssvwm("colect", LSSVWM_DEBUG="1")
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
