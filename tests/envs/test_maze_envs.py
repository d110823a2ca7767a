"""Gymnasium shells: checkers, seeds, autoreset modes, errors."""

import gymnasium
import numpy as np
import pytest
from gymnasium import error
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import lssvwm_agents.envs as envs
from lssvwm_agents.envs import RaycastMazeEnv, RaycastMazeVectorEnv, maze_id

ALL_IDS = [maze_id(size, continuous) for size in envs.MAZE_SIZES for continuous in (False, True)] + [
    envs.CUE_ID
]


@pytest.mark.parametrize("name", [maze_id(7), maze_id(9, True), envs.CUE_ID])
@pytest.mark.parametrize("observation", ["frame", "dict"])
@pytest.mark.filterwarnings("error")
def test_both_env_checkers_pass(name: str, observation: str) -> None:
    sb3_checker = pytest.importorskip("stable_baselines3.common.env_checker")
    env = gymnasium.make(name, observation=observation, render_mode="rgb_array")
    check_env(env.unwrapped)
    sb3_checker.check_env(gymnasium.make(name, observation=observation, render_mode="rgb_array"))


@pytest.mark.parametrize("name", ALL_IDS)
def test_every_id_makes_single_and_vector_environments(name: str) -> None:
    env = gymnasium.make(name, layout=True)
    frame, info = env.reset(seed=1)
    assert env.observation_space.contains(frame) and frame.shape == (64, 64, 3)
    assert info["proprio"].tolist() == [0, 0, 0, 1]
    assert info["layout"].shape == (env.unwrapped.maze_config.grid_size,) * 2
    vector = gymnasium.make_vec(name, num_envs=3)
    frames, _ = vector.reset(seed=1)
    assert isinstance(vector, RaycastMazeVectorEnv) and vector.observation_space.contains(frames)
    assert np.array_equal(frames[0], frame)
    assert vector.maze_state.batch_size == 3 and vector.maze_config == env.unwrapped.maze_config.__class__(
        **{**env.unwrapped.maze_config.__dict__, "max_episode_steps": vector.maze_config.max_episode_steps}
    )


@pytest.mark.parametrize("continuous", [False, True])
def test_row_i_equals_the_single_environment_with_seed_s_plus_i_over_episodes(continuous: bool) -> None:
    name = maze_id(7, continuous)
    vector = gymnasium.make_vec(name, num_envs=4, max_episode_steps=6, observation="dict")
    single = gymnasium.make(name, max_episode_steps=6, observation="dict")
    vector.action_space.seed(0)
    frames, _ = vector.reset(seed=10)
    frame, _ = single.reset(seed=12)
    over = False
    for _ in range(20):
        assert np.array_equal(frames["frame"][2], frame["frame"])
        assert np.array_equal(frames["proprio"][2], frame["proprio"])
        actions = vector.action_space.sample()
        frames, rewards, terminations, truncations, _ = vector.step(actions)
        if over:  # the vector environment spends this step on the reset
            frame, _ = single.reset()
            reward, terminated, truncated = 0.0, False, False
        else:
            frame, reward, terminated, truncated, _ = single.step(actions[2])
        assert (rewards[2], terminations[2], truncations[2]) == (reward, terminated, truncated)
        over = terminated or truncated


def test_seeds_of_resets() -> None:
    env = gymnasium.make(maze_id(7))
    first, _ = env.reset(seed=3)
    second, _ = env.reset()
    assert not np.array_equal(first, second)
    again, _ = env.reset(seed=3)
    assert np.array_equal(first, again) and np.array_equal(env.reset()[0], second)
    unseeded = [gymnasium.make(maze_id(7)).reset()[0] for _ in range(3)]
    assert not all(np.array_equal(unseeded[0], other) for other in unseeded[1:])
    vector = gymnasium.make_vec(maze_id(7), num_envs=2)
    frames, _ = vector.reset(seed=[3, None])
    assert np.array_equal(frames[0], first)
    with pytest.raises(ValueError, match="num_envs=2"):
        vector.reset(seed=[1, 2, 3])


