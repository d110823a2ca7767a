"""The command line: ``lssvwm COMMAND [flags]``.

Only the chosen command's module is imported. Such a module offers ``run(args)``, whose argument is annotated
with a frozen dataclass; each field becomes a flag and its docstring the flag's help (tyro). A module whose
flags depend on one another may instead offer ``parse(arguments: list[str], prog: str)``, which returns what
``run`` takes.
"""

from __future__ import annotations

import importlib
import os
import sys
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType, TracebackType

from lssvwm_agents import __version__
from lssvwm_agents.errors import UserError


@dataclass(frozen=True)
class _Command:
    """The words that choose a command, the module that carries it out, one line about it, and its group."""

    words: tuple[str, ...]
    module: str
    summary: str
    group: str = "Other"


_TRY, _LEARN, _MEASURE = "Try it", "Learn and plan", "Measure and show"

COMMANDS = (
    _Command(
        ("demo",), "lssvwm_agents.commands.demo", "Plan in unseen mazes with the shipped world model.", _TRY
    ),
    _Command(
        ("play",), "lssvwm_agents.commands.play", "Walk in the model's dream yourself, in a browser.", _TRY
    ),
    _Command(
        ("doctor",), "lssvwm_agents.commands.doctor", "Say what is installed here, and what works.", _TRY
    ),
    _Command(
        ("collect",), "lssvwm_agents.commands.collect", "Play episodes and write them to a store.", _LEARN
    ),
    _Command(
        ("data", "info"), "lssvwm_agents.commands.data_info", "Say what recorded episodes hold.", _LEARN
    ),
    _Command(
        ("data", "convert"),
        "lssvwm_agents.commands.data_convert",
        "Read and write Minari, LeRobot, videos with tables.",
        _LEARN,
    ),
    _Command(("data", "merge"), "lssvwm_agents.commands.data_merge", "Put several stores into one.", _LEARN),
    _Command(
        ("data", "preview"),
        "lssvwm_agents.commands.data_preview",
        "Draw a contact sheet and a video of episodes.",
        _LEARN,
    ),
    _Command(("train",), "lssvwm_agents.commands.train", "Train a tokenizer and a world model.", _LEARN),
    _Command(
        ("train-policy",),
        "lssvwm_agents.commands.train_policy",
        "Train a policy in imagination, judge it in the real environment.",
        _LEARN,
    ),
    _Command(("plan",), "lssvwm_agents.commands.plan", "Let a planning agent play an environment.", _LEARN),
    _Command(
        ("evaluate", "planning"),
        "lssvwm_agents.commands.evaluate_planning",
        "Score the planner beside random, explorer and oracle.",
        _MEASURE,
    ),
    _Command(
        ("evaluate", "policy"),
        "lssvwm_agents.commands.evaluate_policy",
        "Judge a trained policy, alone and inside a planner.",
        _MEASURE,
    ),
    _Command(
        ("evaluate", "memory"),
        "lssvwm_agents.commands.evaluate_memory",
        "Measure how far back a world model remembers.",
        _MEASURE,
    ),
    _Command(
        ("compare",),
        "lssvwm_agents.commands.compare",
        "Train baselines by one recipe and measure what each remembers.",
        _MEASURE,
    ),
    _Command(
        ("bench", "planners"),
        "lssvwm_agents.commands.bench_planners",
        "Time planners beside those of other packages.",
        _MEASURE,
    ),
    _Command(
        ("bench", "planning"),
        "lssvwm_agents.commands.bench_planning",
        "Time whole plans in a world model.",
        _MEASURE,
    ),
    _Command(
        ("report",),
        "lssvwm_agents.commands.report",
        "Show runs and their measurements on one HTML page.",
        _MEASURE,
    ),
)


def _listed() -> list[tuple[str, str, str]]:
    """(words, summary, group) of every line of the help: what is done with data takes one line."""
    verbs = "|".join(command.words[1] for command in COMMANDS if command.words[0] == "data")
    return [
        ("data VERB", f"{verbs}: recorded episodes.", command.group)
        if command.words[0] == "data"
        else (" ".join(command.words), command.summary, command.group)
        for command in COMMANDS
    ]


