"""The demo: unseen mazes, a look around, then every move planned by imagining what would follow."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lssvwm_agents.agents import PlanningAgent, PlanningCarry, check_spaces, environment_kwargs
from lssvwm_agents.evaluate.contenders import play_scripted
from lssvwm_agents.evaluate.environments import choose_env_id
from lssvwm_agents.evaluate.maze_map import MazeView
from lssvwm_agents.evaluate.mazes import episode_seeds, look_around, make_mazes, maze_of, require_going_on
from lssvwm_agents.evaluate.pages import (
    EpisodeDrawer,
    best_window,
    draw_candidates,
    episode_pages,
)
from lssvwm_agents.evaluate.planner_options import PlannerOptions, make_planning_agent
from lssvwm_agents.evaluate.recording import Recording
from lssvwm_agents.report.drawing import write_png
from lssvwm_agents.report.video import write_gif, write_mp4
from lssvwm_agents.worldmodel import WorldModel

WRITING_SECONDS = 20.0
"""Kept back for the controls and for drawing and writing the files."""


CONTROLS = ("random", "oracle")
GIF_FRAMES = 80


class Budget:
    """Wall time since the start, shown as a progress bar in seconds; closed by ``with``.

    Args:
        seconds: All there is.
        already_spent: Seconds used before.
        progress: Whether to show the bar.
    """

    def __init__(self, seconds: float, already_spent: float = 0.0, progress: bool = True) -> None:
        self.began = time.perf_counter() - already_spent
        self.seconds = seconds
        layout = "{desc} |{bar}| {n:.0f}/{total:.0f} s"
        self.bar = tqdm(total=seconds, bar_format=layout, disable=not progress)

    def __enter__(self) -> Budget:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.began

    def show(self, words: str) -> None:
        """Say what is being done now, and move the bar."""
        self.bar.set_description_str(words, refresh=False)
        self.bar.n = min(self.spent, self.seconds)
        self.bar.refresh()


@dataclass(frozen=True)
class Batch:
    """Mazes that were played side by side.

    Attributes:
        seeds: One per maze.
        recording: All that was seen and imagined.
        scores: (B,) targets found while planning.
        carry: The agent's last.
    """

    seeds: list[int]
    recording: Recording
    scores: np.ndarray
    carry: PlanningCarry

    @property
    def moves(self) -> int:
        """Planned moves."""
        return sum(moment.plan is not None for moment in self.recording.moments)


def play_batch(
    env: Any,
    seeds: list[int],
    agent: PlanningAgent,
    look_around_moves: int,
    max_moves: int,
    min_moves: int,
    budget: Budget,
    deadline: float,
) -> Batch:
    """Play one batch of mazes until ``max_moves``, or until the deadline, but at least ``min_moves``."""
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
    scores, moves, longest = np.zeros(len(seeds)), 0, 0.0
    while moves < max_moves and (moves < min_moves or budget.spent + longest < deadline):
        began = budget.spent
        action, carry = agent.act(observation, carry)
        frame, view = frame_and_view(observation)
        recording.act(agent, carry, frame, scores, view)
        observation, reward, terminated, truncated, _ = env.step(np.asarray(action))
        scores += np.asarray(reward)
        require_going_on(terminated, truncated)
        moves, longest = moves + 1, max(longest, budget.spent - began)
        found = " ".join(f"{score:.0f}" for score in scores)
        budget.show(f"planning, move {moves}, targets found {found}")
    return Batch(seeds, recording, scores, carry)


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
    num_threads: int = 1,
    progress: bool = True,
    already_spent: float = 0.0,
) -> dict[str, Any]:
    """Play, and write ``episode.mp4``, ``episode.gif`` and ``plan.png`` to ``out``.

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
        num_threads: Threads that share the imagined futures, on a CPU.
        progress: Whether to show a progress bar.
        already_spent: Seconds of the budget used before, such as for loading.

    Returns:
        What belongs into ``report.json``, apart from facts about the run that the caller adds.

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
    env_id = choose_env_id(model.config, env_id, allow_other_env)
    env = make_mazes(env_id, mazes, look_around_moves + max_moves, environment_kwargs(model.config))
    check_spaces(model.config, env.single_observation_space, env.single_action_space)
    agent = make_planning_agent(model, options, env.single_action_space, mazes, num_threads=num_threads)
    with Budget(seconds, already_spent, progress) as budget:
        played = _play_batches(env, agent, seed, look_around_moves, max_moves, min_moves, budget)
        budget.show("random and oracle in the same mazes")
        episodes = [
            episode for batch in played for episode in _with_controls(env, batch, look_around_moves, options)
        ]
        env.close()
        best = int(np.argmax([episode["planner"] for episode in episodes]))
        name = f"maze {best + 1} of {len(episodes)}"
        recording = played[best // mazes].recording
        _write_pictures(out, agent, recording, best % mazes, name, look_around_moves, budget)
        costs = [batch.carry.stats for batch in played]
        frames, planning_seconds = sum(c.imagined_frames for c in costs), sum(c.seconds for c in costs)
        report = {
            "episodes": episodes,
            "mean": {key: float(np.mean([e[key] for e in episodes])) for key in ("planner", *CONTROLS)},
            "video_maze": {"number": best + 1, "why": "highest score of the planner"},
            "imagined_frames": frames,
            "imagined_frames_per_second": frames / planning_seconds,
            "planning_seconds": planning_seconds,
            "wall_seconds": budget.spent,
            "seed": seed,
            "env_id": env_id,
            "look_around": look_around_moves,
            "planner_config": asdict(options),
        }
        budget.show("done")
    return report


def _play_batches(
    env: Any,
    agent: PlanningAgent,
    seed: int,
    look_around_moves: int,
    max_moves: int,
    min_moves: int,
    budget: Budget,
) -> list[Batch]:
    """Play a batch of mazes, and more of them while there is time for whole ones."""
    mazes, deadline = env.num_envs, budget.seconds - WRITING_SECONDS
    played: list[Batch] = []
    longest = 0.0
    while not played or (played[-1].moves == max_moves and budget.spent + 1.1 * longest < deadline):
        began = budget.spent
        seeds = episode_seeds(seed, mazes * (len(played) + 1))[-mazes:]
        least = max_moves if played else min_moves
        played.append(play_batch(env, seeds, agent, look_around_moves, max_moves, least, budget, deadline))
        longest = max(longest, budget.spent - began)
    return played


def _with_controls(
    env: Any, batch: Batch, look_around_moves: int, options: PlannerOptions
) -> list[dict[str, Any]]:
    """The planner's scores of one batch beside those of random and oracle over as many moves."""
    controls = {
        name: play_scripted(
            env, batch.seeds, name, look_around_moves, batch.moves, options.action_repeat
        ).sum(0)
        for name in CONTROLS
    }
    return [
        {
            "maze_seed": maze_seed,
            "moves": batch.moves,
            "planner": float(batch.scores[row]),
            **{name: float(scores[row]) for name, scores in controls.items()},
        }
        for row, maze_seed in enumerate(batch.seeds)
    ]


def _write_pictures(
    out: Path,
    agent: PlanningAgent,
    recording: Recording,
    row: int,
    name: str,
    look_around_moves: int,
    budget: Budget,
) -> None:
    """Write ``plan.png``, ``episode.mp4`` and ``episode.gif`` of one maze."""
    budget.show("drawing the candidate futures")
    snapshot = recording.snapshots[row]
    assert snapshot is not None
    title = f"Candidate futures compared at move {snapshot.move - look_around_moves + 1} in {name}"
    write_png(out / "plan.png", draw_candidates(agent, snapshot, title))

    def pages() -> Iterator[np.ndarray]:
        for page in episode_pages(recording, row, name):
            budget.show("drawing the video")
            yield page

    write_mp4(out / "episode.mp4", pages(), fps=10)
    budget.show("drawing the GIF")
    drawer = EpisodeDrawer(recording, row, name, size=160, future=False)
    window = best_window(recording, row, GIF_FRAMES)
    write_gif(out / "episode.gif", [drawer.page(i) for i in window], fps=8, colors=192)
