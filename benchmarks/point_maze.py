"""How often planning reaches PointMaze's goal in held-out episodes, beside a controller and random pushes.

python benchmarks/point_maze.py --model runs/point-maze --episodes 50 --json runs/point-maze/planning.json

An episode ends at the goal (``continuing_task=False``) or after 300 steps of the simulation. The world model
sees frames, positions and velocities; it is told neither the goal nor the maze. Seeds are from 2**31 on: no
store has such.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import tyro
from tqdm import trange

import lssvwm_agents.envs  # noqa: F401
from lssvwm_agents.agents import check_spaces
from lssvwm_agents.envs.adapters.waypoints import WaypointController
from lssvwm_agents.evaluate.planner_options import PlannerOptions, claim_threads, make_planning_agent
from lssvwm_agents.report import model_sha256, run_info, write_json
from lssvwm_agents.weights import load_model

ENV = "lssvwm/PointMaze-UMaze-v0"
SIMULATED_STEPS = 300
FIRST_SEED = 2**31


@dataclass(frozen=True)
class Args:
    """What to measure."""

    model: str
    """A run's folder, made by `lssvwm train --recipe point-maze`."""
    env: str = ENV
    """lssvwm/PointMaze-UMaze-v0, or another size that the model was trained for."""
    episodes: int = 50
    """Episodes, all policies the same ones."""
    action_repeat: int = 5
    """Steps of the simulation for each action; as in the store that the model was trained on."""
    first_seed: int = FIRST_SEED
    """Of the episodes: tune on others than those that you report."""
    device: str = "cpu"
    """cpu or cuda."""
    json: Path | None = None
    """File for the result."""
    planner: PlannerOptions = field(
        default_factory=lambda: PlannerOptions(
            name="icem",
            horizon=8,
            action_repeat=1,
            num_samples=64,
            replan_every=2,
            discount=0.95,
            reward_weight=0.2,  # the reward is as the crow flies, through walls; the value knows the way
            exploration=0.0,
        )
    )
    """The planner's numbers."""


def play(
    env: gymnasium.vector.VectorEnv, seeds: list[int], limit: int, act: Callable[[Any], Any]
) -> list[int]:
    """Actions until the goal for each episode; -1 where it was not reached."""
    seen, _ = env.reset(seed=seeds)  # type: ignore[arg-type]
    reached, alive = np.full(len(seeds), -1), np.ones(len(seeds), bool)
    for move in trange(limit, leave=False, unit="action"):
        seen, _, terminated, truncated, _ = env.step(act(seen))
        reached[alive & np.asarray(terminated)] = move + 1
        alive &= ~(np.asarray(terminated) | np.asarray(truncated))
        if not alive.any():
            break
    return reached.tolist()


def main(args: Args) -> None:
    """Play, print a table, and write the result."""
    model = load_model(args.model, args.device)
    limit = SIMULATED_STEPS // args.action_repeat
    settings = {"action_repeat": args.action_repeat, "max_episode_steps": limit, "continuing_task": False}
    env = gymnasium.make_vec(args.env, args.episodes, vectorization_mode="sync", **settings)
    check_spaces(model.config, env.single_observation_space, env.single_action_space)
    seeds = list(range(args.first_seed, args.first_seed + args.episodes))
    controller = WaypointController(env.envs[0].unwrapped.inner.unwrapped.maze)  # type: ignore[attr-defined]
    agent = make_planning_agent(
        model, args.planner, env.single_action_space, args.episodes, num_threads=claim_threads()
    )
    carry = [agent.initial_carry(args.episodes, seed=0)]
    env.action_space.seed(0)

    def plan(seen: Any) -> Any:
        action, carry[0] = agent.act(seen, carry[0])
        return np.asarray(action)

    def control(seen: Any) -> Any:
        pairs = zip(seen["proprio"], seen["task"], strict=True)
        return np.stack([np.clip(controller.force(p[:2], p[2:], g), -1, 1) for p, g in pairs]).astype(
            np.float32
        )

    policies = {"planner": plan, "controller": control, "random": lambda seen: env.action_space.sample()}
    result: dict[str, Any] = {}
    for name, act in policies.items():
        moves = play(env, seeds, limit, act)
        result[name] = {"success": float(np.mean(np.array(moves) > 0)), "actions_to_the_goal": moves}
        print(f"{name:<12}{100 * result[name]['success']:.0f} % of {args.episodes} episodes reach the goal")
    env.close()
    if args.json is not None:
        facts = {"model": args.model, "model_sha256": model_sha256(args.model), **run_info(args.device)}
        write_json(
            args.json, result | facts | {"env": args.env, "settings": settings, "first_seed": args.first_seed}
        )


if __name__ == "__main__":
    main(tyro.cli(Args))
