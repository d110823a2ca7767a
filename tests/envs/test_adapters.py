"""Environments of other packages, played for real; skipped where a package or a renderer is missing."""

from __future__ import annotations

import functools
import gc
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from adapter_builders import ONE_OF_EACH, QUICK, made, need, same
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import FrameStackObservation, RecordEpisodeStatistics
from separate_processes import METHOD
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from lssvwm_agents.envs import ADAPTER_IDS, RenderedEnv
from lssvwm_agents.envs.adapters.registration import MINIGRIDS, MINIWORLDS

# --- the convention -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [pytest.param(ONE_OF_EACH[0], marks=pytest.mark.slow), *QUICK])
def test_both_env_checkers_pass(name: str) -> None:
    env = made(name, observation="dict", render_mode="rgb_array")
    if "MemoryMaze" in name:
        env.unwrapped._make = functools.partial(one_colour_each, env.unwrapped._make)
    check_env_sb3(env)
    slow = "MemoryMaze" in name  # others than the first would take seconds
    check_env(env.unwrapped, skip_close_check=slow, skip_render_check=slow)


def one_colour_each(make: Callable[..., Any], **settings: Any) -> Any:
    """A Memory Maze whose 87 pictures of walls and floors, most of a reset's time, are one colour each."""
    maze = make(**settings)
    for texture in maze.task.root_entity.mjcf_model.find_all("texture"):
        if texture.file is not None:
            del texture.file
        texture.builtin, texture.width = "flat", 8
        texture.height = 48 if texture.type == "skybox" else 8
    return maze


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_frames_proprio_and_task_are_in_observation_and_info(name: str) -> None:
    env = made(name, observation="dict")
    seen, info = env.reset(seed=4)
    assert env.observation_space.contains(seen)
    assert seen["frame"].shape == (64, 64, 3) and seen["frame"].dtype == np.uint8 and seen["frame"].std() > 5
    assert seen["proprio"].dtype == np.float32 and same(seen["proprio"], info["proprio"])
    assert seen["proprio"] is not info["proprio"]
    has_task = any(word in name for word in ("MemoryMaze", "PointMaze", "AntMaze"))
    assert ("task" in seen) == ("task" in info) == has_task
    if any(word in name for word in ("MemoryMaze", "MiniWorld", "MiniGrid")):
        assert np.allclose(seen["proprio"], [0, 0, 0, 1])  # a pose begins where it begins
    env.close()


@pytest.mark.parametrize("name", QUICK)
def test_frames_alone_in_the_size_that_was_asked_for(name: str) -> None:
    env = made(name, observation="frame", image_size=48)
    seen, info = env.reset(seed=4)
    assert seen.shape == env.observation_space.shape == (48, 48, 3) and "proprio" in info
    env.close()


@pytest.mark.parametrize("name", QUICK)
def test_an_episode_follows_from_its_seed(name: str) -> None:
    def play(env: gymnasium.Env[Any, Any], seed: int | None) -> list[Any]:
        rows = [env.reset(seed=seed)[0]]
        env.action_space.seed(1)
        for _ in range(5):
            seen, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            rows.append((seen, reward))
            if terminated or truncated:
                break
        return rows

    def seen_of(rows: list[Any]) -> list[Any]:
        return [rows[0], *(row[0] for row in rows[1:])]

    env = made(name, observation="dict")
    first, second = play(env, 7), play(env, None)
    again, again_second = play(env, 7), play(env, None)
    for one, other in ((first, again), (second, again_second)):
        assert same(one[0], other[0])
        assert all(same(a[0], b[0]) and a[1] == b[1] for a, b in zip(one[1:], other[1:], strict=True))
    for number in (8, 7 + 2**31):  # evaluation takes seeds from 2**31 on
        unlike = play(env, number)
        assert any(not same(row, other) for row, other in zip(seen_of(first), seen_of(unlike), strict=False))
    env.close()


