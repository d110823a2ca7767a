"""PPO of stable-baselines3 in the real maze: it plays the mazes, by the rules, that our policies play."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from lssvwm_agents.evaluate.contenders import play_scripted
from lssvwm_agents.evaluate.mazes import episode_seeds, make_mazes

pytest.importorskip("stable_baselines3", reason="PPO needs the extra sb3")

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
TOY = {"steps": 16, "num_envs": 2, "n_steps": 8, "batch_size": 8, "episodes": 2, "moves": 4}


@pytest.fixture
def baseline(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("policy_ppo_baseline")


@pytest.mark.parametrize(
    "env, look_around, observation",
    [("lssvwm/RaycastMaze-7x7-v0", 5, "dict"), ("lssvwm/RaycastMaze-Cue-v0", 0, "frame")],
)
def test_record_reads_like_that_of_evaluate_policy(baseline, tmp_path, env, look_around, observation):
    path = tmp_path / "ppo.json"
    args = baseline.Args(env=env, look_around=look_around, observation=observation, json=path, seed=3, **TOY)
    baseline.main(args)
    record = json.loads(path.read_text())
    ours = json.loads((BENCHMARKS / "results" / "policy_tiny_sampled_seed0.json").read_text())
    assert set(ours) - {"imagined_against_real", "model", "model_sha256"} <= set(record)
    assert record["seeds"] == episode_seeds(3, 2)
    assert record["real_steps"] == 16
    assert [point["real_steps"] for point in record["learning_curve"]] == [16]
    assert len(record["policy"]["episodes"]) == len(record["policy_deterministic"]["episodes"]) == 2


def test_scripted_policies_score_as_in_evaluate_planning(baseline):
    args = baseline.Args(look_around=9, **{**TOY, "moves": 40})
    agent, _ = baseline.train(args)
    result, seeds = baseline.evaluate(args, agent), episode_seeds(0, 2)
    env = make_mazes(args.env, 2, 9 + 40, {})
    for name in ("random", "explorer", "oracle"):
        rewards = play_scripted(env, seeds, name, 9, 40, action_repeat=4)
        assert result[name]["episodes"] == rewards.sum(0).tolist()
    assert result["oracle"]["mean"] > 0


def test_player_sees_the_last_observations_also_of_looking_around(baseline):
    args = baseline.Args(look_around=2, **TOY)
    agent, _ = baseline.train(args)
    env = make_mazes(args.env, 2, 8, {"observation": "dict"})
    player = baseline.PPOPlayer(agent, env.single_observation_space, args.frame_stack, deterministic=False)
    carry = player.initial_carry(2, seed=0)
    seen = [env.reset(seed=[1, 2])[0]]
    for action in (1, 2):
        carry = player.record_action(player.observe(seen[-1], carry), action)
        seen.append(env.step(np.full(2, action))[0])
    action, carry = player.act(seen[-1], carry)
    assert action.shape == (2,)
    for key, stack in carry.sub_stacked_observations.items():
        wanted = [np.zeros_like(seen[0][key]), *(one[key] for one in seen)]
        np.testing.assert_array_equal(stack.stacked_obs, np.concatenate(wanted, axis=-1))


def test_samples_follow_from_the_seed(baseline):
    args = baseline.Args(look_around=2, **TOY)
    agent, _ = baseline.train(args)
    env = make_mazes(args.env, 2, 8, {"observation": "dict"})
    observation, _ = env.reset(seed=[1, 2])
    player = baseline.PPOPlayer(agent, env.single_observation_space, args.frame_stack, deterministic=False)

    def actions(seed):
        carry = player.initial_carry(2, seed)
        return np.stack([player.act(observation, carry)[0] for _ in range(8)])

    np.testing.assert_array_equal(actions(5), actions(5))
    assert (actions(5) != actions(6)).any()


def test_steps_that_are_no_whole_rollouts_are_refused(baseline):
    with pytest.raises(ValueError, match="`steps` must be a multiple of num_envs x n_steps=16, got 17"):
        baseline.Args(**{**TOY, "steps": 17})
    with pytest.raises(ValueError, match="`batch_size` must divide num_envs x n_steps=16, got 5"):
        baseline.Args(**{**TOY, "batch_size": 5})
