"""Who walks through Memory Maze and MiniGrid's memory tasks to collect episodes: they see the whole maze.

Each walker plays one episode; what is random in it comes from the generator it is given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Cell = tuple[int, int]
Pose = tuple[int, int, int]


@dataclass(frozen=True)
class MazeSituation:
    """Where the ball is in a Memory Maze; cells are counted as in ``agent_pos``.

    Attributes:
        position: (2,) x and y in cells; cell (i, j) reaches from (i, j) to (i + 1, j + 1).
        heading: Radians, counter-clockwise from x.
        free: (H, W) bool, [y, x].
        target: (2,) where the current target is.
    """

    position: NDArray[np.float64]
    heading: float
    free: NDArray[np.bool_]
    target: NDArray[np.float64]


@dataclass(frozen=True)
class GridSituation:
    """Where the agent is in a MiniGrid.

    Attributes:
        pose: Column, row, and heading: 0 east, 1 south, 2 west, 3 north.
        free: (H, W) bool, [row, column]: where one can stand.
        ends: Cells (column, row) that end the episode, the rewarded one first; empty where none is known.
    """

    pose: Pose
    free: NDArray[np.bool_]
    ends: tuple[Cell, ...] = ()


def steps_to(free: NDArray[np.bool_], goal: Cell) -> NDArray[np.int64]:
    """Moves between neighbouring cells from everywhere to ``goal`` (x, y): (H, W), -1 where no way leads."""
    steps = np.full(free.shape, -1, np.int64)
    steps[goal[1], goal[0]] = 0
    waiting = deque([goal])
    while waiting:
        x, y = waiting.popleft()
        for i, j in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
            inside = 0 <= i < free.shape[1] and 0 <= j < free.shape[0]
            if inside and free[j, i] and steps[j, i] < 0:
                steps[j, i] = steps[y, x] + 1
                waiting.append((i, j))
    return steps


class MazeWalker:
    """Walks a Memory Maze along shortest paths, to the target or, as often, anywhere, and looks around there.

    Args:
        draws: Of this episode.
    """

    TO_TARGET = 0.5
    LOOKS_AROUND = 0.3
    GIVES_UP_AFTER = 150  # steps

    def __init__(self, draws: np.random.Generator) -> None:
        self._draws = draws
        self._goal: Cell | None = None
        self._steps: NDArray[np.int64] = np.zeros((0, 0), np.int64)
        self._patience, self._looks, self._side = 0, 0, 1.0

    def act(self, now: MazeSituation) -> tuple[float, float]:
        """Speed and turn to the left, each in [-1, 1]."""
        height, width = now.free.shape
        x, y = (int(v) for v in np.clip(np.floor(now.position), 0, (width - 1, height - 1)))
        if self._goal is None or (x, y) == self._goal or self._patience == 0:
            self._choose(now)
        self._patience -= 1
        if self._looks > 0:
            self._looks -= 1
            return 0.0, self._side
        around = [(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)]
        steps = self._steps
        ways = [(i, j) for i, j in around if 0 <= i < width and 0 <= j < height and steps[j, i] >= 0]
        if not ways:
            return 1.0, self._side
        towards = min(ways, key=lambda cell: int(steps[cell[1], cell[0]])) if steps[y, x] != 0 else (x, y)
        ahead = np.array(towards) + 0.5 - now.position
        error = float((np.arctan2(ahead[1], ahead[0]) - now.heading + np.pi) % (2 * np.pi) - np.pi)
        turn = float(np.sign(error)) if abs(error) > 0.2 else 0.0
        return (1.0 if abs(error) < 0.6 else 0.0), turn

    def _choose(self, now: MazeSituation) -> None:
        """The next goal, and whether to look around before."""
        draws = self._draws
        if draws.random() < self.TO_TARGET:
            i, j = (int(v) for v in np.floor(now.target))
        else:
            rows, columns = np.nonzero(now.free)
            drawn = int(draws.integers(len(rows)))
            i, j = int(columns[drawn]), int(rows[drawn])
        self._goal, self._steps, self._patience = (i, j), steps_to(now.free, (i, j)), self.GIVES_UP_AFTER
        self._side = float(draws.choice((-1.0, 1.0)))
        self._looks = int(draws.integers(5, 25)) if draws.random() < self.LOOKS_AROUND else 0


LEFT, RIGHT, FORWARD, NOTHING = 0, 1, 2, 6


class MemoryGuesser:
    """Looks at the object to remember, wanders, and goes to either object of the fork, at random, in time.

    For MiniGrid's ``Memory`` tasks. An episode has exactly ``EPISODE_WIDTHS * width`` frames (52 in
    ``MemoryS13``) unless it is disturbed: a window of that length holds the object and what came of it. Half
    of the episodes earn the reward. In half of them the agent wanders where the object cannot be seen again,
    if the grid is wide enough.
    Wandering, it now and then does something else, and so bumps into walls.

    Args:
        draws: Of this episode.
    """

    EPISODE_WIDTHS = 4
    SLACK = 4  # steps: something else done, undone and one step farther
    ELSE = 0.1

    def __init__(self, draws: np.random.Generator) -> None:
        self._draws = draws
        self._side = int(draws.integers(2))
        self._returns = bool(draws.integers(2))
        self._time, self._visits, self._leaving = 0, 0, False
        self._steps: dict[Pose, int] = {}
        self._way_out: dict[Pose, int] = {}

    def act(self, now: GridSituation) -> int:
        """One of MiniGrid's actions."""
        if not self._way_out:
            end, other = now.ends[self._side], now.ends[1 - self._side]
            self._way_out = poses_to(without(now.free, [other]), [(*end, heading) for heading in range(4)])
        # The last step leads to the last frame, and the first frame is none of a step.
        left = self.EPISODE_WIDTHS * now.free.shape[1] - 1 - self._time
        self._time += 1
        if self._visits > 1 and self._way_out[now.pose] >= left - self.SLACK:
            self._leaving = True
        if self._leaving:
            # Waits where the way is clear: before the last step, to be there in time.
            wait = self._way_out[now.pose] == 1 and left > 1
            return NOTHING if wait else towards(self._way_out, now.pose)
        if self._steps.get(now.pose, 0) == 0:
            walkable = without(now.free, now.ends)
            self._steps = poses_to(walkable, [self._next_pose(now, walkable)])
            self._visits += 1
        elif self._visits > 1 and self._draws.random() < self.ELSE:
            action = int(self._draws.integers(3))
            if moved(now.pose, action)[:2] not in now.ends:
                return action
        return towards(self._steps, now.pose)

    def _next_pose(self, now: GridSituation, walkable: NDArray[np.bool_]) -> Pose:
        """First before the object to remember, then anywhere this side of the fork."""
        middle, fork = now.free.shape[0] // 2, now.ends[0][0]
        if self._visits == 0:
            return (int(self._draws.integers(2, 4)), middle, 2)
        reached = steps_to(walkable, now.pose[:2]) >= 0  # what lies behind the walls is empty, too
        # Seven cells are seen, one's own among them, and the object is in column 1.
        first = 0 if self._returns else min(8, fork - 1)
        rows, columns = np.nonzero(reached[:, first:fork])
        drawn = int(self._draws.integers(len(rows)))
        return (first + int(columns[drawn]), int(rows[drawn]), int(self._draws.integers(4)))