def test_all_ids_lead_to_environments_that_the_packages_have() -> None:
    pytest.importorskip("miniworld")
    pytest.importorskip("minigrid")
    robotics = pytest.importorskip("gymnasium_robotics")
    need("lssvwm/MiniWorld-Hallway-v0")
    gymnasium.register_envs(robotics)
    assert all(f"MiniWorld-{world}-v0" in gymnasium.registry for world in MINIWORLDS)
    assert all(f"MiniGrid-{grid}-v0" in gymnasium.registry for grid in MINIGRIDS)
    for name in ADAPTER_IDS:
        spec = gymnasium.spec(name)
        inner = spec.kwargs.get("env")
        if inner is not None:
            assert gymnasium.spec(inner).max_episode_steps == spec.max_episode_steps


def test_every_small_grid_and_world_plays() -> None:
    for name in ("MiniWorld-FourRooms", "MiniWorld-Hallway", "MiniGrid-FourRooms", "MiniGrid-DoorKey-8x8"):
        env = made(f"lssvwm/{name}-v0", observation="dict")
        assert env.observation_space.contains(env.reset(seed=2)[0])
        assert env.observation_space.contains(env.step(env.action_space.sample())[0])
        env.close()


# --- many at once, and other people's wrappers ----------------------------------------------------


@pytest.mark.parametrize("name", QUICK)
def test_many_in_one_process_each_draw_their_own_world(name: str) -> None:
    kwargs = {"env": "CartPole-v1"} if "Rendered" in name else {}
    need(name)
    vector = gymnasium.make_vec(name, num_envs=2, vectorization_mode="sync", observation="dict", **kwargs)
    seen, _ = vector.reset(seed=[5, 6])
    actions = np.stack([vector.single_action_space.sample() for _ in range(2)])
    after = vector.step(actions)[0]
    for row in range(2):
        alone = made(name, observation="dict")
        first = alone.reset(seed=5 + row)[0]
        assert all(same(first[key], seen[key][row]) for key in first)
        then = alone.step(actions[row])[0]
        assert all(same(then[key], after[key][row]) for key in then)
        alone.close()
    vector.close()


def test_closed_and_forgotten_environments_leave_the_others_their_pictures() -> None:
    kept = made("lssvwm/PointMaze-UMaze-v0")
    expected = kept.reset(seed=1)[0]["frame"]
    for close in (True, False):
        other = made("lssvwm/PointMaze-UMaze-v0")
        other.reset(seed=0)
        if close:
            other.close()
            assert same(kept.reset(seed=1)[0]["frame"], expected)
    del other
    gc.collect()
    assert same(kept.reset(seed=1)[0]["frame"], expected)
    assert same(made("lssvwm/PointMaze-UMaze-v0").reset(seed=1)[0]["frame"], expected)


