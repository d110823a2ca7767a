"""Paths that return to the very same views, made of the maze's own moves.

Everything keeps to the grid's axes: a quarter turn is a whole number of moves and so is a cell, so that
positions and headings, which are integers in fine units, recur exactly. A *tour* walks shortest paths between
random cells and now and then turns around on the spot. A *loop* goes some way ahead, turns round, comes back
on its own steps and turns round again; the shortest loop is a full turn on the spot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from lssvwm_agents.envs import MazeConfig, MazeState, reset
from lssvwm_agents.envs.maze_config import HEADING_UNITS

FORWARD, LEFT, RIGHT = 1, 2, 3
MIN_CELLS = 8
"""A maze is taken if at least so many cells can be reached without touching the target that pays."""
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # east, north, west, south
_SPIN = 0.25

Cell = tuple[int, int]


@dataclass(frozen=True)
class MoveSizes:
    """How many moves make a cell, and a quarter turn."""

    cell: int
    quarter: int

    @classmethod
    def of(cls, config: MazeConfig) -> MoveSizes:
        """Read them from a maze.

        Raises:
            ValueError: If a cell or a quarter turn is no whole number of moves, or actions are continuous.
        """
        cell, quarter = 1.0 / config.move_per_step, 90.0 / config.turn_degrees
        if config.continuous or cell != int(cell) or quarter != int(quarter):
            raise ValueError(
                "views recur exactly only with Discrete(6) actions, a cell and a quarter turn being whole "
                f"numbers of moves, got continuous={config.continuous}, {cell:g} and {quarter:g} moves."
            )
        return cls(int(cell), int(quarter))

    @property
    def shortest_loop(self) -> int:
        """Moves of a full turn on the spot."""
        return 4 * self.quarter


def reachable(walls: np.ndarray, start: Cell, closed: Cell | None) -> set[Cell]:
    """Cells that can be reached from ``start`` in walls (G, G) [y, x] without entering ``closed``."""
    found, waiting = {start}, deque([start])
    while waiting:
        for cell in _neighbours(walls, waiting.popleft()):
            if cell not in found and cell != closed:
                found.add(cell)
                waiting.append(cell)
    return found


def tour(
    walls: np.ndarray, start: Cell, facing: int, closed: Cell | None, sizes: MoveSizes, seed: int
) -> Iterator[int]:
    """An endless stream of moves between random cells.

    Args:
        walls: (G, G) bool, [y, x].
        start: Cell (x, y) in whose middle the walk begins.
        facing: Quarter turns from east, counter-clockwise.
        closed: A cell that is never entered.
        sizes: Moves per cell and quarter turn.
        seed: Of all choices.
    """
    draw = np.random.default_rng(seed)
    cells = sorted(reachable(walls, start, closed))
    here = start
    while True:
        goal = cells[draw.integers(len(cells))]
        for following in _shortest_path(walls, here, goal, closed):
            step = (following[0] - here[0], following[1] - here[1])
            turn = (_STEPS.index(step) - facing) % 4
            if turn == 2:
                yield from [(LEFT, RIGHT)[draw.integers(2)]] * (2 * sizes.quarter)
            elif turn:
                yield from [LEFT if turn == 1 else RIGHT] * sizes.quarter
            facing = (facing + turn) % 4
            yield from [FORWARD] * sizes.cell
            here = following
        if draw.random() < _SPIN or len(cells) == 1:
            yield from [(LEFT, RIGHT)[draw.integers(2)]] * (4 * sizes.quarter)


def close_loop(outward: list[int], sizes: MoveSizes, turns: tuple[int, int]) -> list[int]:
    """The loop that begins with ``outward`` moves (forward and turns only) and ends in the pose it began in.

    Args:
        outward: Moves of the way out.
        sizes: Moves per quarter turn.
        turns: Whether to turn round by LEFT or RIGHT, at the far end and at home.

    Returns:
        ``2 * len(outward) + 4 * quarter`` moves.
    """
    opposite = {FORWARD: FORWARD, LEFT: RIGHT, RIGHT: LEFT}
    back = [opposite[move] for move in reversed(outward)]
    half = 2 * sizes.quarter
    return outward + [turns[0]] * half + back + [turns[1]] * half


def check_period(sizes: MoveSizes, context: int, period: int) -> None:
    """Refuse a loop that cannot be walked in the context.

    Raises:
        ValueError: If there is no such loop.
    """
    if period % 2 or not sizes.shortest_loop <= period <= context:
        raise ValueError(
            f"a loop's period must be even, at least {sizes.shortest_loop} moves and at most the context's "
            f"{context} frames, got {period}."
        )


def loop_moves(
    config: MazeConfig, state: MazeState, seeds: list[int], context: int, period: int, horizon: int
) -> torch.Tensor:
    """Moves of a tour that ends in a loop walked twice, its second round from frame ``context`` on.

    Frame t in [context, context + min(period, horizon)) shows the very view of frame ``t - period``.

    Args:
        config: The maze.
        state: B mazes just reset.
        seeds: One per maze, of the tour's choices.
        context: Frames before the second round.
        period: Moves of the loop, even, from a full turn on the spot to ``context``.
        horizon: Most frames of the second round.

    Returns:
        (B, context + min(period, horizon)) int64; move t leads to frame t, move 0 is none (0).

    Raises:
        ValueError: If there is no such loop.
    """
    sizes = MoveSizes.of(config)
    check_period(sizes, context, period)
    length = context + min(period, horizon)
    rows = []
    for row, seed in enumerate(seeds):
        walls, start, facing, closed = _situation(state, row)
        stream = tour(walls, start, facing, closed, sizes, seed)
        before = [next(stream) for _ in range(context - period)]
        outward = [next(stream) for _ in range((period - sizes.shortest_loop) // 2)]
        # Neighbouring rows turn in opposite directions: another row's moves are wrong ones, on the spot too.
        first = LEFT if row % 2 == 0 else RIGHT
        loop = close_loop(outward, sizes, (first, first))
        rows.append(([0, *before] + 2 * loop)[:length])
    return torch.tensor(rows, dtype=torch.int64, device=state.device)


def usable_seeds(config: MazeConfig, candidates: list[int], count: int) -> list[int]:
    """The first ``count`` of the candidate mazes in which a tour has room.

    Raises:
        ValueError: If there are not so many.
    """
    state = reset(config, candidates)
    kept = []
    for row, seed in enumerate(candidates):
        walls, start, _, closed = _situation(state, row)
        if len(reachable(walls, start, closed)) >= MIN_CELLS:
            kept.append(seed)
    if len(kept) < count:
        raise ValueError(
            f"{count} mazes with {MIN_CELLS} cells within reach are needed, got {len(kept)} among "
            f"{len(candidates)} seeds."
        )
    return kept[:count]


def _situation(state: MazeState, row: int) -> tuple[np.ndarray, Cell, int, Cell]:
    """Walls, start cell, quarter turns from east, and the cell of the target that pays."""
    walls = state.walls[row].cpu().numpy()
    x, y = state.start_position[row].tolist()
    facing = int(state.start_heading[row]) // (HEADING_UNITS // 4)
    target_x, target_y = state.target_position[row, int(state.current_target[row])].tolist()
    return walls, (int(x), int(y)), facing, (int(target_x), int(target_y))


def _neighbours(walls: np.ndarray, cell: Cell) -> list[Cell]:
    x, y = cell
    return [(x + dx, y + dy) for dx, dy in _STEPS if not walls[y + dy, x + dx]]


def _shortest_path(walls: np.ndarray, start: Cell, goal: Cell, closed: Cell | None) -> list[Cell]:
    """Cells after ``start`` up to ``goal``."""
    before: dict[Cell, Cell] = {start: start}
    waiting = deque([start])
    while waiting and goal not in before:
        here = waiting.popleft()
        for cell in _neighbours(walls, here):
            if cell not in before and cell != closed:
                before[cell] = here
                waiting.append(cell)
    path = []
    while goal != start:
        path.append(goal)
        goal = before[goal]
    return path[::-1]
