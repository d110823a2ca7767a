"""A controller for PointMaze: along shortest paths, pushed about by noise, to the goal or to anywhere.

After D4RL's waypoint controller (Fu et al. 2020, arXiv 2004.07219), which collected its PointMaze data.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

Cell = tuple[int, int]


class WaypointController:
    """Pushes a point mass from the middle of one cell to that of the next on a shortest path.

    Args:
        maze: Gymnasium-Robotics' ``Maze``: ``maze_map``, ``cell_xy_to_rowcol``, ``cell_rowcol_to_xy``.
        stiffness: Force for each metre that is left.
        damping: Force against each metre per second.
    """

    def __init__(self, maze: Any, stiffness: float = 10.0, damping: float = 2.0) -> None:
        self._maze, self._stiffness, self._damping = maze, stiffness, damping
        self.free: list[Cell] = [
            (row, column)
            for row, line in enumerate(maze.maze_map)
            for column, what in enumerate(line)
            if what != 1
        ]
        self._next: dict[Cell, dict[Cell, Cell]] = {cell: self._towards(cell) for cell in self.free}

    def _towards(self, goal: Cell) -> dict[Cell, Cell]:
        """The next cell on a shortest path to ``goal`` from everywhere (breadth first)."""
        following, waiting, free = {goal: goal}, deque([goal]), set(self.free)
        while waiting:
            row, column = waiting.popleft()
            for cell in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                if cell in free and cell not in following:
                    following[cell] = (row, column)
                    waiting.append(cell)
        return following

    def cell(self, position: NDArray[Any]) -> Cell:
        """The free cell that holds ``position`` (x, y), or the nearest one."""
        row, column = (int(number) for number in self._maze.cell_xy_to_rowcol(np.asarray(position)))
        if (row, column) in self._next:
            return row, column
        return min(self.free, key=lambda cell: (cell[0] - row) ** 2 + (cell[1] - column) ** 2)

    def middle(self, cell: Cell) -> NDArray[np.float64]:
        """Where the middle of ``cell`` is (x, y)."""
        return np.asarray(self._maze.cell_rowcol_to_xy(np.array(cell)), np.float64)

    def force(
        self, position: NDArray[Any], velocity: NDArray[Any], goal: NDArray[Any]
    ) -> NDArray[np.float64]:
        """The push (2,), not clipped, towards ``goal`` (x, y)."""
        here, there = self.cell(position), self.cell(goal)
        target = np.asarray(goal) if here == there else self.middle(self._next[there].get(here, here))
        return self._stiffness * (target - np.asarray(position)) - self._damping * np.asarray(velocity)