def without(free: NDArray[np.bool_], cells: Iterable[Cell]) -> NDArray[np.bool_]:
    """The free cells but for some."""
    rest = free.copy()
    for column, row in cells:
        rest[row, column] = False
    return rest


def towards(steps: dict[Pose, int], pose: Pose) -> int:
    """The action that leads one step nearer."""
    for action in (FORWARD, LEFT, RIGHT):
        if steps.get(moved(pose, action), steps[pose]) < steps[pose]:
            return action
    return NOTHING


def moved(pose: Pose, action: int) -> Pose:
    """Where an action leads if nothing is in the way."""
    column, row, heading = pose
    if action == LEFT:
        return column, row, (heading - 1) % 4
    if action == RIGHT:
        return column, row, (heading + 1) % 4
    across, down = ((1, 0), (0, 1), (-1, 0), (0, -1))[heading]
    return column + across, row + down, heading


def poses_to(free: NDArray[np.bool_], goals: list[Pose]) -> dict[Pose, int]:
    """Turns and moves from every pose that a way leads from to the nearest of ``goals``."""
    steps = {goal: 0 for goal in goals}
    waiting = deque(goals)
    while waiting:
        column, row, heading = pose = waiting.popleft()
        across, down = ((1, 0), (0, 1), (-1, 0), (0, -1))[heading]
        before = [(column, row, (heading + 1) % 4), (column, row, (heading - 1) % 4)]
        i, j = column - across, row - down
        if 0 <= i < free.shape[1] and 0 <= j < free.shape[0] and free[j, i]:
            before.append((i, j, heading))
        for other in before:
            if other not in steps:
                steps[other] = steps[pose] + 1
                waiting.append(other)
    return steps
