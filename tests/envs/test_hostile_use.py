"""Hostile use of imagined environments that needs more than one object: workers, bridges, damaged weights.

Wrong actions, calls out of order and two environments on one model are in test_imagined_envs.py; processes
killed while they write are in tests/data and tests/trainers.
"""

import copy
import functools
import gc
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from imagined_builders import NoiseContexts, micro_model, micro_vector, same
from safetensors.torch import load_file, save_file
from separate_processes import METHOD

from lssvwm_agents.cli import main
from lssvwm_agents.envs import ImaginedEnv, ImaginedVectorEnv
from lssvwm_agents.errors import UserError


def test_weights_without_a_reward_head_are_refused_in_a_sentence(tmp_path: Path, capsys) -> None:
    micro_model().save_pretrained(tmp_path / "whole")
    micro_model().save_pretrained(tmp_path / "part")
    file = tmp_path / "part" / "model.safetensors"
    weights = load_file(file)
    assert any(name.startswith("heads.reward.") for name in weights)
    save_file({name: w for name, w in weights.items() if not name.startswith("heads.reward.")}, file)
    settings = {"contexts": "cold", "max_episode_steps": 3}
    gymnasium.make("lssvwm/Imagined-v0", model=str(tmp_path / "whole"), **settings).reset(seed=0)
    told = "part` cannot be read as a world model.*heads.reward"
    with pytest.raises(UserError, match=told):
        gymnasium.make("lssvwm/Imagined-v0", model=str(tmp_path / "part"), **settings)
    with pytest.raises(UserError, match=told):
        gymnasium.make_vec("lssvwm/Imagined-v0", num_envs=2, model=str(tmp_path / "part"), **settings)
    assert main(["plan", "--model", str(tmp_path / "part"), "--out", str(tmp_path / "plan")]) == 2
    assert "heads.reward" in capsys.readouterr().err and not (tmp_path / "plan").exists()


def test_one_environment_pickled_into_two_workers() -> None:
    env = ImaginedEnv(micro_model(), NoiseContexts(), "dict")
    env.reset(seed=99)
    make = functools.partial(copy.copy, env)  # the workers get what was pickled, in the middle of an episode
    workers = gymnasium.vector.AsyncVectorEnv([make, make], context=METHOD)
    try:
        seen, _ = workers.reset(seed=3)
        after, rewards, *_ = workers.step(np.array([1, 2]))
    finally:
        workers.close()
    for row in range(2):
        alone = ImaginedEnv(micro_model(), NoiseContexts(), "dict")
        assert same(alone.reset(seed=3 + row)[0], {key: value[row] for key, value in seen.items()})
        expected, reward, *_ = alone.step(1 + row)
        assert same(expected, {key: value[row] for key, value in after.items()})
        assert rewards[row] == reward
    assert np.isfinite(env.step(0)[1])  # the first one goes on by itself


def test_a_bridge_to_stable_baselines3_refuses_what_the_environment_refuses() -> None:
    pytest.importorskip("stable_baselines3")
    from lssvwm_agents.envs.sb3_bridge import SB3VecEnv

    settings = {"contexts": NoiseContexts(), "observation": "features", "autoreset_mode": "SameStep"}
    boxes = SB3VecEnv(ImaginedVectorEnv(micro_model(discrete_actions=False), 2, **settings))
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset"):
        boxes.step(np.zeros((2, 3), np.float32))
    boxes.reset()
    with pytest.raises(gymnasium.error.InvalidAction, match="finite"):
        boxes.step(np.full((2, 3), np.nan, np.float32))
    assert np.isfinite(boxes.step(np.zeros((2, 3), np.float32))[1]).all()
    moves = SB3VecEnv(ImaginedVectorEnv(micro_model(), 2, **settings))
    moves.reset()
    with pytest.raises(gymnasium.error.InvalidAction, match="integers"):
        moves.step(np.array([0.0, 1.0]))
    moves.close()
    with pytest.raises(gymnasium.error.ClosedEnvironmentError, match="closed"):
        moves.step(np.array([0, 1]))


def test_endings_and_beginnings_leave_nothing_behind() -> None:
    """A short version of benchmarks/imagined_steps.py, which goes through 100,000 steps."""
    vector = micro_vector(8, goes_on=1.5, autoreset_mode=AutoresetMode.SAME_STEP, max_episode_steps=20)
    vector.reset(seed=0)
    actions = np.random.default_rng(0).integers(3, size=(100, 8))
    counts, sizes, ends = [], set(), 0
    for step, action in enumerate(actions):
        _, rewards, ended, cut, info = vector.step(action)
        sizes.add(vector.get_state().nbytes)
        ends += int((ended | cut).sum())
        if step in (20, len(actions) - 1):
            del info
            gc.collect()
            counts.append(sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()))
    assert ends > 75 and len(sizes) == 1 and counts[0] == counts[1]
    assert np.isfinite(rewards).all()
