import time
from dataclasses import replace
from pathlib import Path

import counting_envs  # noqa: F401  (registers tests/Counting-v0)
import gymnasium
import numpy as np
import pytest
from separate_processes import lssvwm, start_lssvwm

import lssvwm_agents.envs  # noqa: F401  (registers the ids)
from lssvwm_agents.data import Episode, EpisodeStore
from lssvwm_agents.data.collect import CollectConfig, collect
from lssvwm_agents.errors import UserError

ENV = "tests/Counting-v0"


def by_seed(store: EpisodeStore) -> dict[int, Episode]:
    return {episode.seed: episode for episode in store}


def assert_same(one: dict[int, Episode], other: dict[int, Episode]) -> None:
    assert one.keys() == other.keys()
    for seed, episode in one.items():
        for name, array in episode.arrays().items():
            assert np.array_equal(array, other[seed].arrays()[name]), (seed, name)


@pytest.mark.parametrize("observation", ["image", "dict", "vector"])
@pytest.mark.parametrize("continuous", [False, True])
def test_the_store_holds_what_happened(tmp_path: Path, observation: str, continuous: bool) -> None:
    kwargs = {"observation": observation, "continuous": continuous}
    config = CollectConfig(ENV, episodes=7, num_envs=3, seed=100, env_kwargs=kwargs, frame_size=None)
    store = collect(config, tmp_path / "s", progress=False)
    size = 64 if observation == "vector" else 16
    assert store.spec.env_id == ENV and store.spec.env_kwargs == kwargs and store.spec.policy == "random"
    assert store.spec.frame_shape == (size, size, 3) and store.spec.proprio_dim == 2
    assert store.spec.action_dim == (2 if continuous else 5)
    assert sorted(store.seeds) == list(range(100, 107))
    env = gymnasium.make(ENV, render_mode="rgb_array", **kwargs)
    for episode in store:
        env.reset(seed=episode.seed)
        assert len(episode) == env.unwrapped.length + 1
        assert episode.rewards.tolist() == list(range(len(episode)))
        assert not episode.actions[0].any() and episode.actions.dtype == env.action_space.dtype
        assert not (episode.terminated | episode.truncated)[:-1].any()
        assert episode.terminated[-1] == (env.unwrapped.draw % 2 == 0) != episode.truncated[-1]
        assert episode.proprio.tolist() == [[t, env.unwrapped.draw] for t in range(len(episode))]
        for t, frame in enumerate(episode.frames):
            if t:
                env.step(episode.actions[t])
            if observation == "vector":
                assert np.array_equal(frame, env.render().repeat(2, 0).repeat(2, 1))
            else:
                assert np.array_equal(frame, env.render())
    assert len({episode.actions[1:4].tobytes() for episode in store}) > 4


def test_an_episode_depends_on_its_seed_alone(tmp_path: Path) -> None:
    config = CollectConfig(ENV, episodes=9, num_envs=1, seed=5, epsilon=0.3)
    alone = by_seed(collect(config, tmp_path / "1", progress=False))
    assert_same(alone, by_seed(collect(replace(config, num_envs=4), tmp_path / "4", progress=False)))
    assert_same(alone, by_seed(collect(replace(config, num_envs=64), tmp_path / "64", progress=False)))
    shifted = by_seed(collect(replace(config, seed=8, episodes=6), tmp_path / "8", progress=False))
    assert_same({seed: alone[seed] for seed in range(8, 14)}, shifted)


def test_it_goes_on_up_to_the_number_asked_for(tmp_path: Path) -> None:
    config = CollectConfig(ENV, episodes=4, num_envs=3)
    collect(config, tmp_path / "s", progress=False)
    more = collect(replace(config, episodes=10, num_envs=2), tmp_path / "s", progress=False)
    assert more.num_episodes == 10
    again = collect(replace(config, episodes=10), tmp_path / "s", progress=False)
    assert again.num_episodes == 10
    assert_same(
        by_seed(again), by_seed(collect(replace(config, episodes=10), tmp_path / "t", progress=False))
    )


def test_killed_collector_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "s"
    command = ["collect", "--env", f"counting_envs:{ENV}"]
    command += ["--episodes", "60", "--num-envs", "4", "--out", str(path)]
    kills, done = 0, 0
    while kills < 3 and done < 60:
        process = start_lssvwm(*command)
        deadline = time.monotonic() + 60
        while process.is_alive() and time.monotonic() < deadline:
            if (path / "index.npy").exists() and len(np.load(path / "index.npy")) >= done + 5:
                break
            time.sleep(0.001)
        process.kill()
        process.join()
        kills += 1
        store = EpisodeStore.open(path)
        assert store.num_episodes >= done + 5
        done = store.num_episodes
        assert len(by_seed(store)) == done  # every one is whole
    finished = lssvwm(*command)
    assert finished.returncode == 0, finished.stderr
    assert "60 episodes" in finished.stdout and "Next: collect with --frame-size 64" in finished.stdout
    config = CollectConfig(f"counting_envs:{ENV}", episodes=60)
    assert_same(by_seed(EpisodeStore.open(path)), by_seed(collect(config, tmp_path / "t", progress=False)))


@pytest.mark.parametrize("name", ["PPO", "A2C", "DQN", "SAC", "TD3", "DDPG"])
def test_loaded_policy(tmp_path: Path, name: str) -> None:
    stable_baselines3 = pytest.importorskip("stable_baselines3")
    kwargs = {"observation": "vector", "continuous": name not in ("PPO", "A2C", "DQN")}
    extra = {} if name in ("PPO", "A2C") else {"buffer_size": 10}
    env = gymnasium.make(ENV, **kwargs)
    model = getattr(stable_baselines3, name)("MlpPolicy", env, device="cpu", **extra)
    model.save(tmp_path / "policy.zip")
    config = CollectConfig(ENV, str(tmp_path / "policy.zip"), episodes=2, num_envs=2, env_kwargs=kwargs)
    for episode in collect(config, tmp_path / "s", progress=False):
        observations = episode.proprio[:-1]
        expected, _ = model.predict(observations, deterministic=True)
        assert np.allclose(episode.actions[1:], expected, atol=1e-5)


