"""Do plans to a point of the play page's map go through walls?

    python benchmarks/play_plans.py --json benchmarks/results/play_plans.json

In mazes never seen in training the model watches the wanderer for 256 frames. Goals lie 2 to 5 cells away,
along corridors: `walked` within 0.6 cells of the wanderer's path, `off` farther from it. As on the page, the
planner walks 9 moves of a plan in the dream, four plans at most. Written down are the frames whose step led
through a wall of the real maze, where the dream ends, and where the real twin ends after the very same moves.
"""

from __future__ import annotations

import argparse
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from lssvwm_agents.files import write_json
from lssvwm_agents.report import model_sha256, run_info
from lssvwm_agents.serve.dream import Dream
from lssvwm_agents.serve.plan_to import ARRIVED_CELLS, KNOWN_CELLS, PlanTo
from lssvwm_agents.serve.walk import Walk
from lssvwm_agents.weights import load_model

FIRST_SEED, PLANS, MOVES_PER_PLAN = 1 << 31, 4, 9
NEAREST, FARTHEST = 2, 5  # cells along the corridors
POINTS_OF_A_STEP = 8


def corridor_distances(walls: np.ndarray, x: float, y: float) -> np.ndarray:
    """Steps from cell to cell, of the shape of ``walls``; -1 in walls."""
    distance = np.full(walls.shape, -1)
    distance[int(y), int(x)] = 0
    waiting = deque([(int(y), int(x))])
    while waiting:
        row, column = waiting.popleft()
        for one, other in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
            if not walls[one, other] and distance[one, other] < 0:
                distance[one, other] = distance[row, column] + 1
                waiting.append((one, other))
    return distance


def choose_goals(walk: Walk, draw: np.random.Generator) -> dict[str, tuple[float, float]]:
    """At most one goal of each kind."""
    walls = walk.moment.real.walls[0].numpy().astype(bool)
    distance = corridor_distances(walls, *walk.pose[:2])
    path = np.array(walk.looked_path)[:, :2]
    found: dict[str, list[tuple[float, float]]] = {"walked": [], "off": []}
    for row, column in np.argwhere((distance >= NEAREST) & (distance <= FARTHEST)):
        goal = (float(column) + 0.5, float(row) + 0.5)
        kind = "walked" if np.hypot(*(path - goal).T).min() <= KNOWN_CELLS else "off"
        found[kind].append(goal)
    return {kind: goals[draw.integers(len(goals))] for kind, goals in found.items() if goals}


def leads_through_a_wall(walls: np.ndarray, start: np.ndarray, end: np.ndarray) -> bool:
    points = start + np.linspace(0, 1, POINTS_OF_A_STEP + 1)[1:, None] * (end - start)
    cells = np.floor(points[:, ::-1]).astype(int)
    outside = (cells < 0).any() or (cells >= walls.shape).any()
    return bool(outside or walls[tuple(cells.T)].any())


def journey(planner: PlanTo, walk: Walk, goal: tuple[float, float]) -> dict[str, Any]:
    """Walk to the goal in the dream; the walk itself is not moved."""
    dream, moment = planner.dream, walk.moment
    walls = moment.real.walls[0].numpy().astype(bool)
    here, through, frames, warm_start = np.array(dream.pose(moment)[:2]), 0, 0, None
    for number in range(PLANS):
        if np.hypot(*(here - goal)) < ARRIVED_CELLS:
            break
        plan = planner.plan(moment, goal, walk.look.proprio[:, :2], number, warm_start)
        for index in range(MOVES_PER_PLAN):
            if np.hypot(*(here - goal)) < ARRIVED_CELLS:
                break
            moment = dream.step_float(moment, plan.actions[0, index])
            next_ = np.array(dream.pose(moment)[:2])
            through += leads_through_a_wall(walls, here, next_)
            here, frames = next_, frames + 1
        warm_start = plan.shift(MOVES_PER_PLAN)
    real = moment.real.position[0].numpy()
    return {
        "frames": frames,
        "frames_through_walls": through,
        "dream_cells_from_goal": float(np.hypot(*(here - goal))),
        "real_cells_from_goal": float(np.hypot(*(real - goal))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--mazes", type=int, default=14)
    parser.add_argument("--kinds", nargs="+", default=["off", "walked"], choices=["off", "walked"])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    dream, draw = Dream(load_model(args.model)), np.random.default_rng(0)
    planner, journeys = PlanTo(dream), list[dict[str, Any]]()
    for seed in tqdm(range(FIRST_SEED, FIRST_SEED + args.mazes), unit="maze"):
        walk = Walk(dream, seed)
        for kind, goal in choose_goals(walk, draw).items():
            if kind in args.kinds:
                journeys.append({"seed": seed, "goal": goal, "kind": kind, **journey(planner, walk, goal)})
    summary = []
    for kind in args.kinds:
        own = [one for one in journeys if one["kind"] == kind]
        if own:
            summary.append({"kind": kind, "journeys": len(own), **shares(own)})
    for line in summary:
        print(
            ", ".join(
                f"{name} {value:.2f}" if type(value) is float else f"{name} {value}"
                for name, value in line.items()
            )
        )
    if args.json is not None:
        facts = {"model": args.model, "model_sha256": model_sha256(args.model), **run_info("cpu")}
        write_json(args.json, {"summary": summary, "journeys": journeys, **facts})


def shares(journeys: list[dict[str, Any]]) -> dict[str, float]:
    """Shares of the journeys."""
    return {
        "through_a_wall": float(np.mean([one["frames_through_walls"] > 0 for one in journeys])),
        "dream_arrives": float(np.mean([one["dream_cells_from_goal"] < ARRIVED_CELLS for one in journeys])),
        "real_twin_within_a_cell": float(np.mean([one["real_cells_from_goal"] < 1.0 for one in journeys])),
    }


if __name__ == "__main__":
    main()
