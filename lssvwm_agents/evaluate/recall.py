"""Planning where only memory tells the way: is a target found that was seen long ago, far away, out of sight?

Every contender stands at the end of the same walks (`recall_cases`) and is asked for a target. A success is
to touch it within a number of moves; efficiency is success weighted by the shortest path over the one taken
(SPL, Anderson et al. 2018, arXiv 1807.06757, section 3), counted in moves.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import gymnasium
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
from lssvwm_agents.evaluate.mazes import make_mazes
from lssvwm_agents.evaluate.memory.events import wilson
from lssvwm_agents.evaluate.planner_options import PlannerName, PlannerOptions
from lssvwm_agents.evaluate.recall_cases import RecallCases, find_recall_cases
from lssvwm_agents.metrics import mean_ci95
from lssvwm_agents.worldmodel import WorldModel


def score(first_touch: Sequence[int], shortest: Sequence[int]) -> dict[str, Any]:
    """What the moves until the target was touched (0 where it was not) say, beside the shortest.

    >>> score([40, 0], [40, 30])["success_rate"]
    0.5

    Returns:
        ``success_rate`` with Wilson's 95 % interval, ``spl`` with Student's, ``moves_over_shortest`` of the
        successes or None, and the episodes' own numbers.
    """
    touched = np.asarray(first_touch)
    success = touched > 0
    mean, low, high = mean_ci95(spl(first_touch, shortest).tolist())
    rate = wilson(float(success.sum()), len(touched))
    longer = touched[success] / np.asarray(shortest)[success]
    return {
        "success_rate": rate[0],
        "success_ci95": rate[1:],
        "spl": mean,
        "spl_ci95": [low, high],
        "moves_over_shortest": float(longer.mean()) if success.any() else None,
        "first_touch": [int(move) for move in touched],
        "num_episodes": len(touched),
    }


def spl(first_touch: Sequence[int], shortest: Sequence[int]) -> np.ndarray:
    """Success weighted by the shortest path over the one taken, of each episode."""
    touched, least = np.asarray(first_touch), np.asarray(shortest)
    return np.where(touched > 0, least / np.maximum(touched, least), 0.0)


def first_touches(rewards: np.ndarray) -> list[int]:
    """Moves (B,) until the first reward of (steps, B), counted from 1; 0 where there is none."""
    touched = rewards > 0
    return np.where(touched.any(0), touched.argmax(0) + 1, 0).tolist()


def evaluate_recall(
    model: WorldModel,
    env_id: str | None = None,
    episodes: int = 20,
    seed: int = 0,
    *,
    look_around_moves: int = 300,
    steps: int = 150,
    options: PlannerOptions | None = None,
    planners: tuple[PlannerName, ...] = (),
    memory_cut: int | None = 12,
    other_model: WorldModel | None = None,
    least_frames_ago: int = 200,
    least_moves: int = 30,
    envs_at_once: int = 32,
    allow_other_env: bool = False,
    num_threads: int = 1,
    progress: bool = True,
    finished: Finished | None = None,
) -> dict[str, Any]:
    """Send every contender to targets that only memory knows.

    Args:
        model: The world model.
        env_id: Environment; by default the one that the model was trained for.
        episodes: Walks.
        seed: Names the mazes and all choices.
        look_around_moves: Moves of the walk that the world model watches.
        steps: Moves within which the target is to be touched.
        options: The planners' numbers.
        planners: Their names; by default that of ``options``.
        memory_cut: Control: the same planners with a memory of only the last so many frames; None for none.
        other_model: Control: the same planners in another model, such as one without long memory.
        least_frames_ago: The target was last in sight more than so many frames ago.
        least_moves: The oracle needs at least so many moves.
        envs_at_once: Mazes played side by side.
        allow_other_env: Also take an environment that the model was not trained for.
        num_threads: Threads that share the imagined futures, on a CPU.
        progress: Whether to show a progress bar.
        finished: What was found and played before, and keeps what is found and played now.

    Returns:
        ``contenders``: a :func:`score` of each, planners' with ``planning_seconds`` and
        ``imagined_frames_per_second``; ``memory_minus_control``: paired differences of success and SPL; the
        cases, and all arguments.

    Raises:
        ValueError: If a number is out of range, cases are too rare, or model and environment do not fit.
    """
    for name, value in (("episodes", episodes), ("steps", steps), ("envs_at_once", envs_at_once)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
    options = options or PlannerOptions()
    cuts = (None,) if memory_cut is None else (None, memory_cut)
    rivals = planning_contenders(model, options, planners, cuts, other_model)
    env_id = choose_env_id(model.config, env_id, allow_other_env)
    kwargs = environment_kwargs(model.config)
    finished = finished or Finished()

    def mazes(count: int) -> gymnasium.vector.VectorEnv:
        env = make_mazes(env_id, count, look_around_moves + steps, kwargs)
        for one in rivals:
            check_spaces(one.model.config, env.single_observation_space, env.single_action_space)
        return env

    def find_cases() -> dict[str, Any]:
        began, env = time.perf_counter(), mazes(1)
        config = env.unwrapped.maze_config  # type: ignore[attr-defined]
        found = find_recall_cases(config, episodes, seed, look_around_moves, least_frames_ago, least_moves)
        env.close()
        return {"cases": asdict(found), "wall_seconds": time.perf_counter() - began}

    def play(name: str, one: PlanningContender | None) -> dict[str, Any]:
        """One contender's moves to each target, ``stats`` of planning, and ``wall_seconds``."""
        began, touched, stats = time.perf_counter(), [], PlanningStats()
        bar.set_description(name)
        for chunk in chunks:
            env, ask = mazes(len(chunk.seeds)), _Question(chunk)
            moved = lambda _: bar.update()  # noqa: E731
            if one is None:
                rewards = play_scripted(
                    env, chunk.seeds, name, look_around_moves, steps, options.action_repeat, ask, moved
                )
            else:
                agent = agent_of(one, env, num_threads)
                rewards, cost = play_planner(env, chunk.seeds, agent, look_around_moves, steps, ask, moved)
                stats = add_stats(stats, cost)
            touched += first_touches(rewards)
            env.close()
        return {"touches": touched, "stats": asdict(stats), "wall_seconds": time.perf_counter() - began}

    walks = finished.once("walks", find_cases)
    cases = RecallCases(**walks["cases"])
    chunks = [cases.rows(i, i + envs_at_once) for i in range(0, episodes, envs_at_once)]
    contenders = {**dict.fromkeys(SCRIPTED), **{one.label: one for one in rivals}}
    with tqdm(
        total=len(chunks) * steps * len(contenders), unit="move", disable=not progress, smoothing=0.05
    ) as bar:
        parts = {name: finished.once(name, partial(play, name, one)) for name, one in contenders.items()}
    order = [*(one.label for one in rivals), *SCRIPTED]
    touches: dict[str, list[int]] = {name: parts[name]["touches"] for name in order}
    stats = {one.label: PlanningStats(**parts[one.label]["stats"]) for one in rivals}
    scores = {name: score(found, cases.shortest) for name, found in touches.items()}
    for name, cost in stats.items():
        scores[name] |= {
            "planning_seconds": cost.seconds,
            "imagined_frames_per_second": cost.imagined_frames_per_second,
        }
    return {
        "contenders": scores,
        "memory_minus_control": _differences(touches, cases.shortest),
        "ci95_method": "Wilson for rates, Student's t over episodes for means, two-sided",
        "cases": asdict(cases),
        "wall_seconds": sum(part["wall_seconds"] for part in (walks, *parts.values())),
        "task": "recall",
        "seed": seed,
        "env_id": env_id,
        "look_around": look_around_moves,
        "steps": steps,
        "memory_cut": memory_cut,
        "least_frames_ago": least_frames_ago,
        "least_moves": least_moves,
        "planner_config": asdict(options),
    }


class _Question:
    """Asks every maze for its target."""

    def __init__(self, cases: RecallCases) -> None:
        self.targets = np.asarray(cases.targets, dtype=np.int64)

    def __call__(self, env: gymnasium.vector.VectorEnv, observation: Any) -> Any:
        return env.unwrapped.ask_for(self.targets)[0]  # type: ignore[attr-defined]


def _differences(touches: dict[str, list[int]], shortest: Sequence[int]) -> dict[str, Any]:
    """Of a planner with all its memory and of its controls, paired by episode."""
    found = {}
    for label, control in touches.items():
        name = label.split("/")[0]
        if name == label:
            continue
        kinds = {
            "success": [np.asarray(moves) > 0 for moves in (touches[name], control)],
            "spl": [spl(moves, shortest) for moves in (touches[name], control)],
        }
        for kind, (ours, theirs) in kinds.items():
            mean, low, high = mean_ci95((ours.astype(float) - theirs).tolist())
            found[f"{name} - {label}: {kind}"] = {"mean": mean, "ci95": [low, high]}
    return found
