"""Score planners beside random moves, the explorer and the oracle, in mazes never seen in training.

Every policy plays the same mazes. An episode begins with moves of the explorer that count for nothing, during
which the planner's world model watches; then each policy drives from the very same state, and its rewards are
summed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from lssvwm_agents.agents import PlanningStats, check_spaces, environment_kwargs
from lssvwm_agents.evaluate.contenders import (
    SCRIPTED,
    PlanningContender,
    add_stats,
    agent_of,
    planning_contenders,
    play_planner,
    play_scripted,
)
from lssvwm_agents.evaluate.environments import choose_env_id
from lssvwm_agents.evaluate.finished import Finished
from lssvwm_agents.evaluate.mazes import episode_seeds, make_mazes
from lssvwm_agents.evaluate.planner_options import PlannerName, PlannerOptions
from lssvwm_agents.metrics import mean_ci95
from lssvwm_agents.worldmodel import WorldModel

COSTS = ("imagined_frames_per_second", "imagined_frames", "planning_seconds")
CI95_METHOD = "Student's t over episodes, two-sided"


def summary(scores: Sequence[float]) -> dict[str, Any]:
    """``mean``, ``ci95`` [low, high], ``episodes`` (one score each) and ``num_episodes``."""
    mean, low, high = mean_ci95(scores)
    return {"mean": mean, "ci95": [low, high], "episodes": list(scores), "num_episodes": len(scores)}


def evaluate_planning(
    model: WorldModel,
    env_id: str | None = None,
    episodes: int = 20,
    seed: int = 0,
    *,
    look_around_moves: int = 96,
    steps: int = 250,
    options: PlannerOptions | None = None,
    planners: tuple[PlannerName, ...] = (),
    other_model: WorldModel | None = None,
    memory_frames: int | None = None,
    envs_at_once: int = 32,
    allow_other_env: bool = False,
    num_threads: int = 1,
    progress: bool = True,
    finished: Finished | None = None,
) -> dict[str, Any]:
    """Measure the planner and its controls.

    Args:
        model: The world model.
        env_id: Environment; by default the one that the model was trained for.
        episodes: Mazes.
        seed: Names the mazes and all choices.
        look_around_moves: Moves of the explorer before anything counts; equal for every policy.
        steps: Moves that count.
        options: The planners' numbers.
        planners: Names of the planners; by default that of ``options``.
        other_model: Control: the same planners in another model, such as one without long memory.
        memory_frames: Control: plans start from a memory of only the last so many real frames.
        envs_at_once: Mazes played side by side.
        allow_other_env: Also take an environment that the model was not trained for.
        num_threads: Threads that share the imagined futures, on a CPU.
        progress: Whether to show a progress bar.
        finished: What was played before, and keeps what is played now.

    Returns:
        For ``random``, ``random_repeat``, ``explorer`` and ``oracle`` a :func:`summary`; in ``planners`` one
        of each planner, with ``minus_random`` (paired by maze), ``fraction_of_oracle`` and what planning
        cost; the first of them again as ``planner``, ``planner_minus_random``, ``fraction_of_oracle``,
        ``imagined_frames_per_second``, ``imagined_frames``, ``planning_seconds``; and ``wall_seconds``,
        ``seeds`` and all arguments.

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
    rivals = planning_contenders(model, options, planners, (memory_frames,), other_model)
    env_id = choose_env_id(model.config, env_id, allow_other_env)
    kwargs = environment_kwargs(model.config)
    finished = finished or Finished()
    seeds = episode_seeds(seed, episodes)
    chunks = [seeds[i : i + envs_at_once] for i in range(0, episodes, envs_at_once)]

    def play(name: str, one: PlanningContender | None) -> dict[str, Any]:
        """One contender's ``scores``, ``stats`` of planning, and ``wall_seconds``."""
        began, found, stats = time.perf_counter(), [], PlanningStats()
        bar.set_description(name)
        for chunk in chunks:
            env = make_mazes(env_id, len(chunk), look_around_moves + steps, kwargs)
            for rival in rivals:
                check_spaces(rival.model.config, env.single_observation_space, env.single_action_space)
            moved = lambda _: bar.update()  # noqa: E731
            if one is None:
                rewards = play_scripted(
                    env, chunk, name, look_around_moves, steps, options.action_repeat, moved=moved
                )
            else:
                agent = agent_of(one, env, num_threads)
                rewards, cost = play_planner(env, chunk, agent, look_around_moves, steps, moved=moved)
                stats = add_stats(stats, cost)
            found += rewards.sum(0).tolist()
            env.close()
        return {"scores": found, "stats": asdict(stats), "wall_seconds": time.perf_counter() - began}

    contenders = {**dict.fromkeys(SCRIPTED), **{one.label: one for one in rivals}}
    with tqdm(
        total=len(chunks) * steps * len(contenders), unit="move", disable=not progress, smoothing=0.05
    ) as bar:
        parts = {name: finished.once(name, partial(play, name, one)) for name, one in contenders.items()}
    scores = {name: part["scores"] for name, part in parts.items()}
    stats = {one.label: PlanningStats(**parts[one.label]["stats"]) for one in rivals}
    entries = {one.label: _planner_entry(scores, one.label, stats[one.label]) for one in rivals}
    first = entries[rivals[0].label]
    return {
        "planner": summary(scores[rivals[0].label]),
        **{name: summary(scores[name]) for name in SCRIPTED},
        "planners": entries,
        "planner_minus_random": first["minus_random"],
        "ci95_method": CI95_METHOD,
        **{name: first[name] for name in ("fraction_of_oracle", *COSTS)},
        "wall_seconds": sum(part["wall_seconds"] for part in parts.values()),
        "task": "score",
        "seed": seed,
        "seeds": seeds,
        "env_id": env_id,
        "look_around": look_around_moves,
        "steps": steps,
        "memory_cut": memory_frames,
        "planner_config": asdict(options),
    }


def _planner_entry(scores: dict[str, list[float]], label: str, stats: PlanningStats) -> dict[str, Any]:
    """A planner's scores, beside the scripted ones', and what planning cost."""
    oracle = float(np.mean(scores["oracle"]))
    return {
        **summary(scores[label]),
        "minus_random": summary(np.subtract(scores[label], scores["random"]).tolist()),
        "fraction_of_oracle": float(np.mean(scores[label])) / oracle if oracle > 0 else None,
        "imagined_frames_per_second": stats.imagined_frames_per_second,
        "imagined_frames": stats.imagined_frames,
        "planning_seconds": stats.seconds,
    }