def test_a_process_that_forgets_to_close_ends_quietly() -> None:
    need("lssvwm/PointMaze-UMaze-v0")
    code = (
        "import gymnasium, lssvwm_agents.envs\n"
        "env = gymnasium.make('lssvwm/PointMaze-UMaze-v0')\n"
        "env.reset(seed=0)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told.returncode == 0 and "Error" not in told.stderr, told.stderr


def test_workers_draw_what_one_process_does() -> None:
    name = "lssvwm/PointMaze-UMaze-v0"
    here = made(name)
    make = functools.partial(gymnasium.make, "lssvwm_agents.envs:" + name)
    workers = gymnasium.vector.AsyncVectorEnv([make, make], context=METHOD)
    try:
        seen, _ = workers.reset(seed=3)
    finally:
        workers.close()
    assert same(here.reset(seed=4)[0]["frame"], seen["frame"][1])
    here.close()


def test_wrappers_of_gymnasium() -> None:
    env = made("lssvwm/MiniGrid-MemoryS7-v0", max_episode_steps=4)
    env = FrameStackObservation(RecordEpisodeStatistics(env), 3)
    seen, _ = env.reset(seed=0)
    assert seen.shape == (3, 64, 64, 3)
    for _ in range(4):
        *_, truncated, info = env.step(0)
    assert truncated and info["episode"]["l"] == 4


# --- each family by hand --------------------------------------------------------------------------


def test_odometry_of_a_grid_by_hand() -> None:
    env = made("lssvwm/MiniGrid-MemoryS7-v0", grid="Empty-8x8", observation="dict")
    assert "goal" in env.reset(seed=0)[1]["mission"]
    forward, left, right = 2, 0, 1
    for action in (forward, forward, right, forward):
        seen = env.step(action)[0]
    assert np.allclose(seen["proprio"], [2, -1, -1, 0], atol=1e-6)
    assert np.allclose(env.step(left)[0]["proprio"], [2, -1, 0, 1], atol=1e-6)


def test_odometry_of_a_world_by_hand() -> None:
    env = made("lssvwm/MiniWorld-Hallway-v0", observation="dict", world="OneRoom")
    left, forward = 0, 2
    for seed in range(20):  # until there is room ahead
        env.reset(seed=seed)
        seen = env.step(forward)[0]
        if seen["proprio"][0] > 0.1:
            break
    assert seen["proprio"][0] > 0.1 and np.allclose(seen["proprio"][1:], [0, 0, 1], atol=1e-6)
    turned = env.step(left)[0]["proprio"]
    assert turned[2] > 0.1 and np.isclose(np.hypot(turned[2], turned[3]), 1)


def test_point_maze_ends_at_its_goal_and_says_where_it_is() -> None:
    env = made("lssvwm/PointMaze-UMaze-v0")
    cells = {"goal_cell": np.array([1, 2]), "reset_cell": np.array([1, 1])}
    seen, info = env.reset(seed=0, options=cells)
    physics = env.unwrapped.inner.unwrapped
    assert np.allclose(seen["proprio"], physics.point_env.data.qpos.tolist() + [0, 0], atol=1e-6)
    assert np.allclose(seen["task"], physics.goal, atol=1e-6)
    ended = False
    for _ in range(100):
        ahead = np.clip(3 * (seen["task"] - seen["proprio"][:2]) - seen["proprio"][2:], -1, 1)
        seen, reward, ended, _, info = env.step(ahead.astype(np.float32))
        assert reward == float(ended) and info["success"] == ended
        if ended:
            break
    assert ended and np.linalg.norm(seen["task"] - seen["proprio"][:2]) <= 0.45
    env.close()


def test_the_ball_and_the_goal_lie_in_the_frame_where_they_are() -> None:
    env = made("lssvwm/PointMaze-UMaze-v0")
    for seed in range(3):
        seen, _ = env.reset(seed=seed)
        frame = seen["frame"].astype(float)
        red = (frame[..., 0] > 150) & (frame[..., 1] < 60)
        green = (frame[..., 1] > frame[..., 0] + 25) & (frame[..., 1] > frame[..., 2] + 25)
        for mask, (x, y) in ((red, seen["task"]), (green, seen["proprio"][:2])):
            rows, columns = np.nonzero(mask)
            assert len(rows) > 3
            # 4 metres from edge to edge at the walls' tops, a little more on the floor
            assert abs((columns.mean() + 0.5) / 64 * 4.3 - 2.15 - x) < 0.3
            assert abs(2.15 - (rows.mean() + 0.5) / 64 * 4.3 - y) < 0.3
    env.close()


def test_rendered_takes_environments_that_are_made_and_vectors_of_any_space() -> None:
    pytest.importorskip("pygame")
    pendulum = gymnasium.make("Pendulum-v1", render_mode="rgb_array")
    env = RenderedEnv(pendulum, image_size=32, render_mode="rgb_array")
    seen, _ = env.reset(seed=0)
    assert seen["frame"].shape == (32, 32, 3) and seen["proprio"].shape == (3,)
    assert env.render().shape == (500, 500, 3) and env.inner is pendulum
    env.close()
    with pytest.raises(ValueError, match="render_mode='rgb_array'"):
        RenderedEnv(gymnasium.make("Pendulum-v1"))
    with pytest.raises(ValueError, match="`proprio_keys`"):
        RenderedEnv("Pendulum-v1", proprio_keys=("angle",))
