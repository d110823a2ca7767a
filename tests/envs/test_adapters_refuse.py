"""What adapted environments refuse, and what they say when something is missing."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from adapter_builders import CONTINUOUS, ONE_OF_EACH, QUICK, made, need, same

from lssvwm_agents.envs.adapters import headless


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_calls_out_of_order_are_refused(name: str) -> None:
    need(name)
    env = gymnasium.make(name, **({"env": "CartPole-v1"} if "Rendered" in name else {})).unwrapped
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset"):
        env.step(env.action_space.sample())
    env.close()
    env.close()
    for call in (lambda: env.step(env.action_space.sample()), env.reset):
        with pytest.raises(gymnasium.error.ClosedEnvironmentError, match="closed"):
            call()


@pytest.mark.parametrize("name", QUICK)
def test_wrong_actions_are_refused_and_change_nothing(name: str) -> None:
    env = made(name, observation="dict").unwrapped
    env.reset(seed=1)
    shape = env.action_space.shape
    if name in CONTINUOUS:
        zeros = np.zeros(shape, np.float32)
        wrong = [zeros + np.nan, zeros + np.inf, zeros + 1.5, zeros[1:], zeros.astype(str), None, "left"]
    else:
        wrong = [-1, env.action_space.n, 1.0, np.nan, np.array([0, 1]), None, "left", True]
    for action in wrong:
        with pytest.raises(gymnasium.error.InvalidAction, match="An action must be"):
            env.step(action)
    good = np.zeros(shape, np.float32) if name in CONTINUOUS else 0
    seen = env.step(good)[0]
    env.reset(seed=1)
    assert same(seen, env.step(good)[0])
    env.close()


def test_no_step_after_the_end() -> None:
    env = made("lssvwm/MiniGrid-MemoryS7-v0", max_steps=2).unwrapped
    env.reset(seed=0)
    env.step(0)
    assert env.step(0)[3]
    with pytest.raises(gymnasium.error.ResetNeeded, match="over"):
        env.step(0)


@pytest.mark.parametrize("name", ONE_OF_EACH)
@pytest.mark.parametrize(
    ("settings", "words"),
    [({"image_size": 4}, "`image_size`"), ({"observation": "pixels"}, "`observation`")],
)
def test_wrong_settings_are_named(name: str, settings: dict[str, Any], words: str) -> None:
    need(name)
    with pytest.raises(ValueError, match=words):
        gymnasium.make(name, **({"env": "CartPole-v1"} if "Rendered" in name else {}), **settings)


def test_names_that_no_package_has() -> None:
    for name, settings, words in (
        ("lssvwm/MiniGrid-MemoryS7-v0", {"grid": "Nowhere"}, "`grid` must be one of"),
        ("lssvwm/MiniWorld-Maze-v0", {"world": "Nowhere"}, "`world` must be one of"),
        ("lssvwm/MemoryMaze-9x9-v0", {"size": 10}, "`size` must be one of"),
        ("lssvwm/PointMaze-UMaze-v0", {"camera": "side"}, "`camera` must be"),
    ):
        with pytest.raises(ValueError, match=words):
            gymnasium.make(name, **settings)


EXTRAS = {  # package to an environment that needs it, and the extra that brings it
    "minigrid": ("lssvwm/MiniGrid-MemoryS7-v0", "minigrid"),
    "miniworld": ("lssvwm/MiniWorld-Maze-v0", "miniworld"),
    "gymnasium_robotics": ("lssvwm/PointMaze-UMaze-v0", "robotics"),
    "memory_maze": ("lssvwm/MemoryMaze-9x9-v0", "memory-maze"),
}


def test_a_missing_package_names_its_extra() -> None:
    code = (
        "import sys, importlib.abc\n"
        f"hidden = {list(EXTRAS)}\n"
        "class Hide(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in hidden: raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
        "import gymnasium, lssvwm_agents.envs\n"
        f"for name in {[name for name, _ in EXTRAS.values()]}:\n"
        "    try: gymnasium.make(name)\n"
        "    except Exception as error: print(str(error).splitlines()[-1])\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    said = told.stdout.splitlines()
    assert len(said) == len(EXTRAS), told.stderr
    for line, (_, extra) in zip(said, EXTRAS.values(), strict=True):
        assert f"pip install 'lssvwm-agents[{extra}]'" in line


def test_a_missing_renderer_is_one_sentence() -> None:
    for cause in (
        AttributeError("'NoneType' object has no attribute 'glGetError'"),
        ImportError("Cannot initialize a EGL device display."),
    ):
        with (
            pytest.raises(gymnasium.error.DependencyNotInstalled, match="libegl1.*libosmesa6"),
            headless.explained_renderer("This maze"),
        ):
            raise cause
    with pytest.raises(TypeError), headless.explained_renderer("This maze"):  # no matter of drawing
        raise TypeError("unexpected keyword")


def test_the_renderer_that_was_chosen_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert headless.choose_mujoco_renderer() == "osmesa"
