"""Let a planning agent play whole episodes of any environment that its world model fits, and film them.

Shapes: B episodes side by side.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from tqdm import tqdm

from lssvwm_agents.agents import check_spaces, environment_kwargs
from lssvwm_agents.evaluate.environments import choose_env_id, make_envs
from lssvwm_agents.evaluate.maze_map import MazeView
from lssvwm_agents.evaluate.mazes import episode_seeds
from lssvwm_agents.evaluate.pages import episode_pages
from lssvwm_agents.evaluate.planner_options import PlannerOptions, make_planning_agent
from lssvwm_agents.evaluate.recording import Recording
from lssvwm_agents.report.video import write_mp4
from lssvwm_agents.worldmodel import WorldModel


def play_episodes(
    model: WorldModel,
    out: Path,
    *,
    env_id: str | None = None,
    episodes: int = 4,
    max_moves: int = 200,
    seed: int = 0,
    options: PlannerOptions | None = None,
    allow_other_env: bool = False,
    num_threads: int = 1,
    progress: bool = True,
) -> dict[str, Any]:
    """Play ``episodes`` side by side from their first frame on, and write a video of each to ``out``.

    Args:
        model: The world model.
        out: Folder; made if missing.
        env_id: Environment; by default the one that the model was trained for.
        episodes: How many.
        max_moves: Moves after which an episode is cut.
        seed: Names the episodes and all choices.
        options: The planner's numbers.
        allow_other_env: Also take an environment that the model was not trained for.
        num_threads: Threads that share the imagined futures, on a CPU.
        progress: Whether to show progress bars.

    Returns:
        What ``report.json`` holds, apart from the facts about the run that the caller adds.

    Raises:
        ValueError: If a number is out of range, or model and environment do not fit.
    """
    for name, value in (("episodes", episodes), ("max_moves", max_moves)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
    options = options or PlannerOptions()
    env_id = choose_env_id(model.config, env_id, allow_other_env)
    began = time.perf_counter()
    env = make_envs(env_id, episodes, environment_kwargs(model.config))
    check_spaces(model.config, env.single_observation_space, env.single_action_space)
    agent = make_planning_agent(model, options, env.single_action_space, episodes, num_threads=num_threads)
    carry = agent.initial_carry(episodes, seed)
    recording = Recording(episodes)
    seeds = episode_seeds(seed, episodes)
    observation, _ = env.reset(seed=seeds)  # type: ignore[arg-type]
    returns, moves = np.zeros(episodes), np.zeros(episodes, dtype=int)
    alive = np.ones(episodes, dtype=bool)
    terminated_ever = np.zeros(episodes, dtype=bool)
    with tqdm(total=max_moves, unit="move", disable=not progress) as bar:
        for _ in range(max_moves):
            frame = np.asarray(observation["frame"] if isinstance(observation, dict) else observation)
            action, carry = agent.act(observation, carry)
            recording.act(agent, carry, frame, returns, _view(env))
            observation, reward, terminated, truncated, _ = env.step(np.asarray(action))
            returns += np.asarray(reward) * alive
            moves += alive
            terminated_ever |= np.asarray(terminated) & alive
            # What a row does after its episode's end is neither counted nor shown.
            alive &= ~(np.asarray(terminated) | np.asarray(truncated))
            bar.set_postfix_str(f"return {returns.mean():.2f}", refresh=False)
            bar.update()
            if not alive.any():
                break
    env.close()
    played = []
    for row in tqdm(range(episodes), desc="videos", disable=not progress):
        video = f"episode_{row:03d}.mp4"
        name = f"{env_id}, episode {row + 1} of {episodes}"
        write_mp4(out / video, episode_pages(recording, row, name, int(moves[row])))
        played.append(
            {
                "seed": seeds[row],
                "return": float(returns[row]),
                "moves": int(moves[row]),
                "terminated": bool(terminated_ever[row]),
                "video": video,
            }
        )
    return {
        "episodes": played,
        "mean_return": float(returns.mean()),
        "imagined_frames": carry.stats.imagined_frames,
        "imagined_frames_per_second": carry.stats.imagined_frames_per_second,
        "wall_seconds": time.perf_counter() - began,
        "seed": seed,
        "env_id": env_id,
        "planner_config": asdict(options),
    }


def _view(env: gymnasium.vector.VectorEnv) -> MazeView | None:
    """What a map can be drawn from, for mazes; None for other environments."""
    inner = env.unwrapped
    if not hasattr(inner, "maze_config"):
        return None
    return MazeView(inner.maze_config, inner.maze_state)  # type: ignore[attr-defined]
