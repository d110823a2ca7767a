"""Every code block of README, documentation and examples runs, block after block, as a reader would try it.

Shell commands run too, at a smaller size where a comment before the block says so; those that need a GPU,
hours or other people's machines are read by their own parsers. ``doc_blocks.py`` describes the comments, and
``python tests/docs/doc_blocks.py`` lists what is checked how.
"""

import sys
from pathlib import Path

import pytest
import torch
from doc_blocks import PAGES, PYTHON, ROOT, SHELL, Block, read_blocks
from doc_commands import parse_command, run_command, skippable, smaller, words_of

BLOCKS = {page.relative_to(ROOT).as_posix(): read_blocks(page) for page in PAGES}
CHECKED = {name: [one for one in found if one.language in (PYTHON, SHELL)] for name, found in BLOCKS.items()}


def _of_planners() -> dict[str, object]:
    """What the fragments of docs/planners.md speak of, in the shipped model."""
    from typing import Protocol

    from lssvwm_agents.agents import PlanningAgent, load_carry, save_carry
    from lssvwm_agents.planners import CEM, DiscreteActions
    from lssvwm_agents.weights import load_model

    model, spec = load_model("tiny"), DiscreteActions(6)
    planner = CEM(spec, horizon=2, num_samples=4, num_elites=2, num_iterations=1)
    agent = PlanningAgent(model, planner)
    state = model.initial_state(1)
    return {
        **{"Protocol": Protocol, "torch": torch, "model": model, "spec": spec, "planner": planner},
        **{"dynamics": model, "state": state, "next_state": state, "generator": torch.Generator()},
        **{"frames": torch.rand(1, 3, 64, 64), "pose": torch.tensor([0.0, 0.0, 0.0, 1.0])},
        **{"PlanningAgent": PlanningAgent, "save_carry": save_carry, "load_carry": load_carry},
        "carry": agent.initial_carry(1),
    }


def _of_architecture() -> dict[str, object]:
    """What the overview of docs/architecture.md speaks of."""
    import numpy as np

    from lssvwm_agents.planners import CEM
    from lssvwm_agents.worldmodel import WorldModel

    names = _of_planners()
    still = torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    observation = {"frame": np.zeros((1, 64, 64, 3), np.uint8), "proprio": still.numpy()}
    return names | {
        **{"CEM": CEM, "WorldModel": WorldModel, "batch_size": 1, "num_envs": 1, "seed": 0},
        **{
            "frames": torch.rand(1, 3, 3, 64, 64),
            "actions": torch.zeros(1, 3, 6),
            "action": torch.eye(6)[:1],
        },
        **{"index": torch.tensor([0]), "mask": torch.tensor([False]), "n": 2, "episode_start": True},
        **{"folder": "folder", "path": "carry.safetensors", "warm_start": None, "action_spec": names["spec"]},
        "observation": observation,
    }


PRELUDES = {"docs/planners.md": _of_planners, "docs/architecture.md": _of_architecture}


@pytest.mark.parametrize("name", [name for name, found in CHECKED.items() if found])
def test_blocks_of_a_page(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # commands add the working folder
    names: dict[str, object] = {"__name__": "page", **PRELUDES.get(name, dict)()}
    for block in CHECKED[name]:
        for package in block.needs:
            pytest.importorskip(package, reason=f"{block.where} needs the package {package}")
        if block.language == PYTHON:
            run_python(block, names)
        else:
            run_shell(block, monkeypatch)


def run_python(block: Block, names: dict[str, object]) -> None:
    code = block.code
    for old, new in block.smaller:
        code = code.replace(old, new)
    if block.save:
        Path(block.save).write_text(code)
    lines_before = "\n" * (block.line - 1)  # so that an error names the page's own line
    exec(compile(lines_before + code, str(block.page), "exec"), names)


def run_shell(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in block.before:
        run_command(words_of(command))
    for command, check in zip(block.commands, block.checks, strict=True):
        words = words_of(command)
        if check.kind == "run":
            parse_command(words, monkeypatch)
            run_command(smaller(words, check.flags))
        elif check.kind == "parse":
            parse_command(words, monkeypatch)
        else:
            assert skippable(words), f"{block.where}: `{command}` is ours; say `parse: WHY`"