def usage() -> str:
    """The overview that ``lssvwm --help`` prints."""
    lines = [
        "usage: lssvwm COMMAND [flags]",
        "",
        "Agents that plan inside a long-memory video world model.",
        "",
    ]
    for group in dict.fromkeys(command.group for command in COMMANDS):
        lines.append(f"{group}:")
        shown = {name: summary for name, summary, where in _listed() if where == group}
        lines += [f"  lssvwm {name:<20}{summary}" for name, summary in shown.items()]
    lines += [
        "",
        "`lssvwm COMMAND --help` lists a command's flags; `lssvwm --version` says which version this is.",
    ]
    lines += ["Set LSSVWM_DEBUG=1 to see where an error came from."]
    return "\n".join(lines)


def find_command(arguments: Sequence[str]) -> tuple[_Command, list[str]]:
    """The command that the first words of ``arguments`` name, and the arguments after it.

    Raises:
        UserError: When no command is named so.
    """
    for command in COMMANDS:
        count = len(command.words)
        if tuple(arguments[:count]) == command.words:
            return command, list(arguments[count:])
    known = ", ".join("`" + " ".join(command.words) + "`" for command in COMMANDS)
    longer = any(command.words[0] == arguments[0] for command in COMMANDS)
    given = " ".join(arguments[:2] if longer else arguments[:1])
    raise UserError(f"There is no command `{given}`; choose one of {known}.")


def argument_class(module: ModuleType) -> type:
    """The dataclass that ``module.run`` takes, read from its annotation."""
    hints = typing.get_type_hints(module.run)
    hints.pop("return", None)
    (annotation,) = hints.values()
    return typing.cast(type, annotation)


def parse_command(arguments: Sequence[str]) -> tuple[ModuleType, object]:
    """The module of the command that ``arguments`` begin with, and what its ``run`` takes for the others.

    Raises:
        UserError: When no command is named so.
        SystemExit: When a flag is not understood, or help was asked for.
    """
    command, rest = find_command(arguments)
    prog = " ".join(("lssvwm", *command.words))
    module = importlib.import_module(command.module)
    if hasattr(module, "parse"):
        return module, module.parse(rest, prog)
    import tyro

    return module, tyro.cli(argument_class(module), prog=prog, args=rest)


def execute(arguments: Sequence[str]) -> None:
    """Carry out one command; errors are raised."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return
    if arguments[0] == "--version":
        print(f"lssvwm-agents {__version__}")
        return
    group = [
        command.words[1] for command in COMMANDS if command.words[0] == arguments[0] and command.words[1:]
    ]
    if group and arguments[1:2] in ([], ["-h"], ["--help"]):
        verb, what = arguments[0], ", ".join(group)
        done = {"data": "done with data", "evaluate": "evaluated", "bench": "measured"}[verb]
        print(f"usage: lssvwm {verb} {group[0]} [flags]\n\nWhat can be {done}: {what}.")
        return
    module, parsed = parse_command(arguments)
    module.run(parsed)


def _raised_by_us(traceback: TracebackType | None) -> bool:
    """Whether the innermost frame of a traceback lies in this package."""
    name = ""
    while traceback is not None:
        name = traceback.tb_frame.f_globals.get("__name__", "")
        traceback = traceback.tb_next
    return name == "lssvwm_agents" or name.startswith("lssvwm_agents.")


def explain(error: BaseException) -> str | None:
    """One sentence for an error that the user can mend; None for any other, which is a fault of ours."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return f"There is no file `{error.filename}`." if error.filename else str(error)
    if isinstance(error, ImportError) and error.name is None and _raised_by_us(error.__traceback__):
        return str(error)
    if isinstance(error, ValueError) and _raised_by_us(error.__traceback__):
        return str(error)
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command.

    Args:
        arguments: The words after ``lssvwm``; None takes them from the command line.

    Returns:
        The exit status: 0; 2 when the user can mend what was wrong, after one sentence on stderr; 130 when
        interrupted.
    """
    if os.getcwd() not in sys.path:  # last: for `--env my_module:Id-v0`
        sys.path.append(os.getcwd())
    try:
        execute(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("lssvwm: interrupted.", file=sys.stderr)
        return 130
    except Exception as error:
        sentence = explain(error)
        if sentence is None or os.environ.get("LSSVWM_DEBUG", "0") not in ("", "0"):
            raise
        print(f"lssvwm: {sentence}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
