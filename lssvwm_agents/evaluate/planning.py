"""Score the planner beside random moves, the explorer and the oracle, in mazes never seen in training.

Every policy plays the same mazes. An episode begins with moves of the explorer that count for nothing, during
which the planner's world model watches; then each policy drives from the very same state, and its rewards are
summed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import gymnasium
import numpy as np
from tqdm import tqdm

from lssvwm_agents.agents import PlanningAgent, PlanningStats, check_spaces, environment_kwargs
from lssvwm_agents.evaluate.environments import choose_env_id
from lssvwm_agents.evaluate.mazes import (
    HeldRandom,
    MazePolicy,
    episode_seeds,
    look_around,
    make_mazes,
    maze_of,
    require_going_on,
    seeds_tensor,
)
from lssvwm_agents.evaluate.planner_options import PlannerOptions, make_planning_agent
from lssvwm_agents.metrics import mean_ci95
from lssvwm_agents.worldmodel import WorldModel

SCRIPTED = ("random", "random_repeat", "explorer", "oracle")
CI95_METHOD = "Student's t over episodes, two-sided"


def summary(scores: Sequence[float]) -> dict[str, Any]:
    """``mean``, ``ci95`` [low, high], ``episodes`` (one score each) and ``num_episodes``."""
    mean, low, high = mean_ci95(scores)
    return {"mean": mean, "ci95": [low, high], "episodes": list(scores), "num_episodes": len(scores)}


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
    progress: tqdm[Any] | None = None,
) -> np.ndarray:
    """Scores (B,) of one scripted policy over ``steps`` moves after looking around."""
    look_around(env, seeds, look_around_moves)
    policy = make_scripted(name, maze_of(env)[0], action_repeat)
    memory = policy.initial_carry(seeds_tensor(seeds, 2), "cpu")
    scores = np.zeros(len(seeds))
    for _ in range(steps):
        action, memory = policy.act(maze_of(env)[1], memory)
        _, reward, terminated, truncated, _ = env.step(np.asarray(action))
        scores += np.asarray(reward)
        require_going_on(terminated, truncated)
        if progress is not None:
            progress.update()
    return scores


def play_planner(
    env: gymnasium.vector.VectorEnv,
    seeds: list[int],
    agent: PlanningAgent,
    look_around_moves: int,
    steps: int,
    progress: tqdm[Any] | None = None,
) -> tuple[np.ndarray, PlanningStats]:
    """Scores (B,) of the planning agent over ``steps`` moves after looking around, and what planning cost."""
    carry = agent.initial_carry(len(seeds), seed=seeds[0])
    observation, watched = look_around(env, seeds, look_around_moves, agent, carry)
    assert watched is not None
    carry = watched
    scores = np.zeros(len(seeds))
    for _ in range(steps):
        action, carry = agent.act(observation, carry)
        observation, reward, terminated, truncated, _ = env.step(np.asarray(action))
        scores += np.asarray(reward)
        require_going_on(terminated, truncated)
        if progress is not None:
            progress.set_postfix_str(f"score {scores.mean():.2f}", refresh=False)
            progress.update()
    return scores, carry.stats


def evaluate_planning(
    model: WorldModel,
    env_id: str | None = None,
    episodes: int = 20,
    seed: int = 0,
    *,
    look_around_moves: int = 96,
    steps: int = 250,
    options: PlannerOptions | None = None,
    memory_frames: int | None = None,
    envs_at_once: int = 32,
    allow_other_env: bool = False,
    num_threads: int = 1,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure the planner and its controls.

    Args:
        model: The world model.
        env_id: Environment; by default the one that the model was trained for.
        episodes: Mazes.
        seed: Names the mazes and all choices.
        look_around_moves: Moves of the explorer before anything counts; equal for every policy.
        steps: Moves that count.
        options: The planner's numbers.
        memory_frames: Control: plans start from a memory of only the last so many real frames.
        envs_at_once: Mazes played side by side.
        allow_other_env: Also take an environment that the model was not trained for.
        num_threads: Threads that share the imagined futures, on a CPU.
        progress: Whether to show a progress bar.

    Returns:
        For ``planner``, ``random``, ``random_repeat``, ``explorer`` and ``oracle`` a :func:`summary`; and
        ``planner_minus_random`` (paired by maze), ``fraction_of_oracle``, ``imagined_frames_per_second``,
        ``imagined_frames``, ``planning_seconds``, ``wall_seconds``, ``seeds`` and all arguments.

    Raises:
        ValueError: If a number is out of range, or model and environment do not fit.
    """
    for name, value, least in (
        ("episodes", episodes, 1),
        ("look_around", look_around_moves, 0),
        ("steps", steps, 1),
        ("envs_at_once", envs_at_once, 1),
    ):
        if value < least:
            raise ValueError(f"`{name}` must be at least {least}, got {value}.")
    options = options or PlannerOptions()
    env_id = choose_env_id(model.config, env_id, allow_other_env)
    kwargs = environment_kwargs(model.config)
    began = time.perf_counter()
    seeds = episode_seeds(seed, episodes)
    chunks = [seeds[i : i + envs_at_once] for i in range(0, episodes, envs_at_once)]
    scores: dict[str, list[float]] = {name: [] for name in ("planner", *SCRIPTED)}
    stats = PlanningStats()
    total = len(chunks) * steps * (1 + len(SCRIPTED))
    with tqdm(total=total, unit="move", disable=not progress, smoothing=0.05) as bar:
        for chunk in chunks:
            env = make_mazes(env_id, len(chunk), look_around_moves + steps, kwargs)
            check_spaces(model.config, env.single_observation_space, env.single_action_space)
            agent = make_planning_agent(
                model, options, env.single_action_space, len(chunk), memory_frames, num_threads
            )
            for name in SCRIPTED:
                bar.set_description(name)
                played = play_scripted(env, chunk, name, look_around_moves, steps, options.action_repeat, bar)
                scores[name] += played.tolist()
            bar.set_description("planner")
            played, cost = play_planner(env, chunk, agent, look_around_moves, steps, bar)
            scores["planner"] += played.tolist()
            stats = PlanningStats(
                stats.plans + cost.plans,
                stats.imagined_frames + cost.imagined_frames,
                stats.seconds + cost.seconds,
            )
            env.close()
    difference = np.subtract(scores["planner"], scores["random"])
    oracle = float(np.mean(scores["oracle"]))
    return {
        **{name: summary(values) for name, values in scores.items()},
        "planner_minus_random": summary(difference.tolist()),
        "ci95_method": CI95_METHOD,
        "fraction_of_oracle": float(np.mean(scores["planner"])) / oracle if oracle > 0 else None,
        "imagined_frames_per_second": stats.imagined_frames_per_second,
        "imagined_frames": stats.imagined_frames,
        "planning_seconds": stats.seconds,
        "wall_seconds": time.perf_counter() - began,
        "seed": seed,
        "seeds": seeds,
        "env_id": env_id,
        "look_around": look_around_moves,
        "steps": steps,
        "memory_cut": memory_frames,
        "planner_config": asdict(options),
    }
