"""Who may import whom, read from the source of every file; imports inside functions count too."""

import ast
import configparser
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("worldmodel", "planners", "envs", "lssvwm_agents")
OURS = "lssvwm_agents"

# Third-party packages that any file of the folder may import.
PACKAGES = {
    "worldmodel": {"torch", "numpy", "huggingface_hub", "safetensors", "triton"},
    "planners": {"torch"},
    "envs": {"gymnasium", "torch", "numpy"},
}
# Third-party packages that one file alone may import.
PACKAGES_OF_FILE = {
    "worldmodel/scan_mamba.py": {"mamba_ssm"},
    "worldmodel/diffusers_package.py": {"diffusers"},
    "envs/sb3_bridge.py": {"stable_baselines3"},
    "envs/adapters/headless.py": {"pyglet"},
    "envs/adapters/memory_maze.py": {"memory_maze"},
    "envs/adapters/minigrid.py": {"minigrid"},
    "envs/adapters/miniworld.py": {"miniworld"},
    "envs/adapters/robotics.py": {"gymnasium_robotics"},
}
# Packages of ours that a folder may import, besides itself.
OURS_FOR = {"worldmodel": set(), "planners": set(), "envs": {"lssvwm_agents.worldmodel"}}
# Only inside functions: optional, or slow to import.
LAZY = {
    *("mamba_ssm", "diffusers", "minari", "pyarrow"),
    *("gymnasium_robotics", "memory_maze", "minigrid", "miniworld", "pyglet"),
}
# Never: they are not installed.
NEVER = {"tests", "examples", "benchmarks", "envs", "planners", "worldmodel"}


def module_of(path: str) -> str:
    """Dotted name of a file given relative to the repository root."""
    parts = Path(path).with_suffix("").parts
    parts = parts if parts[0] == OURS else (OURS, *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: str, source: str) -> list[tuple[int, str, bool]]:
    """(line, absolute module, whether inside a function) of everything that a file imports."""
    tree = ast.parse(source)
    lazy = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    package = module_of(path).split(".")
    if not path.endswith("__init__.py"):
        package = package[:-1]
    found = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [base])])
            # `from lssvwm_agents import envs` names a package in its last word.
            names = [f"{base}.{alias.name}" if base == OURS else base for alias in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func
            called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                names = [node.args[0].value]
        found += [(node.lineno, name, id(node) in lazy) for name in dict.fromkeys(names)]
    return found


def faults(path: str, source: str, declared: set[str]) -> list[str]:
    """Sentences about the imports of one file that the table does not allow."""
    folder = Path(path).parts[0]
    found = []
    for line, name, lazy in imports(path, source):
        top = name.split(".")[0]
        where = f"{path}:{line}: "
        if top in NEVER:
            found.append(f"{where}`{name}` is not installed under that name")
        elif top == OURS:
            own = OURS if folder == OURS else f"{OURS}.{folder}"
            allowed = {own} | OURS_FOR.get(folder, set())
            if any(
                name == f"{OURS}.{never}" or name.startswith(f"{OURS}.{never}.")
                for never in ("tests", "examples")
            ):
                found.append(f"{where}`{name}`: nothing imports tests or examples")
            elif not any(name == a or name.startswith(a + ".") for a in allowed):
                found.append(f"{where}{folder} must not import `{name}`")
        elif top not in sys.stdlib_module_names:
            allowed = PACKAGES.get(folder, declared) | PACKAGES_OF_FILE.get(path, set())
            if top not in allowed:
                found.append(f"{where}{path} must not import `{top}`")
            elif top in LAZY and not lazy:
                found.append(f"{where}`{top}` is optional: import it inside a function")
    return found


def declared_packages() -> set[str]:
    """Import names of everything that setup.cfg lists, extras too."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].splitlines()
    for extra in config["options.extras_require"].values():
        lines += extra.splitlines()
    names = {re.match(r"[\w-]*", line.strip()).group().replace("-", "_") for line in lines}  # type: ignore[union-attr]
    return names - {""} | {"PIL" if "pillow" in names else "pillow"}


def files() -> list[str]:
    return sorted(str(p.relative_to(ROOT)) for folder in FOLDERS for p in (ROOT / folder).rglob("*.py"))


def test_no_import_against_the_arrows() -> None:
    declared = declared_packages()
    found = [fault for path in files() for fault in faults(path, (ROOT / path).read_text(), declared)]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("worldmodel/x.py", "import gymnasium"),
        ("worldmodel/x.py", "from lssvwm_agents.planners import CEM"),
        ("worldmodel/x.py", "from lssvwm_agents import envs"),
        ("worldmodel/x.py", "import lssvwm_agents"),
        ("worldmodel/x.py", "from ..planners import cem"),
        ("worldmodel/x.py", "def f():\n    import mamba_ssm"),
        ("worldmodel/scan_mamba.py", "import mamba_ssm"),
        ("worldmodel/x.py", "def f():\n    import diffusers"),
        ("worldmodel/diffusers_package.py", "from diffusers import AutoencoderKL"),
        ("worldmodel/x.py", "import importlib\nimportlib.import_module('lssvwm_agents.envs')"),
        ("planners/x.py", "import numpy as np"),
        ("planners/x.py", "def f():\n    from lssvwm_agents.worldmodel import model"),
        ("planners/sub/x.py", "from ...envs import maze_env"),
        ("envs/x.py", "import stable_baselines3"),
        ("envs/adapters/minigrid.py", "import minigrid"),
        ("envs/x.py", "from lssvwm_agents.agents import planning_agent"),
        ("envs/x.py", "import envs"),
        ("lssvwm_agents/data/x.py", "import pandas"),
        ("lssvwm_agents/data/x.py", "from tests import conftest"),
        ("lssvwm_agents/data/x.py", "import lssvwm_agents.examples.one"),
    ],
)
def test_the_checker_catches_a_planted_import(path: str, line: str) -> None:
    assert len(faults(path, line, declared_packages())) == 1


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("worldmodel/x.py", "import math\nimport torch.nn as nn\nfrom . import scan\nfrom .scan import ssd"),
        ("worldmodel/scan_mamba.py", "def f():\n    from mamba_ssm.ops import x"),
        ("worldmodel/diffusers_package.py", "def f():\n    import diffusers"),
        ("planners/__init__.py", "from .cem import CEM"),
        (
            "envs/adapters/x.py",
            "from ..maze_env import MazeEnv\nfrom lssvwm_agents.worldmodel import WorldModel",
        ),
        ("envs/sb3_bridge.py", "from stable_baselines3.common.vec_env import VecEnv"),
        ("lssvwm_agents/data/x.py", "import tyro, zarr, PIL.Image\nfrom lssvwm_agents import envs, planners"),
    ],
)
def test_the_checker_lets_good_imports_pass(path: str, line: str) -> None:
    assert faults(path, line, declared_packages()) == []


def test_every_package_is_installed() -> None:
    """setup.cfg names every folder that holds a package; a new one is easily forgotten."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    held = {module_of(str(Path(path).parent / "__init__.py")) for path in files()}
    assert held <= listed, f"add to `packages` in setup.cfg: {sorted(held - listed)}"
    folders = [ROOT / name.removeprefix("lssvwm_agents.").replace(".", "/") for name in listed]
    missing = [str(f) for f in folders if not (f / "__init__.py").is_file() and not _inner(f).is_file()]
    assert not missing, f"packages of setup.cfg without an __init__.py: {missing}"


def _inner(folder: Path) -> Path:
    return ROOT / OURS / folder.relative_to(ROOT) / "__init__.py"
