"""Imagined environments by name: checkers, contexts, other people's wrappers and loops, workers."""

import functools
import pickle
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import FrameStackObservation, RecordEpisodeStatistics, RecordVideo
from gymnasium.wrappers import vector as vector_wrappers
from imagined_builders import FRAME_SIZE, micro_model, same
from separate_processes import METHOD

import lssvwm_agents.envs as envs
from lssvwm_agents.data import Episode, EpisodeStore
from lssvwm_agents.data.contexts import StoreContexts
from lssvwm_agents.data.store_spec import StoreSpec
from lssvwm_agents.envs import IMAGINED_ID, ImaginedEnv, ImaginedVectorEnv, MazeConfig, MazeContexts
from lssvwm_agents.envs.contexts import PlayedContexts
from lssvwm_agents.errors import StoreError
from lssvwm_agents.imagined import make_imagined_env, make_imagined_vector_env
from lssvwm_agents.weights import shared_model

QUICK = {"context_frames": 3, "num_denoising_steps": 1}
UNBOUNDED = "ignore:.*A Box observation space m.*imum value is -?infinity"
LIKE_IMAGES = (  # a latent has three dimensions, as an image has
    "ignore:It seems that your observation",
    "ignore:The minimal resolution for an image is 36x36",
)


def saved(path: Path, **overrides) -> str:
    micro_model(**overrides).save_pretrained(path)
    return str(path)


# --- made by name ---------------------------------------------------------------------------------


@pytest.mark.parametrize("observation", ["frame", "latent", "features", "dict"])
@pytest.mark.filterwarnings(UNBOUNDED)
@pytest.mark.filterwarnings(*LIKE_IMAGES)
@pytest.mark.filterwarnings("error")
def test_both_env_checkers_pass(observation: str) -> None:
    sb3_checker = pytest.importorskip("stable_baselines3.common.env_checker")
    make = functools.partial(gymnasium.make, IMAGINED_ID, observation=observation, **QUICK)
    check_env(make(render_mode="rgb_array").unwrapped)
    sb3_checker.check_env(make(render_mode="rgb_array"))


def test_make_and_make_vec_imagine_with_the_shipped_model() -> None:
    env = gymnasium.make(IMAGINED_ID, **QUICK)
    vector = gymnasium.make_vec(IMAGINED_ID, num_envs=3, max_episode_steps=4, **QUICK)
    assert isinstance(env.unwrapped, ImaginedEnv) and isinstance(vector, ImaginedVectorEnv)
    assert env.unwrapped.worlds.model is vector.worlds.model is shared_model("tiny")
    assert env.spec.max_episode_steps == envs.registration.IMAGINED_STEPS
    assert gymnasium.make_vec(IMAGINED_ID, **QUICK).worlds.max_episode_steps == env.spec.max_episode_steps
    frame, info = env.reset(seed=2)
    frames, infos = vector.reset(seed=0)
    assert np.abs(frame.astype(int) - frames[2]).max() <= 1
    assert same(info["proprio"], infos["proprio"][2], 1e-5)
    separate = gymnasium.make_vec(IMAGINED_ID, num_envs=3, vectorization_mode="sync", **QUICK)
    assert np.abs(separate.reset(seed=0)[0].astype(int) - frames).max() <= 1
    cut = [vector.step(np.zeros(3, np.int64))[3].all() for _ in range(4)]
    assert cut == [False, False, False, True]
    again = gymnasium.make(env.spec)  # the copied specification makes the same environment
    assert same(again.reset(seed=2)[0], frame)


def test_the_first_frame_is_the_last_real_one() -> None:
    env = gymnasium.make(IMAGINED_ID, context_frames=20, observation="dict")
    seen, _ = env.reset(seed=4)
    config = MazeConfig(size=7)
    context = MazeContexts(config, num_frames=20).draw(torch.tensor([4]))
    real = context.frames[0, -1].float() / 255
    error = (torch.from_numpy(seen["frame"]).float() / 255 - real).square().mean()
    assert -10 * torch.log10(error) > 24  # the tokenizer's own error
    assert same(seen["proprio"], context.proprio[0, -1])
    moved = [int(torch.argmax(action)) for action in context.actions[0, 1:]]
    maze = gymnasium.make("lssvwm/RaycastMaze-7x7-v0")
    maze.reset(seed=4)
    frames = [maze.step(action)[0] for action in moved]
    assert np.array_equal(frames[-1], context.frames[0, -1])


