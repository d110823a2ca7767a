"""Wrappers, videos, loops and libraries that other people wrote, on environments of ours."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest
from adapter_builders import made, need
from gymnasium.wrappers import RecordVideo
from gymnasium.wrappers import vector as vector_wrappers
from imagined_builders import NoiseContexts, micro_model

import lssvwm_agents.envs  # noqa: F401
from lssvwm_agents.envs import ImaginedEnv, ImaginedVectorEnv


@pytest.mark.parametrize("name", ["RaycastMaze-7x7", "MiniGrid-MemoryS7", "Imagined"])
def test_torchrl_collects_rollouts(name: str) -> None:
    envs = pytest.importorskip("torchrl.envs", reason="the extra `bench` installs torchrl")
    env = ImaginedEnv(micro_model(), NoiseContexts()) if name == "Imagined" else made(f"lssvwm/{name}-v0")
    wrapped = envs.GymWrapper(env)
    envs.check_env_specs(wrapped)
    rollout = wrapped.rollout(5)
    assert rollout["pixels" if "pixels" in rollout.keys() else "observation"].shape[0] <= 5
    assert rollout["next", "reward"].isfinite().all()


def test_videos_of_other_mazes(tmp_path: Path) -> None:
    pytest.importorskip("moviepy", reason="RecordVideo needs moviepy")
    env = made("lssvwm/MiniGrid-MemoryS7-v0", render_mode="rgb_array", max_episode_steps=4)
    env = RecordVideo(env, str(tmp_path), disable_logger=True)
    env.reset(seed=0)
    while not any(env.step(0)[2:4]):
        pass
    env.close()
    assert [file.stat().st_size > 500 for file in tmp_path.glob("*.mp4")] == [True]


def test_vector_wrappers_around_other_mazes() -> None:
    need("lssvwm/MiniGrid-MemoryS7-v0")
    vector = gymnasium.make_vec("lssvwm/MiniGrid-MemoryS7-v0", num_envs=2, max_episode_steps=3)
    vector = vector_wrappers.ClipReward(vector_wrappers.RecordEpisodeStatistics(vector), -1.0, 1.0)
    vector = vector_wrappers.FlattenObservation(vector)
    assert vector.reset(seed=0)[0].shape == (2, 64 * 64 * 3)
    lengths = []
    for _ in range(8):
        info = vector.step(np.zeros(2, int))[4]
        lengths += info["episode"]["l"][info["_episode"]].tolist() if "episode" in info else []
    assert lengths == [3, 3] * 2


def test_ppo_of_stable_baselines3_trains_on_other_mazes() -> None:
    from stable_baselines3 import PPO

    from lssvwm_agents.envs.sb3_bridge import SB3VecEnv

    need("lssvwm/MiniGrid-MemoryS7-v0")
    vector = gymnasium.make_vec(
        "lssvwm/MiniGrid-MemoryS7-v0",
        num_envs=2,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP},
        max_episode_steps=6,
        observation="dict",
    )
    model = PPO("MultiInputPolicy", SB3VecEnv(vector), n_steps=8, batch_size=16, n_epochs=1, seed=0)
    before = [p.clone() for p in model.policy.parameters()]
    model.learn(16)
    assert any(not p.equal(q) for p, q in zip(model.policy.parameters(), before, strict=True))


def test_a_model_without_a_value_head_is_an_environment_all_the_same() -> None:
    vector = ImaginedVectorEnv(micro_model(value_head=False), 2, NoiseContexts())
    vector.reset(seed=0)
    assert np.isfinite(vector.step(np.array([0, 1]))[1]).all()
