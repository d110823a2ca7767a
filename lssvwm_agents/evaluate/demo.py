"""The demo: unseen mazes, a look around, then every move planned by imagining what would follow."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lssvwm_agents.agents import PlanningAgent, PlanningCarry, check_env_id, check_spaces, environment_kwargs
from lssvwm_agents.evaluate.maze_map import MazeView
from lssvwm_agents.evaluate.mazes import episode_seeds, look_around, make_mazes, maze_of, require_going_on
from lssvwm_agents.evaluate.pages import (
    EpisodeDrawer,
    best_window,
    draw_candidates,
    episode_pages,
)
from lssvwm_agents.evaluate.planner_options import PlannerOptions, make_planning_agent
from lssvwm_agents.evaluate.planning import play_scripted
from lssvwm_agents.evaluate.recording import Recording
from lssvwm_agents.report.drawing import write_png
from lssvwm_agents.report.video import write_gif, write_mp4
from lssvwm_agents.worldmodel import WorldModel

WRITING_SECONDS = 25.0
"""Kept back for the controls and for drawing and writing the files."""


class Budget:
    """Wall time since the start, shown as a progress bar in seconds."""

    def __init__(self, seconds: float, progress: bool = True) -> None:
        self.began = time.perf_counter()
        self.seconds = seconds
        layout = "{desc} |{bar}| {n:.0f}/{total:.0f} s"
        self.bar = tqdm(total=seconds, bar_format=layout, disable=not progress)

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.began

    def show(self, words: str) -> None:
        """Say what is being done now, and move the bar."""
        self.bar.set_description_str(words, refresh=False)
        self.bar.n = min(self.spent, self.seconds)
        self.bar.refresh()


def play_batch(
    env: Any,
    seeds: list[int],
    agent: PlanningAgent,
    look_around_moves: int,
    max_moves: int,
    min_moves: int,
    budget: Budget,
    deadline: float,
) -> tuple[Recording, np.ndarray, PlanningCarry]:
    """Play one batch of mazes until ``max_moves``, or until the deadline, but at least ``min_moves``.

    Returns:
        The recording, the scores (B,) and the agent's last carry.
    """
    recording = Recording(len(seeds))

    def frame_and_view(observation: Any) -> tuple[np.ndarray, MazeView]:
        frame = observation["frame"] if isinstance(observation, dict) else observation
        return np.asarray(frame), MazeView(*maze_of(env))

    def watch(observation: Any) -> None:
        recording.watch(*frame_and_view(observation))
        budget.show(f"looking around, move {len(recording.moments)}")

    observation, carry = look_around(
        env, seeds, look_around_moves, agent, agent.initial_carry(len(seeds), seed=seeds[0]), watch
    )
    assert carry is not None
    scores, moves = np.zeros(len(seeds)), 0
    while moves < max_moves and (moves < min_moves or budget.spent < deadline):
        action, carry = agent.act(observation, carry)
        frame, view = frame_and_view(observation)
        recording.act(agent, carry, frame, scores, view)
        observation, reward, terminated, truncated, _ = env.step(np.asarray(action))
        scores += np.asarray(reward)
        require_going_on(terminated, truncated)
        moves += 1
        found = " ".join(f"{score:.0f}" for score in scores)
        budget.show(f"planning, move {moves}, targets found {found}")
    return recording, scores, carry


def run_demo(
    model: WorldModel,
    out: Path,
    *,
    env_id: str | None = None,
    seconds: float = 150.0,
    mazes: int = 4,
    seed: int = 0,
    look_around_moves: int = 96,
    max_moves: int = 250,
    min_moves: int = 40,
    options: PlannerOptions | None = None,
    allow_other_env: bool = False,
    progress: bool = True,
    already_spent: float = 0.0,
) -> dict[str, Any]:
    """Play, and write ``episode.mp4``, ``episode.gif``, ``plan.png`` and ``report.json`` to ``out``.

    Args:
        model: The world model.
        out: Folder; made if missing.
        env_id: Environment; by default the one that the model was trained for.
        seconds: Wall time for everything; planning stops early enough to write the files.
        mazes: Mazes in one batch, at least 4; more batches follow while time is left.
        seed: Names the mazes and all choices.
        look_around_moves: Moves of the explorer before the agent takes over.
        max_moves: Planned moves of an episode.
        min_moves: Planned moves of the first batch even if the time is over.
        options: The planner's numbers.
        allow_other_env: Also take an environment that the model was not trained for.
        progress: Whether to show a progress bar.
        already_spent: Seconds of the budget used before, such as for loading.

    Returns:
        What ``report.json`` holds, apart from the facts about the run that the caller adds.

    Raises:
        ValueError: If a number is out of range, or model and environment do not fit.
    """
    for name, value, least in (
        ("mazes", mazes, 4),
        ("look_around", look_around_moves, 0),
        ("min_moves", min_moves, 1),
    ):
        if value < least:
            raise ValueError(f"`{name}` must be at least {least}, got {value}.")
    if max_moves < min_moves:
        raise ValueError(f"`max_moves` must be at least min_moves={min_moves}, got {max_moves}.")
    options = options or PlannerOptions()
    env_id = env_id or model.config.env_id
    if not env_id:
        raise ValueError(
            "this model names no environment of its own: pass --env, such as lssvwm/RaycastMaze-7x7-v0."
        )
    if not allow_other_env:
        check_env_id(model.config, env_id)
    budget = Budget(seconds, progress)
    budget.began -= already_spent
    deadline = seconds - WRITING_SECONDS
    env = make_mazes(env_id, mazes, look_around_moves + max_moves, environment_kwargs(model.config))
    check_spaces(model.config, env.single_observation_space, env.single_action_space)
    agent = make_planning_agent(model, options, env.single_action_space, mazes)

    played: list[tuple[list[int], Recording, np.ndarray, PlanningCarry, int]] = []
    longest = 0.0
    while not played or budget.spent + longest < deadline:
        began = budget.spent
        seeds = episode_seeds(seed, mazes * (len(played) + 1))[-mazes:]
        first = not played
        recording, scores, carry = play_batch(
            env,
            seeds,
            agent,
            look_around_moves,
            max_moves,
            min_moves if first else max_moves,
            budget,
            deadline,
        )
        moves = sum(m.plan is not None for m in recording.moments)
        played.append((seeds, recording, scores, carry, moves))
        longest = max(longest, budget.spent - began)
        if moves < max_moves:
            break

    episodes: list[dict[str, Any]] = []
    for seeds, _, scores, _, moves in played:
        budget.show("random and oracle in the same mazes")
        controls = {
            name: play_scripted(env, seeds, name, look_around_moves, moves, options.action_repeat)
            for name in ("random", "oracle")
        }
        for row, maze_seed in enumerate(seeds):
            episodes.append(
                {
                    "maze_seed": maze_seed,
                    "moves": moves,
                    "planner": float(scores[row]),
                    "random": float(controls["random"][row]),
                    "oracle": float(controls["oracle"][row]),
                }
            )
    env.close()

    best = int(np.argmax([episode["planner"] for episode in episodes]))
    _, recording, _, _, _ = played[best // mazes]
    row, name = best % mazes, f"maze {best + 1} of {len(episodes)}"
    budget.show("drawing the candidate futures")
    snapshot = recording.snapshots[row]
    assert snapshot is not None
    move = snapshot.move - look_around_moves + 1
    write_png(
        out / "plan.png",
        draw_candidates(agent, snapshot, f"Candidate futures compared at move {move} in {name}"),
    )
    pages = []
    for page in episode_pages(recording, row, name):
        pages.append(page)
        budget.show("drawing the video")
    budget.show("writing the video")
    write_mp4(out / "episode.mp4", pages, fps=10)
    window = best_window(recording, row, 80)
    drawer = EpisodeDrawer(recording, row, name, size=160, future=False)
    small = [drawer.page(i) for i in window]
    budget.show("writing the GIF")
    write_gif(out / "episode.gif", small, fps=8, colors=64)
    costs = [carry.stats for _, _, _, carry, _ in played]
    report = {
        "episodes": episodes,
        "mean": {key: float(np.mean([e[key] for e in episodes])) for key in ("planner", "random", "oracle")},
        "video_maze": {"number": best + 1, "why": "highest score of the planner"},
        "imagined_frames": sum(c.imagined_frames for c in costs),
        "imagined_frames_per_second": sum(c.imagined_frames for c in costs) / sum(c.seconds for c in costs),
        "planning_seconds": sum(c.seconds for c in costs),
        "wall_seconds": budget.spent,
        "seed": seed,
        "env_id": env_id,
        "look_around": look_around_moves,
        "planner_config": asdict(options),
    }
    budget.show("done")
    budget.bar.close()
    return report
