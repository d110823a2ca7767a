"""Collecting in processes of their own, and with a controller, in environments of other packages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import counting_envs  # noqa: F401  (registers tests/Counting-v0)
import gymnasium
import numpy as np
import pytest

import lssvwm_agents.envs  # noqa: F401  (registers the ids)
from lssvwm_agents.data.collect import CollectConfig, collect
from lssvwm_agents.data.waypoint_policies import PointMazeWaypoints
from lssvwm_agents.errors import UserError

POINT = CollectConfig(
    "lssvwm/PointMaze-UMaze-v0",
    policy="waypoints",
    episodes=6,
    num_envs=3,
    env_kwargs={"action_repeat": 5, "max_episode_steps": 60},
)


def need_point_maze() -> None:
    try:
        env = gymnasium.make(POINT.env)
        env.reset(seed=0)
        env.close()
    except (gymnasium.error.DependencyNotInstalled, ImportError) as missing:
        pytest.skip(str(missing))


def test_processes_record_what_one_process_does(tmp_path: Path) -> None:
    config = CollectConfig("tests/Counting-v0", episodes=5, num_envs=2, epsilon=0.3, processes=True)
    apart = collect(config, tmp_path / "apart", progress=False)
    together = collect(replace(config, processes=False), tmp_path / "together", progress=False)
    assert apart.spec == together.spec
    assert {e.seed: e.checksum() for e in apart} == {e.seed: e.checksum() for e in together}
    more = collect(replace(config, episodes=6, processes=False), tmp_path / "apart", progress=False)
    assert sorted(more.seeds.tolist()) == list(range(6))


def test_some_episodes_begin_by_pushing_straight_and_some_by_pushing_about() -> None:
    need_point_maze()
    envs = gymnasium.make_vec(POINT.env, num_envs=1, vectorization_mode="sync", observation="dict")
    policy = PointMazeWaypoints(envs)
    observation, _ = envs.reset(seed=0)
    here, goal = observation["proprio"][0, :2], observation["task"][0]
    ahead = (goal - here) / np.abs(goal - here).max()
    begun = {"straight": 0, "about": 0, "neither": 0}
    for seed in range(200):
        policy.start([0], [seed])
        slot = policy._slots[0]
        slot["strength"] = 0.0  # no noise
        kind = next((kind for kind in ("straight", "about") if slot[kind] > 0), "neither")
        begun[kind] += 1
        length = slot.get(kind, 0)
        pushes = np.stack([policy.act(envs, observation)[0] for _ in range(length + 1)])
        if kind == "straight":
            assert np.allclose(pushes[:length], ahead, atol=1e-6)
        if kind == "about":
            assert (pushes[:length] == pushes[0]).all(1)[:4].all()  # held, and then others
            assert len(np.unique(pushes[:length], axis=0)) > 1
        assert slot.get(kind, 0) == 0
    envs.close()
    assert 30 < begun["straight"] < 70 and 30 < begun["about"] < 70


def test_the_controller_reaches_the_goal_and_wanders(tmp_path: Path) -> None:
    need_point_maze()
    store = collect(POINT, tmp_path / "ends", progress=False)
    assert sum(bool(episode.terminated[-1]) for episode in store) >= 5
    assert all(episode.rewards.sum() == episode.terminated.sum() for episode in store)
    assert len({episode.actions[1].tobytes() for episode in store}) == 6
    assert store.spec.proprio_dim == 4 and (store.spec.action_low, store.spec.action_high) == (
        (-1, -1),
        (1, 1),
    )
    again = collect(replace(POINT, num_envs=1, episodes=2), tmp_path / "again", progress=False)
    first = {episode.seed: episode.checksum() for episode in store}
    assert all(first[episode.seed] == episode.checksum() for episode in again)
    kwargs = {**POINT.env_kwargs, "continuing_task": True}
    goes_on = collect(replace(POINT, episodes=2, env_kwargs=kwargs), tmp_path / "on", progress=False)
    assert goes_on.lengths.tolist() == [61, 61]
    travelled = [np.abs(np.diff(episode.proprio[:, :2], axis=0)).sum() for episode in goes_on]
    assert min(travelled) > 2.0  # metres


def test_most_episodes_that_come_to_the_goal_end_there(tmp_path: Path) -> None:
    """A reward of 1 for each of an action's five steps within 0.45 m: leaving at once, it would be rare."""
    need_point_maze()
    kwargs = {**POINT.env_kwargs, "continuing_task": True}
    store = collect(replace(POINT, episodes=12, env_kwargs=kwargs), tmp_path / "on", progress=False)
    reached = [episode for episode in store if (episode.rewards > 0).any()]
    stayed = [(episode.rewards[-5:] > 0).mean() for episode in reached]
    assert len(reached) >= 8 and np.mean(stayed) > 0.5


@pytest.mark.parametrize(
    ("env", "kwargs"),
    [("lssvwm/RaycastMaze-7x7-v0", {}), ("lssvwm/PointMaze-UMaze-v0", {"observation": "frame"})],
)
def test_the_controller_needs_a_point_maze_that_says_where_it_is(
    tmp_path: Path, env: str, kwargs: dict[str, str]
) -> None:
    need_point_maze()
    with pytest.raises(UserError, match="`waypoints` plays lssvwm/PointMaze"):
        collect(CollectConfig(env, policy="waypoints", env_kwargs=kwargs), tmp_path / "s", progress=False)
    assert not (tmp_path / "s").exists()
