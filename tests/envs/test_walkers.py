"""Walkers that collect episodes: shortest paths by hand, and where they get to."""

from __future__ import annotations

import numpy as np
import pytest
from adapter_builders import made

from lssvwm_agents.data.waypoint_policies import roll_action
from lssvwm_agents.envs.adapters.walkers import (
    FORWARD,
    LEFT,
    NOTHING,
    RIGHT,
    MazeSituation,
    MazeWalker,
    MemoryGuesser,
    poses_to,
    steps_to,
    towards,
)

PLAN = ["#######", "#...#.#", "#.#.#.#", "#.#...#", "#######"]
FREE = np.array([[mark == "." for mark in line] for line in PLAN])


def test_shortest_paths_by_hand() -> None:
    steps = steps_to(FREE, (5, 1))
    assert steps[1, 5] == 0 and steps[3, 3] == 4 and steps[3, 1] == 10 and steps[0, 0] == -1
    way = poses_to(FREE, [(1, 3, 1)])  # at the lower left, looking south
    assert way[(1, 1, 1)] == 2 and way[(1, 1, 3)] == 4 and way[(1, 1, 0)] == 3
    assert [towards(way, pose) for pose in ((1, 1, 1), (1, 1, 0), (1, 1, 2), (1, 3, 1))] == [
        FORWARD,
        RIGHT,
        LEFT,
        NOTHING,
    ]


def test_a_walker_in_a_maze_gets_everywhere_and_to_its_target() -> None:
    walker, targets = MazeWalker(np.random.default_rng(0)), np.array([[5.5, 1.5], [1.5, 3.5]])
    position, heading, seen, reached = np.array([3.2, 1.7]), 0.3, set(), 0
    for _ in range(1500):
        now = MazeSituation(position.copy(), heading, FREE, targets[reached % 2])
        speed, turn = walker.act(now)
        assert speed in (0.0, 1.0) and turn in (-1.0, 0.0, 1.0)
        heading += 0.25 * turn
        step = position + 0.2 * speed * np.array([np.cos(heading), np.sin(heading)])
        for axis in range(2):  # slides along walls
            tried = position.copy()
            tried[axis] = step[axis]
            if FREE[int(tried[1]), int(tried[0])]:
                position = tried
        seen.add((int(position[0]), int(position[1])))
        reached += bool(np.linalg.norm(position - targets[reached % 2]) < 0.5)
    assert len(seen) == FREE.sum() and reached >= 10


def test_speed_and_turn_as_memory_maze_s_six_actions() -> None:
    moves = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.0, -1.0), (1.0, 1.0), (1.0, -1.0)]
    assert [roll_action(move) for move in moves] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", ["MemoryS7", "MemoryS13", "MemoryS17Random"])
def test_guessers_end_their_episodes_in_time_on_either_side(name: str) -> None:
    env = made(f"lssvwm/MiniGrid-{name}-v0", observation="dict").unwrapped
    rewards, bumped, hidden = [], 0, 0
    for seed in range(12):
        walker, over, last_seen = MemoryGuesser(np.random.default_rng(seed)), False, 0
        seen, _ = env.reset(seed=seed)
        frames, reward = 1, 0.0
        while not over:
            action = walker.act(env.situation())
            before = seen["proprio"]
            seen, reward, over, *_ = env.step(action)
            bumped += action == FORWARD and np.array_equal(seen["proprio"], before)
            last_seen = frames if env.inner.agent_sees(1, env.inner.height // 2 - 1) else last_seen
            frames += 1
        assert frames == 4 * env.inner.width, seed
        assert last_seen > 0
        hidden += frames - last_seen > 25
        rewards.append(reward > 0)
    assert 2 <= sum(rewards) <= 10 and bumped > 0
    assert name == "MemoryS7" or hidden >= 3