def test_loaded_policy_of_another_environment(tmp_path: Path) -> None:
    stable_baselines3 = pytest.importorskip("stable_baselines3")
    stable_baselines3.PPO("MlpPolicy", gymnasium.make(ENV, observation="vector")).save(
        tmp_path / "policy.zip"
    )
    config = CollectConfig(
        ENV, str(tmp_path / "policy.zip"), env_kwargs={"observation": "vector", "continuous": True}
    )
    with pytest.raises(UserError, match="The loaded policy acts in"):
        collect(config, tmp_path / "s", progress=False)


MAZE = {"max_episode_steps": 30}


@pytest.mark.parametrize("policy", ["held_random", "explorer", "forager", "oracle"])
@pytest.mark.parametrize("env", ["lssvwm/RaycastMaze-7x7-v0", "lssvwm/RaycastMaze-7x7-Continuous-v0"])
def test_scripted_policies_in_mazes(tmp_path: Path, policy: str, env: str) -> None:
    kwargs = {"max_episode_steps": 12}
    config = CollectConfig(env, policy, episodes=4, num_envs=1, seed=40, env_kwargs=kwargs)
    alone = collect(config, tmp_path / "1", progress=False)
    assert_same(by_seed(alone), by_seed(collect(replace(config, num_envs=3), tmp_path / "3", progress=False)))
    assert alone.spec.frame_shape == (64, 64, 3) and alone.spec.proprio_dim == 4
    single = gymnasium.make(env, **kwargs)
    for episode in alone:
        frame, info = single.reset(seed=episode.seed)
        assert len(episode) == 13 and episode.truncated[-1]
        for t in range(13):
            if t:
                frame, reward, *_, info = single.step(episode.actions[t])
                assert reward == episode.rewards[t]
            assert np.array_equal(frame, episode.frames[t])
            assert np.array_equal(info["proprio"], episode.proprio[t])


def test_dict_observations_of_mazes(tmp_path: Path) -> None:
    config = CollectConfig("lssvwm/RaycastMaze-Cue-v0", "explorer", episodes=2, env_kwargs=MAZE)
    plain = by_seed(collect(config, tmp_path / "frame", progress=False))
    config = replace(config, env_kwargs={**MAZE, "observation": "dict"})
    assert_same(plain, by_seed(collect(config, tmp_path / "dict", progress=False)))


def test_loaded_policy_sees_frames(tmp_path: Path) -> None:
    stable_baselines3 = pytest.importorskip("stable_baselines3")
    env = gymnasium.make("lssvwm/RaycastMaze-7x7-v0", **MAZE)
    model = stable_baselines3.PPO("CnnPolicy", env, n_steps=8, device="cpu")
    model.save(tmp_path / "policy.zip")
    config = CollectConfig(
        "lssvwm/RaycastMaze-7x7-v0", str(tmp_path / "policy.zip"), episodes=2, env_kwargs=MAZE
    )
    for episode in collect(config, tmp_path / "s", progress=False):
        assert np.array_equal(episode.actions[1:], model.predict(episode.frames[:-1], deterministic=True)[0])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (CollectConfig("lssvwm/RaycastMaze-7x7-v0", env_kwargs={"texture": "pink"}), "`texture` must be"),
        (CollectConfig("tests/Missing-v0"), "`tests/Missing-v0` cannot be made"),
        (CollectConfig("nothing:tests/Missing-v0"), "cannot be made"),
        (CollectConfig(ENV, env_kwargs={"colour": 1}), "does not take"),
        (CollectConfig(ENV, policy="genius"), "`policy` must be random, held_random, explorer"),
        (CollectConfig(ENV, policy="explorer"), "plays RaycastMaze environments only"),
        (CollectConfig(ENV, policy=__file__), "not a policy saved by stable-baselines3"),
    ],
)
def test_bad_input(tmp_path: Path, config: CollectConfig, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        collect(config, tmp_path / "s", progress=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change", [{"episodes": 0}, {"num_envs": 0}, {"seed": -1}, {"epsilon": 1.5}, {"frame_size": 0}]
)
def test_bad_numbers(change: dict) -> None:
    with pytest.raises(UserError, match=f"`{next(iter(change))}` must be"):
        CollectConfig(ENV, **change)


def test_other_episodes_are_not_mixed_in(tmp_path: Path) -> None:
    config = CollectConfig(ENV, episodes=2)
    collect(config, tmp_path / "s", progress=False)
    for change in ({"seed": 1}, {"epsilon": 0.5}, {"env_kwargs": {"size": 32}}, {"frame_size": 8}):
        with pytest.raises(UserError, match="was made with .* choose another folder"):
            collect(replace(config, **change), tmp_path / "s", progress=False)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="is not an episode store"):
        collect(config, tmp_path / "foreign", progress=False)


def test_an_environment_whose_renderer_is_missing_leaves_no_store(tmp_path: Path, monkeypatch) -> None:
    def render(self) -> None:
        raise gymnasium.error.DependencyNotInstalled("pygame is not installed")

    monkeypatch.setattr("gymnasium.envs.classic_control.cartpole.CartPoleEnv.render", render)
    with pytest.raises(UserError, match="`CartPole-v1` cannot be drawn: pygame is not installed"):
        collect(CollectConfig(env="CartPole-v1", episodes=1), tmp_path / "s", progress=False)
    assert not (tmp_path / "s").exists()
