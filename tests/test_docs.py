"""The Python that README and documentation show runs, block after block, as a reader would paste it."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md")), *sorted((ROOT / "examples").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ELSEWHERE = {"docs/imagined_environments.md"}  # tests/envs/test_imagined_docs.py
NEEDS = {"docs/other_backbones.md": "diffusers", "docs/how_to/stable_baselines3.md": "stable_baselines3"}
SHORTER = {  # what would take minutes, or a GPU
    "docs/planners.md": ('rollouts="cuda_graph"', 'rollouts="eager"'),
    "README.md": ("range(48)", "range(5)"),
    "docs/architecture.md": (
        "horizon=15, num_samples=512, num_elites=64, num_iterations=6",
        "horizon=2, num_samples=4, num_elites=2, num_iterations=1",
    ),
}
WITH_PYTHON = [page.relative_to(ROOT).as_posix() for page in PAGES if BLOCK.search(page.read_text())]


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


@pytest.mark.parametrize("name", [name for name in WITH_PYTHON if name not in ELSEWHERE])
def test_python_of_a_page_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"the page's code needs the package {NEEDS[name]}")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / name).read_text()
    if name in SHORTER:
        assert SHORTER[name][0] in text
        text = text.replace(*SHORTER[name])
    names: dict[str, object] = {"__name__": "page", **PRELUDES.get(name, dict)()}
    for block in BLOCK.finditer(text):
        line = text[: block.start()].count("\n") + 1
        code = "\n" * line + block[1]  # so that an error names the page's own line
        exec(compile(code, str(ROOT / name), "exec"), names)


def test_pages_are_finished_and_their_links_lead_somewhere() -> None:
    """No placeholder is left, every linked file is there, and so is every linked heading."""
    headings = {page: set(_anchors(page.read_text())) for page in PAGES}
    wrong = []
    for page in PAGES:
        text = page.read_text()
        wrong += [f"{page.name}: placeholder {found}" for found in re.findall(r"@@\w+@@", text)]
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            linked = (page.parent / name).resolve() if name else page
            if not linked.exists():
                wrong.append(f"{page.name}: no file {target}")
            elif anchor and linked.suffix == ".md" and anchor not in headings[linked]:
                wrong.append(f"{page.name}: no heading {target}")
    assert not wrong


def test_every_page_is_in_the_sites_navigation() -> None:
    listed = set(re.findall(r"[\w/]+\.md", (ROOT / "mkdocs.yml").read_text()))
    assert listed == {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}


def test_the_reference_lists_every_public_name() -> None:
    import importlib

    for name in ("worldmodel", "planners", "envs", "agents"):
        module = importlib.import_module(f"lssvwm_agents.{name}")
        page = (DOCS / "reference" / f"{name}.md").read_text()
        shown = set(re.findall(r"^::: [\w.]+\.(\w+)$", page, re.MULTILINE))
        origins = {one: getattr(getattr(module, one), "__module__", "") for one in module.__all__}
        documented = {one for one, origin in origins.items() if origin.startswith("lssvwm")}
        assert shown == documented, f"docs/reference/{name}.md: {sorted(shown ^ documented)}"


def _anchors(text: str) -> list[str]:
    """What a Markdown page's headings are called in links."""
    lines = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE).splitlines()
    titles = [line.lstrip("#").strip() for line in lines if re.match(r"#+ ", line)]
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
