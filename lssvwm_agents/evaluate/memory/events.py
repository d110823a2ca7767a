"""One event long ago decides what pays: at the cue corridor's junction both branches are imagined.

Shapes: B corridors, F moves of a branch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from lssvwm_agents.envs import MazeConfig, reset, step
from lssvwm_agents.envs.maze_layouts import cue_geometry
from lssvwm_agents.envs.scripted_policies import steer, walkable
from lssvwm_agents.evaluate.memory import controls
from lssvwm_agents.evaluate.memory.controls import Trial, make_trial, remember, window_reach
from lssvwm_agents.evaluate.memory.episodes import play_moves
from lssvwm_agents.worldmodel import WorldModel, WorldState

_PATIENCE = 64  # moves after which an agent that has not arrived never will


@dataclass(frozen=True)
class CuePaths:
    """Moves that do not depend on the cue.

    Attributes:
        approach: (T,) int64; move t leads to frame t; the last one into the junction. Move 0 is none (0).
        branches: (2, F) int64, from the junction to the left and to the right end.
    """

    approach: torch.Tensor
    branches: torch.Tensor


def cue_paths(config: MazeConfig) -> CuePaths:
    """Find the moves: past the cue to the junction, then to either end.

    Raises:
        ValueError: If the maze is no cue corridor.
    """
    if config.task != "cue":
        raise ValueError(f"`task` must be 'cue', got {config.task!r}.")
    where, grid = cue_geometry(config), config.grid_size

    def walk(state: Any, cell: tuple[int, int], patience: int, to_the_end: bool) -> tuple[Any, list[int]]:
        goal = torch.tensor([cell[1] * grid + cell[0]])
        point = torch.tensor([[cell[0] + 0.5, cell[1] + 0.5]])
        moves: list[int] = []
        while len(moves) < patience:
            move = steer(config, state, walkable(config, state), goal, point)
            state, _, ended = step(config, state, move)
            moves.append(int(move))
            inside = state.position.floor()[0].tolist() == list(cell)
            if bool(ended) if to_the_end else inside:
                return state, moves
        raise AssertionError(f"the corridor's {cell} was not reached within {patience} moves")

    at_junction, approach = walk(
        reset(config, [0]), where["junction"], config.cue_delay + _PATIENCE, to_the_end=False
    )
    branches = [walk(at_junction, where[end], _PATIENCE, to_the_end=True)[1] for end in ("left", "right")]
    length = max(map(len, branches))
    padded = [moves + [0] * (length - len(moves)) for moves in branches]
    return CuePaths(torch.tensor([0, *approach]), torch.tensor(padded))


def balanced_seeds(config: MazeConfig, candidates: list[int], count: int) -> list[int]:
    """Candidates in turn with the left and the right branch paying: who always prefers one side is at chance.

    Raises:
        ValueError: If there are too few of either.
    """
    pays = reset(config, candidates).current_target.tolist()
    sides = [
        [seed for seed, side in zip(candidates, pays, strict=True) if side == wanted] for wanted in (0, 1)
    ]
    half = [(count + 1) // 2, count // 2]
    if any(len(side) < wanted for side, wanted in zip(sides, half, strict=True)):
        raise ValueError(
            f"{count} balanced corridors are needed, got {len(sides[0])} left and {len(sides[1])} right ones."
        )
    return sides[0][: half[0]] + sides[1][: half[1]]


@torch.no_grad()
def event_memory(
    model: WorldModel,
    window_only: WorldModel | None,
    config: MazeConfig,
    seeds: list[int],
    seed: int,
    give_odometry: bool = True,
) -> dict[str, Any]:
    """How often the branch that pays is imagined to pay more, after one delay.

    Args:
        model: The model in question.
        window_only: The model that it is compared with, or None.
        config: A cue corridor; its ``cue_delay`` is the delay.
        seeds: Of the corridors.
        seed: Of the shuffled context.
        give_odometry: To models that take it.

    Returns:
        ``frames``, the frame at which the agent stands in the junction, and per condition
        ``[accuracy, low, high]`` (Wilson's 95 % interval); equal predictions count one half.
    """
    paths, device = cue_paths(config), model.device
    context, rewarded = len(paths.approach), reset(config, seeds).current_target
    branches = []
    for branch in paths.branches:
        moves = torch.cat([paths.approach, branch]).expand(len(seeds), -1).to(device)
        branches.append(play_moves(config, seeds, moves))

    def accuracy(judge: WorldModel, shuffled: bool, frames: int | None) -> list[float]:
        predicted = []
        for episodes in branches:
            trial = make_trial(judge, episodes, context, give_odometry=give_odometry)
            if shuffled:
                trial = controls.with_shuffled_context(trial, window_reach(judge), seed)
            predicted.append(_imagined_reward(judge, remember(judge, trial, frames), trial))
        left, right = predicted
        return wilson(times_right(left.cpu(), right.cpu(), rewarded), len(seeds))

    result = {
        "frames": context - 1,
        controls.OURS: accuracy(model, False, None),
        controls.CONTEXT_CUT: accuracy(model, False, window_reach(model)),
        controls.SHUFFLED: accuracy(model, True, None),
    }
    if window_only is not None:
        result[controls.WINDOW_ONLY] = accuracy(window_only, False, None)
    return result


def times_right(left: torch.Tensor, right: torch.Tensor, pays: torch.Tensor) -> float:
    """How often the branch that pays (B,), 0 left or 1 right, has the higher reward (B,); equal: one half."""
    better = torch.where(pays == 0, left - right, right - left)
    return float((better > 0).sum()) + 0.5 * float((better == 0).sum())


def _imagined_reward(model: WorldModel, state: WorldState, trial: Trial) -> torch.Tensor:
    """(B,) sum of the imagined rewards along a branch."""
    total = trial.actions.new_zeros(len(trial.latents))
    for t in range(trial.context, trial.actions.shape[1]):
        told = None if trial.proprio is None else trial.proprio[:, t]
        state, prediction = model.step(state, trial.actions[:, t], proprio=told)
        total = total + prediction.reward
    return total


def wilson(successes: float, count: int) -> list[float]:
    """A proportion with Wilson's 95 % score interval (Wilson 1927)."""
    z, share = 1.959964, successes / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return [share, max(0.0, middle - half), min(1.0, middle + half)]
