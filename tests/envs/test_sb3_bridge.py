"""stable-baselines3 trains in imagined environments, and in any other vector environment, unchanged."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from imagined_builders import NoiseContexts, import_the_bridge, micro_model, micro_vector, same
from separate_processes import pipe, start

pytest.importorskip("stable_baselines3")

from stable_baselines3 import A2C, DQN, PPO, SAC  # noqa: E402
from stable_baselines3.common.evaluation import evaluate_policy  # noqa: E402
from stable_baselines3.common.monitor import Monitor  # noqa: E402
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize  # noqa: E402

from lssvwm_agents.envs import IMAGINED_ID, ImaginedVectorEnv  # noqa: E402
from lssvwm_agents.envs.sb3_bridge import SB3ImaginedVecEnv, SB3VecEnv  # noqa: E402
from lssvwm_agents.worldmodel import TokenizerConfig  # noqa: E402

SAME_STEP = AutoresetMode.SAME_STEP


LARGE = {"tokenizer": TokenizerConfig(frame_size=40, channels=(4, 4), latent_channels=2), "patch_size": 5}


def imagined(
    num_envs: int = 2, goes_on: float = 2.0, discrete: bool = True, large: bool = False, **settings
) -> ImaginedVectorEnv:
    settings = {"observation": "features", "max_episode_steps": 6, "num_denoising_steps": 1, **settings}
    model = micro_model(goes_on=goes_on, discrete_actions=discrete, **(LARGE if large else {}))
    return ImaginedVectorEnv(model, num_envs, autoreset_mode=SAME_STEP, **settings)


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "policy", "settings", "environment"),
    [
        (PPO, "MlpPolicy", {"n_steps": 32, "batch_size": 32, "n_epochs": 2}, {}),
        (
            PPO,
            "MultiInputPolicy",
            {"n_steps": 32, "batch_size": 32, "n_epochs": 1},
            {"observation": "dict", "large": True},
        ),
        (A2C, "MlpPolicy", {}, {"observation": "latent"}),
        (DQN, "MlpPolicy", {"buffer_size": 500, "learning_starts": 32}, {}),
        (SAC, "MlpPolicy", {"buffer_size": 500, "learning_starts": 32, "train_freq": 8}, {"discrete": False}),
    ],
    ids=["PPO", "PPO-dict", "A2C", "DQN", "SAC"],
)
def test_they_train_unchanged(algorithm, policy, settings, environment) -> None:
    env = VecMonitor(SB3ImaginedVecEnv(imagined(**environment)))
    agent = algorithm(policy, env, seed=0, device="cpu", **settings)
    before = [parameter.detach().clone() for parameter in agent.policy.parameters()]
    agent.learn(128)
    assert agent.num_timesteps >= 128
    changed = [bool((old != new).any()) for old, new in zip(before, agent.policy.parameters(), strict=True)]
    assert any(changed)
    assert len(agent.ep_info_buffer) > 10
    assert all(np.isfinite(info["r"]) and 1 <= info["l"] <= 6 for info in agent.ep_info_buffer)
    mean, _ = evaluate_policy(agent, env, n_eval_episodes=4, warn=False)
    assert np.isfinite(mean)


def test_a_cnn_trains_on_frames_of_the_shipped_model() -> None:
    venv = gymnasium.make_vec(
        IMAGINED_ID,
        num_envs=2,
        autoreset_mode="SameStep",
        context_frames=3,
        max_episode_steps=8,
        num_denoising_steps=1,
    )
    agent = PPO("CnnPolicy", SB3ImaginedVecEnv(venv), n_steps=16, batch_size=16, n_epochs=1, device="cpu")
    agent.learn(32)
    assert agent.observation_space.shape == (3, 64, 64)  # transposed by stable-baselines3 itself


def test_a_policy_learns_what_the_reward_head_pays_for() -> None:
    agent = PPO(
        "MlpPolicy",
        VecMonitor(SB3ImaginedVecEnv(imagined(8, goes_on=50.0))),
        n_steps=16,
        batch_size=64,
        n_epochs=4,
        learning_rate=0.01,
        seed=0,
        device="cpu",
    )
    arena = VecMonitor(SB3ImaginedVecEnv(imagined(8, goes_on=50.0)))
    arena.seed(100)
    before, _ = evaluate_policy(agent, arena, 16, deterministic=False)
    agent.learn(1500)
    arena.seed(100)
    after, _ = evaluate_policy(agent, arena, 16, deterministic=False)
    assert after > before


# --- the shape of answers -------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 6])
def test_ends_and_truncations_are_told_apart(limit: int) -> None:
    env = SB3ImaginedVecEnv(imagined(8, goes_on=1.0, max_episode_steps=limit))
    twin = imagined(8, goes_on=1.0, max_episode_steps=limit)
    env.seed(11)
    seen = env.reset()
    seen_too, _ = twin.reset(seed=11)
    assert same(seen, seen_too)
    kinds = set()
    for _ in range(10):
        actions = np.zeros(8, np.int64)
        seen, reward, done, infos = env.step(actions)
        seen_too, reward_too, terminated, truncated, info = twin.step(actions)
        assert same(seen, seen_too) and reward.dtype == np.float32 and done.dtype == np.bool_
        assert np.allclose(reward, reward_too) and np.array_equal(done, terminated | truncated)
        for row in range(8):
            assert infos[row]["TimeLimit.truncated"] == (truncated[row] and not terminated[row])
            assert ("terminal_observation" in infos[row]) == done[row]
            source = info["final_info"] if done[row] else info
            assert infos[row]["continuation"] == source["continuation"][row]
            if done[row]:
                assert same(infos[row]["terminal_observation"], info["final_obs"][row])
                assert env.reset_infos[row]["continuation"] == 1
            kinds |= {(bool(terminated[row]), bool(truncated[row]))}
    assert (True, True) in kinds if limit == 1 else {(True, False), (False, True)} <= kinds


def test_seeds_are_given_once() -> None:
    env = SB3ImaginedVecEnv(imagined(contexts=NoiseContexts()))
    assert list(env.seed(3)) == [3, 4]
    first, second = env.reset(), env.reset()
    env.seed(3)
    assert same(env.reset(), first) and not same(first, second) and same(env.reset(), second)


def test_any_vector_environment_crosses_the_bridge() -> None:
    def cartpole():
        return Monitor(gymnasium.make("CartPole-v1", max_episode_steps=10, render_mode="rgb_array"))

    venv = SyncVectorEnv([cartpole, cartpole], autoreset_mode=SAME_STEP)
    env = SB3VecEnv(venv)
    assert env.env_is_wrapped(Monitor) == [True, True] and env.env_is_wrapped(VecNormalize) == [False, False]
    assert [spec.id for spec in env.get_attr("spec")] == ["CartPole-v1"] * 2
    env.set_attr("mark", 4)
    env.set_attr("mark", 5, indices=1)
    assert env.get_attr("mark") == [4, 5] and env.get_attr("mark", 1) == [5]
    assert env.env_method("has_wrapper_attr", "mark") == [True, True]
    agent = PPO("MlpPolicy", env, n_steps=32, batch_size=32, n_epochs=1, seed=0, device="cpu")
    agent.learn(64)
    lengths = [info["l"] for info in agent.ep_info_buffer]
    assert lengths and max(lengths) <= 10
    evaluate_policy(agent, env, n_eval_episodes=2)


def test_monitored_episodes_of_gymnasium_wrappers_arrive() -> None:
    venv = gymnasium.wrappers.vector.RecordEpisodeStatistics(imagined(3, goes_on=50.0))
    env = SB3ImaginedVecEnv(venv)
    env.reset()
    for _ in range(6):
        infos = env.step(np.zeros(3, np.int64))[3]
    assert [info["episode"]["l"] for info in infos] == [6, 6, 6]


def test_attributes_and_methods_of_one_object_for_all() -> None:
    env = SB3ImaginedVecEnv(imagined(3, render_mode="rgb_array"))
    assert env.get_attr("render_mode") == ["rgb_array"] * 3 and env.render_mode == "rgb_array"
    assert not env.has_attr("nothing") and env.env_is_wrapped(Monitor) == [False] * 3
    env.set_attr("mark", 7)
    assert env.get_attr("mark", indices=[0, 2]) == [7, 7]
    with pytest.raises(ValueError, match=r"one attribute `mark` for all.*got \[1\]"):
        env.set_attr("mark", 8, indices=1)
    env.reset()
    states = env.env_method("get_state")
    assert len(states) == 3 and states[0] is env.get_state()
    with pytest.raises(ValueError, match="one method `get_state` for all"):
        env.env_method("get_state", indices=[0])
    seen = env.step(np.ones(3, np.int64))[0]
    env.set_state(states[0])
    assert same(env.step(np.ones(3, np.int64))[0], seen)
    assert env.render().shape == (512, 512, 3) and len(env.get_images()) == 3
    env.close()
    with pytest.raises(gymnasium.error.ClosedEnvironmentError, match="closed"):
        env.reset()


def test_what_cannot_cross_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="SAME_STEP, got AutoresetMode.NEXT_STEP"):
        SB3VecEnv(micro_vector(2))
    with pytest.raises(ValueError, match="array_type='numpy'"):
        SB3VecEnv(imagined(array_type="torch"))
    cartpoles = SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")], autoreset_mode=SAME_STEP)
    with pytest.raises(ValueError, match="ImaginedVectorEnv is needed, got SyncVectorEnv"):
        SB3ImaginedVecEnv(cartpoles)
    env = SB3ImaginedVecEnv(imagined())
    env.set_options([{"a": 1}, {"a": 2}])
    with pytest.raises(ValueError, match="one dict of options for all"):
        env.reset()


def test_without_stable_baselines3_one_sentence_tells_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "stable_baselines3.py").write_text("raise ModuleNotFoundError('none', name=__name__)")
    heard, told = pipe()
    start(import_the_bridge, str(tmp_path), told)
    told.close()
    sentence = heard.recv()
    assert "pip install 'lssvwm-agents[sb3]'" in sentence and "\n" not in sentence