def test_single_environment_is_truncated_once_and_by_the_given_limit() -> None:
    for limit in (4, 700):
        env = gymnasium.make(maze_id(7), max_episode_steps=limit)
        env.reset(seed=0)
        flags = [env.step(0)[3] for _ in range(limit)]
        assert flags.index(True) == limit - 1
    direct = RaycastMazeEnv(size=7, max_episode_steps=3)
    direct.reset(seed=0)
    assert [direct.step(0)[3] for _ in range(3)] == [False, False, True]


def make(mode: AutoresetMode, **settings) -> RaycastMazeVectorEnv:
    """Two environments whose episodes end after 3 steps."""
    vector = gymnasium.make_vec(maze_id(7), num_envs=2, max_episode_steps=3, autoreset_mode=mode, **settings)
    assert vector.metadata["autoreset_mode"] is mode
    vector.reset(seed=5)
    return vector


NOOP = np.zeros(2, dtype=np.int64)


def expected_starts(episode: int) -> np.ndarray:
    frames = []
    for seed in (5, 6):
        env = gymnasium.make(maze_id(7))
        frame, _ = env.reset(seed=seed)
        for _ in range(episode):
            frame, _ = env.reset()
        frames.append(frame)
    return np.stack(frames)


def test_next_step_autoreset() -> None:
    vector = make(AutoresetMode.NEXT_STEP)
    for count in range(1, 4):
        last, _, _, truncations, infos = vector.step(NOOP + 2)
        assert truncations.all() == (count == 3) and "final_obs" not in infos
    assert not np.array_equal(last, expected_starts(1))
    frames, rewards, terminations, truncations, infos = vector.step(NOOP + 2)
    assert np.array_equal(frames, expected_starts(1))
    assert not rewards.any() and not terminations.any() and not truncations.any()
    assert infos["proprio"].tolist() == [[0, 0, 0, 1]] * 2
    assert [vector.step(NOOP)[3].all() for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize("observation", ["frame", "dict"])
def test_same_step_autoreset(observation: str) -> None:
    vector = make(AutoresetMode.SAME_STEP, observation=observation)
    reference = make(AutoresetMode.DISABLED, observation=observation)
    for _ in range(2):
        infos = vector.step(NOOP + 2)[4]
        reference.step(NOOP + 2)
        assert "final_obs" not in infos
    frames, _, _, truncations, infos = vector.step(NOOP + 2)
    ended, _, _, _, ended_infos = reference.step(NOOP + 2)
    assert truncations.all() and infos["_final_obs"].all() and infos["_final_info"].all()
    assert np.array_equal(infos["final_info"]["proprio"], ended_infos["proprio"])
    for row in range(2):
        if observation == "dict":
            assert np.array_equal(infos["final_obs"][row]["frame"], ended["frame"][row])
            assert np.array_equal(infos["final_obs"][row]["proprio"], ended["proprio"][row])
        else:
            assert np.array_equal(infos["final_obs"][row], ended[row])
    assert np.array_equal(frames["frame"] if observation == "dict" else frames, expected_starts(1))
    assert infos["proprio"].tolist() == [[0, 0, 0, 1]] * 2


def test_same_step_autoreset_of_one_row_leaves_the_others() -> None:
    vector = gymnasium.make_vec(envs.CUE_ID, num_envs=6, cue_delay=16, autoreset_mode=AutoresetMode.SAME_STEP)
    vector.reset(seed=0)
    policy = envs.make_policy("forager", vector.maze_config)
    carry = policy.initial_carry(np.arange(6))
    mixed = 0
    for _ in range(150):
        before = vector.maze_state
        action, carry = policy.act(before, carry)
        _, _, terminations, _, infos = vector.step(action.numpy())
        counts = vector.maze_state.step_count.numpy()
        assert np.array_equal(counts == 0, terminations)
        assert (counts[~terminations] == before.step_count.numpy()[~terminations] + 1).all()
        if terminations.any():
            assert np.array_equal(infos["_final_obs"], terminations)
            assert [frame is not None for frame in infos["final_obs"]] == terminations.tolist()
            mixed += not terminations.all()
    assert mixed > 3


def test_disabled_autoreset_resets_by_mask() -> None:
    vector = make(AutoresetMode.DISABLED)
    vector.step(NOOP)
    frames, _ = vector.reset(options={"reset_mask": np.array([False, True])})
    assert np.array_equal(frames[1], expected_starts(1)[1]) and np.array_equal(
        frames[0], expected_starts(0)[0]
    )
    vector.step(NOOP)
    truncations = vector.step(NOOP)[3]
    assert truncations.tolist() == [True, False]
    with pytest.raises(error.ResetNeeded, match=r"rows \[0\]"):
        vector.step(NOOP)
    vector.reset(options={"reset_mask": truncations})
    assert vector.step(NOOP)[3].tolist() == [False, True]
    for bad in (np.zeros(2, dtype=np.bool_), np.array([0, 1]), [True, False], np.ones(3, dtype=np.bool_)):
        with pytest.raises(ValueError, match="reset_mask"):
            vector.reset(options={"reset_mask": bad})


@pytest.mark.parametrize(
    ("continuous", "action", "words"),
    [
        (False, 1.0, "integer"),
        (False, True, "integer"),
        (False, 6, r"\[0, 6\)"),
        (False, -1, r"\[0, 6\)"),
        (False, [1, 2], "shape"),
        (True, np.array([np.nan, 0.0]), "finite"),
        (True, np.array([1.5, 0.0]), r"\[-1, 1\]"),
        (True, np.array([0, 1]), "float"),
        (True, np.zeros(3), "shape"),
    ],
)
def test_wrong_actions_are_refused(continuous: bool, action: object, words: str) -> None:
    env = RaycastMazeEnv(size=7, continuous=continuous)
    env.reset(seed=0)
    with pytest.raises(error.InvalidAction, match=words):
        env.step(action)
    vector = RaycastMazeVectorEnv(num_envs=2, size=7, continuous=continuous)
    vector.reset(seed=0)
    with pytest.raises(error.InvalidAction, match=words):
        vector.step(np.stack([np.asarray(action)] * 2))


def test_calls_out_of_order_are_refused() -> None:
    env, vector = RaycastMazeEnv(size=7), RaycastMazeVectorEnv(num_envs=2, size=7)
    for each, action in ((env, 0), (vector, NOOP)):
        with pytest.raises(error.ResetNeeded):
            each.step(action)
        with pytest.raises(error.ResetNeeded):
            _ = each.maze_state
        each.reset(seed=0)
        each.close()
        with pytest.raises(error.ClosedEnvironmentError):
            each.step(action)
        with pytest.raises(error.ClosedEnvironmentError):
            each.reset()
    cue = RaycastMazeEnv(task="cue", cue_delay=16)
    cue.reset(seed=0)
    policy = envs.make_policy("oracle", cue.maze_config)
    carry = policy.initial_carry(np.arange(1))
    terminated = False
    while not terminated:
        action, carry = policy.act(cue.maze_state, carry)
        _, reward, terminated, _, _ = cue.step(action[0].item())
    assert reward == 1
    with pytest.raises(error.ResetNeeded, match="over"):
        cue.step(0)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="no setting 'colour'"):
        RaycastMazeEnv(colour="red")
    with pytest.raises(ValueError, match="`observation`"):
        RaycastMazeVectorEnv(2, observation="pixels")
    with pytest.raises(ValueError, match="`render_mode`"):
        RaycastMazeEnv(render_mode="human")
    with pytest.raises(ValueError, match="`num_envs`"):
        RaycastMazeVectorEnv(0)


def test_rendering_for_people() -> None:
    vector = gymnasium.make_vec(maze_id(7), num_envs=2, render_mode="rgb_array")
    vector.reset(seed=0)
    views = vector.render()
    env = gymnasium.make(maze_id(7), render_mode="rgb_array")
    env.reset(seed=0)
    assert len(views) == 2 and views[0].shape == (256, 512, 3)
    assert np.array_equal(env.render(), views[0])
    assert RaycastMazeEnv().render() is None


def test_observations_are_copies() -> None:
    vector = gymnasium.make_vec(maze_id(7), num_envs=2, layout=True)
    frames, infos = vector.reset(seed=0)
    kept = frames.copy()
    infos["layout"][:] = 0
    vector.step(NOOP + 2)
    assert np.array_equal(frames, kept)
    assert vector.maze_state.walls.any()
