"""Memory Maze beside the package's own environment."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from adapter_builders import made

SEED = 1
EXTRA_ID = "lssvwm/MemoryMaze-9x9-ExtraObs-v0"


@pytest.fixture(scope="module")
def env() -> Any:
    """One for all tests here: making it takes seconds."""
    maze = made(EXTRA_ID, render_mode="rgb_array")
    yield maze
    maze.close()


def test_it_is_the_package_s_own_episode_of_that_seed(env: Any) -> None:
    from lssvwm_agents.envs.adapters.memory_maze import _tasks

    theirs = _tasks().memory_maze_9x9(seed=SEED, global_observables=True)
    env.reset(seed=0)  # this one begins on a target; whatever was played before does not matter
    seen, _ = env.reset(seed=SEED)
    expected = theirs.reset().observation
    for action in (1, 1, 4, 2, 0, 5, 1):
        assert np.array_equal(seen["frame"], expected["image"])
        assert np.allclose(seen["task"], expected["target_color"])
        for name in ("agent_pos", "agent_dir", "targets_vec", "targets_pos", "target_vec", "target_pos"):
            assert np.allclose(seen[name], expected[name], atol=1e-5), name
        assert np.array_equal(seen["maze_layout"], expected["maze_layout"])
        now = theirs.step(action)
        expected = now.observation
        seen, reward, *_ = env.step(action)
        assert reward == now.reward
    theirs.close()


def test_the_border_shows_the_colour_of_the_target(env: Any) -> None:
    colors = set()
    for seed in range(2):
        seen, _ = env.reset(seed=seed)
        frame, task = seen["frame"], seen["task"]
        color = (task.astype(np.float64) * 255 * 0.7).astype(int)
        border = np.concatenate([frame[:2].reshape(-1, 3), frame[:, -2:].reshape(-1, 3)])
        assert np.abs(border.astype(int) - color).max() <= 1
        assert np.abs(frame[2:-2, 2:-2].astype(int) - color).max() > 20
        colors.add(tuple(task.tolist()))
    assert len(colors) > 1


def test_odometry_is_the_pose_relative_to_the_first(env: Any) -> None:
    first, _ = env.reset(seed=1)
    assert np.allclose(first["proprio"], [0, 0, 0, 1])
    for action in (2, 1, 1, 4, 3, 1, 5, 1):
        seen, *_ = env.step(action)
    ahead, left = first["agent_dir"], np.array([-first["agent_dir"][1], first["agent_dir"][0]])
    moved = seen["agent_pos"] - first["agent_pos"]
    assert np.allclose(seen["proprio"][:2], [moved @ ahead, moved @ left], atol=1e-4)
    assert np.allclose(seen["proprio"][2:], [seen["agent_dir"] @ left, seen["agent_dir"] @ ahead], atol=1e-4)
    assert np.linalg.norm(moved) > 0.1


def test_time_running_out_is_truncation(env: Any) -> None:
    env.reset(seed=0)
    maze = env.unwrapped._maze
    while hasattr(maze, "env"):
        maze = maze.env
    limit, maze._time_limit = maze._time_limit, 1.0 - 1e-3
    try:
        ends = [env.step(0)[2:4] for _ in range(4)]
    finally:
        maze._time_limit = limit
    assert ends == [(False, False)] * 3 + [(False, True)]


def test_people_see_the_maze_from_above(env: Any) -> None:
    env.reset(seed=0)
    view = env.render()
    assert view.shape == (256, 512, 3) and view[:, 256:].std() > 20


def test_continuous_actions_are_speed_and_turn_to_the_left(env: Any) -> None:
    maze = made("lssvwm/MemoryMaze-9x9-Continuous-v0", observation="dict")
    maze.reset(seed=3)
    env.reset(seed=3)
    for action, number in (([1, 0], 1), ([0, 1], 2)):
        one, other = maze.step(np.array(action, np.float32))[0], env.step(number)[0]
        assert np.allclose(one["proprio"], other["proprio"], atol=1e-5)
    assert one["proprio"][2] > 0.1  # left is counter-clockwise
    with pytest.raises(gymnasium.error.InvalidAction, match="finite"):
        maze.unwrapped.step(np.array([np.nan, 0.0]))
    maze.close()
