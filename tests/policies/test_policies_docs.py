"""The flags that docs/policies.md names are there."""

import re
import shlex
from pathlib import Path

import tyro

from lssvwm_agents.commands.train_policy import TrainPolicyArgs

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "policies.md").read_text()


def test_the_commands_are_understood():
    text = TEXT.replace("\\\n", " ")
    commands = re.findall(r"^lssvwm train-policy (.*)$", text, flags=re.MULTILINE)
    assert len(commands) == 5
    for command in commands:
        words = shlex.split(command, comments=True)
        assert tyro.cli(TrainPolicyArgs, args=words).out.parts[0] == "runs"
    for flag in re.findall(r"`--((?:training|objective|starts|evaluation|refresh)\.[\w.-]+)", TEXT):
        group, name = flag.replace("-", "_").split(".", 1)
        owner = TrainPolicyArgs(Path("x")) if group == "refresh" else TrainPolicyArgs(Path("x")).recipe
        assert hasattr(getattr(owner, group), name.split(" ")[0]), flag
