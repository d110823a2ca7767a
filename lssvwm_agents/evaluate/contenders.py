"""Who is scored in mazes: planners with all their memory, with a cut one, in another model; and scripts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np

from lssvwm_agents.agents import PlanningAgent, PlanningStats
from lssvwm_agents.evaluate.mazes import (
    HeldRandom,
    MazePolicy,
    look_around,
    maze_of,
    require_going_on,
    seeds_tensor,
)
from lssvwm_agents.evaluate.planner_options import PlannerName, PlannerOptions, make_planning_agent
from lssvwm_agents.worldmodel import WorldModel

SCRIPTED = ("random", "random_repeat", "explorer", "oracle")

Ask = Callable[[gymnasium.vector.VectorEnv, Any], Any]
"""After looking around: (environment, observation) -> the observation to begin with."""


def as_it_is(env: gymnasium.vector.VectorEnv, observation: Any) -> Any:
    """Begin with what the walk ended with."""
    return observation


@dataclass(frozen=True)
class PlanningContender:
    """A planner in a world model.

    Attributes:
        label: Its name in tables.
        model: What it plans in.
        options: The planner's numbers.
        memory_frames: If given, plans start from a memory of only the last so many real frames.
    """

    label: str
    model: WorldModel
    options: PlannerOptions
    memory_frames: int | None = None


def planning_contenders(
    model: WorldModel,
    options: PlannerOptions,
    planners: tuple[PlannerName, ...] = (),
    memory_cuts: tuple[int | None, ...] = (None,),
    other_model: WorldModel | None = None,
) -> list[PlanningContender]:
    """Every planner with every memory, and last in another model, if there is one.

    Args:
        model: The world model.
        options: Numbers of all planners.
        planners: Their names; by default that of ``options``.
        memory_cuts: Memories; None for all frames seen.
        other_model: Such as one without long memory.

    Raises:
        ValueError: If a planner is named twice.
    """
    names = planners or (options.name,)
    if len(set(names)) < len(names):
        raise ValueError(f"`planners` must name each planner once, got {', '.join(names)}.")
    found = []
    for name in names:
        own = replace(options, name=name)
        for cut in memory_cuts:
            found.append(PlanningContender(name if cut is None else f"{name}/last {cut}", model, own, cut))
        if other_model is not None:
            found.append(PlanningContender(f"{name}/other model", other_model, own))
    return found


def make_scripted(name: str, config: Any, action_repeat: int) -> MazePolicy:
    """One of :data:`SCRIPTED` for mazes of ``config``; ``random_repeat`` holds its actions."""
    from lssvwm_agents.envs import make_policy

    if name == "random_repeat":
        return HeldRandom(make_policy("random", config), action_repeat)
    policy: MazePolicy = make_policy(name, config)
    return policy


def play_scripted(
    env: gymnasium.vector.VectorEnv,
    seeds: list[int],
    name: str,
    look_around_moves: int,
    steps: int,
    action_repeat: int,
    ask: Ask = as_it_is,
    moved: Callable[[np.ndarray], None] = lambda rewards: None,
) -> np.ndarray:
    """Rewards (steps, B) of one scripted policy after looking around; ``moved`` is told of each move's."""
    observation, _ = look_around(env, seeds, look_around_moves)
    ask(env, observation)
    policy = make_scripted(name, maze_of(env)[0], action_repeat)
    memory = policy.initial_carry(seeds_tensor(seeds, 2), "cpu")
    rewards = []
    for _ in range(steps):
        action, memory = policy.act(maze_of(env)[1], memory)
        _, reward, terminated, truncated, _ = env.step(np.asarray(action))
        require_going_on(terminated, truncated)
        rewards.append(np.asarray(reward))
        moved(rewards[-1])
    return np.stack(rewards)


def play_planner(
    env: gymnasium.vector.VectorEnv,
    seeds: list[int],
    agent: PlanningAgent,
    look_around_moves: int,
    steps: int,
    ask: Ask = as_it_is,
    moved: Callable[[np.ndarray], None] = lambda rewards: None,
) -> tuple[np.ndarray, PlanningStats]:
    """Rewards (steps, B) of a planning agent after looking around, and what planning cost."""
    carry = agent.initial_carry(len(seeds), seed=seeds[0])
    observation, watched = look_around(env, seeds, look_around_moves, agent, carry)
    assert watched is not None
    carry, observation = watched, ask(env, observation)
    rewards = []
    for _ in range(steps):
        action, carry = agent.act(observation, carry)
        observation, reward, terminated, truncated, _ = env.step(np.asarray(action))
        require_going_on(terminated, truncated)
        rewards.append(np.asarray(reward))
        moved(rewards[-1])
    return np.stack(rewards), carry.stats


def agent_of(
    contender: PlanningContender, env: gymnasium.vector.VectorEnv, num_threads: int
) -> PlanningAgent:
    """The contender's agent for an environment's actions."""
    return make_planning_agent(
        contender.model,
        contender.options,
        env.single_action_space,
        env.num_envs,
        contender.memory_frames,
        num_threads,
    )


def add_stats(one: PlanningStats, other: PlanningStats) -> PlanningStats:
    """The costs of both."""
    return PlanningStats(
        one.plans + other.plans,
        one.imagined_frames + other.imagined_frames,
        one.seconds + other.seconds,
    )