def test_models_by_path_are_shared_while_their_files_stay(tmp_path: Path) -> None:
    path = saved(tmp_path / "micro")
    one = make_imagined_env(path, contexts="cold")
    two = make_imagined_vector_env(2, path, contexts="cold")
    assert one.worlds.model is two.worlds.model
    saved(tmp_path / "micro", goes_on=-3.0)
    three = make_imagined_env(path, contexts="cold")
    assert three.worlds.model is not one.worlds.model
    assert three.worlds.model.heads.continuation.bias.item() == -3.0


def test_what_cannot_be_made_is_told_in_a_sentence(tmp_path: Path) -> None:
    path = saved(tmp_path / "micro")
    for settings, words in (
        ({"model": "nowhere"}, "There is no world model `nowhere`"),
        ({"model": micro_model()}, "`model` must be a path or a name"),
        ({"model": path}, "names no environment to take contexts from"),
        ({"contexts": str(tmp_path / "none")}, "no episode store"),
        ({"contexts": "cold", "policy": "oracle"}, "`policy` plays contexts='live' only"),
        ({"policy": "genius"}, "genius"),
        ({"context_frames": 0}, "at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=words):
            gymnasium.make(IMAGINED_ID, **settings)
        with pytest.raises(ValueError, match=words):
            gymnasium.make_vec(IMAGINED_ID, num_envs=2, **settings)


# --- contexts -------------------------------------------------------------------------------------


def write_store(path: Path, lengths: list[int], continuous: bool = False) -> EpisodeStore:
    """Every frame of episode e is filled with e, and its first pixel holds the frame's number."""
    actions = (
        {
            "action_shape": (3,),
            "action_dtype": "float32",
            "action_low": (-2.0,) * 3,
            "action_high": (2.0,) * 3,
        }
        if continuous
        else {"num_actions": 3}
    )
    spec = StoreSpec("", frame_shape=(FRAME_SIZE, FRAME_SIZE, 3), proprio_dim=4, **actions)
    with EpisodeStore.create(path, spec) as store:
        for number, length in enumerate(lengths):
            time = np.arange(length)
            frames = np.full((length, FRAME_SIZE, FRAME_SIZE, 3), number, np.uint8)
            frames[:, 0, 0, 0] = time
            store.append(
                Episode(
                    frames=frames,
                    actions=np.full((length, 3), 0.5, np.float32) if continuous else time % 3,
                    rewards=np.zeros(length, np.float32),
                    terminated=time == length - 1,
                    truncated=np.zeros(length, bool),
                    proprio=np.repeat(time[:, None], 4, 1).astype(np.float32),
                )
            )
    return store


def test_contexts_from_a_store(tmp_path: Path) -> None:
    write_store(tmp_path / "store", [4, 12, 5, 30])
    contexts = StoreContexts(tmp_path / "store", num_frames=5)
    seeds = torch.arange(200)
    drawn = contexts.draw(seeds)
    number, time = drawn.frames[:, 0, -1, -1, 0], drawn.frames[..., 0, 0, 0].long()
    assert set(number.tolist()) == {1, 3}  # the others are not longer than a context
    assert (time[:, 1:] - time[:, :-1] == 1).all()
    assert time[number == 1].max() == 10 and time[number == 3].max() == 28  # the last frame is the end
    assert torch.equal(drawn.action_known, time > 0)
    assert torch.equal(drawn.actions.argmax(-1)[time > 0], time[time > 0] % 3)
    assert torch.equal(drawn.proprio[..., 0], time.float())
    alone = contexts.draw(seeds[17:18])
    assert torch.equal(alone.frames[0], drawn.frames[17])
    again = pickle.loads(pickle.dumps(contexts)).draw(seeds[:3])
    assert torch.equal(again.frames, drawn.frames[:3])
    with pytest.raises(StoreError, match="an episode of more, but the longest of .* has 30"):
        StoreContexts(tmp_path / "store", num_frames=30)


def test_a_store_by_path_brings_contexts_and_action_bounds(tmp_path: Path) -> None:
    write_store(tmp_path / "store", [12, 9], continuous=True)
    path = saved(tmp_path / "micro", discrete_actions=False)
    settings = {"model": path, "contexts": str(tmp_path / "store"), "context_frames": 4}
    env = gymnasium.make(IMAGINED_ID, **settings)
    assert env.action_space == gymnasium.spaces.Box(-2, 2, (3,), np.float32)
    env.reset(seed=0)
    env.step(np.full(3, 1.5, np.float32))
    vector = gymnasium.make_vec(IMAGINED_ID, num_envs=2, **settings)
    vector.reset(seed=0)
    vector.step(vector.action_space.sample())


def test_contexts_of_any_environment_that_shows_frames() -> None:
    played = PlayedContexts("lssvwm/RaycastMaze-7x7-Continuous-v0", {"observation": "dict"}, num_frames=6)
    drawn = played.draw(torch.tensor([3, 9]))
    assert drawn.frames.shape == (2, 6, 64, 64, 3) and drawn.actions.shape == (2, 6, 2)
    assert torch.equal(played.draw(torch.tensor([9])).frames[0], drawn.frames[1])
    assert drawn.proprio[:, 0].tolist() == [[0, 0, 0, 1]] * 2 and not drawn.action_known[:, 0].any()
    maze = gymnasium.make("lssvwm/RaycastMaze-7x7-Continuous-v0")
    assert np.array_equal(maze.reset(seed=3)[0], drawn.frames[0, 0])
    for time in range(1, 6):
        assert np.array_equal(maze.step(drawn.actions[0, time].numpy())[0], drawn.frames[0, time])
    ahead = PlayedContexts("lssvwm/RaycastMaze-7x7-v0", num_frames=4, policy=lambda observation, rng: 1)
    assert ahead.draw(torch.tensor([0])).actions[0, 1:].argmax(-1).tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="must be a frame"):
        PlayedContexts("CartPole-v1", num_frames=2).draw(torch.tensor([0]))


def test_contexts_never_run_past_an_end() -> None:
    config = MazeConfig(task="cue", cue_delay=16)
    contexts = MazeContexts(config, "oracle", num_frames=18)
    with pytest.raises(ValueError, match="must be less than the frames of an episode, got 36"):
        MazeContexts(config, "oracle", num_frames=36).draw(torch.tensor([0]))
    assert contexts.draw(torch.arange(3)).frames.shape[:2] == (3, 18)
    short = PlayedContexts("lssvwm/RaycastMaze-7x7-v0", {"max_episode_steps": 3}, num_frames=5)
    with pytest.raises(ValueError, match="must be less than the frames of an episode, got 5"):
        short.draw(torch.tensor([0]))


# --- other people's code --------------------------------------------------------------------------


@pytest.fixture
def micro_path(tmp_path: Path) -> str:
    return saved(tmp_path / "micro", goes_on=1.5)


def test_wrappers_for_one_environment(micro_path: str) -> None:
    env = gymnasium.make(IMAGINED_ID, model=micro_path, contexts="cold", max_episode_steps=5)
    env = FrameStackObservation(RecordEpisodeStatistics(env), 3)
    seen, _ = env.reset(seed=0)
    assert seen.shape == (3, FRAME_SIZE, FRAME_SIZE, 3)
    over, total, info = False, 0.0, {}
    while not over:
        seen, reward, terminated, truncated, info = env.step(env.action_space.sample())
        total, over = total + reward, terminated or truncated
    assert info["episode"]["r"] == pytest.approx(total) and 1 <= info["episode"]["l"] <= 5


def test_wrappers_for_many_environments(micro_path: str) -> None:
    for mode in ("NextStep", "SameStep"):
        vector = gymnasium.make_vec(
            IMAGINED_ID,
            num_envs=3,
            model=micro_path,
            contexts="cold",
            autoreset_mode=mode,
            observation="latent",
        )
        vector = vector_wrappers.RecordEpisodeStatistics(vector)
        vector = vector_wrappers.ClipReward(vector, -1.0, 1.0)
        if mode == "NextStep":  # Gymnasium's observation wrappers take no other
            vector = vector_wrappers.FlattenObservation(vector)
        seen, _ = vector.reset(seed=0)
        assert vector.observation_space.contains(seen)
        ended = 0
        for _ in range(12):
            seen, _, terminated, truncated, info = vector.step(vector.action_space.sample())
            ended += int("episode" in info)
        assert ended


def test_videos_are_recorded(tmp_path: Path) -> None:
    pytest.importorskip("moviepy", reason="RecordVideo needs moviepy")
    env = gymnasium.make(IMAGINED_ID, render_mode="rgb_array", max_episode_steps=4, **QUICK)
    env = RecordVideo(env, str(tmp_path / "one"), disable_logger=True)
    env.reset(seed=0)
    while not any(env.step(env.action_space.sample())[2:4]):
        pass
    env.close()
    vector = gymnasium.make_vec(
        IMAGINED_ID, num_envs=2, render_mode="rgb_array", max_episode_steps=4, **QUICK
    )
    vector = vector_wrappers.RecordVideo(vector, str(tmp_path / "many"), video_length=3, disable_logger=True)
    vector.reset(seed=0)
    for _ in range(5):
        vector.step(vector.action_space.sample())
    vector.close()
    videos = list((tmp_path / "one").glob("*.mp4")) + list((tmp_path / "many").glob("*.mp4"))
    assert len(videos) >= 2 and all(video.stat().st_size > 500 for video in videos)


def test_a_ppo_loop_in_one_file_learns_on_make_vec(micro_path: str) -> None:
    """As CleanRL writes it: one rollout buffer, advantages, clipped updates, next-step autoreset."""
    torch.manual_seed(0)
    vector = gymnasium.make_vec(
        IMAGINED_ID,
        num_envs=8,
        model=micro_path,
        contexts="cold",
        observation="features",
        max_episode_steps=8,
        num_denoising_steps=1,
    )
    width, steps = vector.single_observation_space.shape[0], 16
    policy, critic = torch.nn.Linear(width, 3), torch.nn.Linear(width, 1)
    optimizer = torch.optim.Adam([*policy.parameters(), *critic.parameters()], lr=0.05)
    seen, _ = vector.reset(seed=1)
    seen, done = torch.as_tensor(seen), torch.zeros(8)
    mean_rewards = []
    for _ in range(5):
        rows = []
        for _ in range(steps):
            with torch.no_grad():
                choice = torch.distributions.Categorical(logits=policy(seen))
                action, value = choice.sample(), critic(seen)[:, 0]
            after, reward, terminated, truncated, _ = vector.step(action.numpy())
            rows.append((seen, action, choice.log_prob(action), torch.as_tensor(reward).float(), value, done))
            seen, done = torch.as_tensor(after), torch.as_tensor(terminated | truncated).float()
        states, actions, logs, rewards, values, dones = map(torch.stack, zip(*rows, strict=True))
        with torch.no_grad():
            following, advantage, advantages = critic(seen)[:, 0], torch.zeros(8), []
            for t in reversed(range(steps)):
                goes_on = 1 - (done if t == steps - 1 else dones[t + 1])
                later = following if t == steps - 1 else values[t + 1]
                delta = rewards[t] + 0.9 * later * goes_on - values[t]
                advantage = delta + 0.9 * 0.95 * goes_on * advantage
                advantages.insert(0, advantage)
            advantages = torch.stack(advantages)
        for _ in range(4):
            now = torch.distributions.Categorical(logits=policy(states)).log_prob(actions)
            ratio = (now - logs).exp()
            scaled = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
            gain = torch.min(ratio * scaled, ratio.clamp(0.8, 1.2) * scaled).mean()
            value_loss = (critic(states)[..., 0] - advantages - values).square().mean()
            optimizer.zero_grad()
            (0.5 * value_loss - gain).backward()
            optimizer.step()
        mean_rewards.append(float(rewards[dones == 0].mean()))
    assert np.isfinite(mean_rewards).all() and mean_rewards[-1] > mean_rewards[0]


def test_workers_imagine_what_one_process_does() -> None:
    make = functools.partial(
        gymnasium.make, "lssvwm_agents.envs:" + IMAGINED_ID, disable_env_checker=True, **QUICK
    )
    workers = gymnasium.vector.AsyncVectorEnv([make, make], context=METHOD)
    try:
        seen, _ = workers.reset(seed=3)
        after = workers.step(np.array([1, 2]))[0]
    finally:
        workers.close()
    for row in range(2):
        env = make()
        assert same(env.reset(seed=3 + row)[0], seen[row])
        assert same(env.step(1 + row)[0], after[row])
