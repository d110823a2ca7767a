"""What all clients of one server share: the dream, the list of sessions, and threads that compute."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from lssvwm_agents.serve.dream import Dream
from lssvwm_agents.serve.plan_to import PlanTo
from lssvwm_agents.serve.sessions import Sessions

T = TypeVar("T")


class DreamHost:
    """One dream for many walks.

    Args:
        dream: The rules.
        sessions: Who walks.
        planner: How plans are made; by default with one thread of its own.
        num_threads: Threads for moves; each computes its operations by itself.
        moves_per_second: Pace of a walk to a planned point.
        first_seed: Of the maze of the first walk.
    """

    def __init__(
        self,
        dream: Dream,
        sessions: Sessions | None = None,
        planner: PlanTo | None = None,
        num_threads: int = 2,
        moves_per_second: float = 10.0,
        first_seed: int = 1 << 31,
    ) -> None:
        self.dream = dream
        self.sessions = sessions or Sessions()
        self.planner = planner or PlanTo(dream)
        self.moves_per_second, self.first_seed = moves_per_second, first_seed

        def alone() -> None:
            torch.set_num_threads(1)

        self._movers = ThreadPoolExecutor(num_threads, "walk", initializer=alone)
        self._planners = ThreadPoolExecutor(1, "plan", initializer=alone)  # moves never wait for a plan

    async def move(self, work: Callable[[], T]) -> T:
        """Do the work of a move in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._movers, work)

    async def plan(self, work: Callable[[], T]) -> T:
        """Do the work of a plan in a thread; one plan after the other."""
        return await asyncio.get_running_loop().run_in_executor(self._planners, work)

    def close(self) -> None:
        """Let the threads end."""
        self._movers.shutdown(wait=False, cancel_futures=True)
        self._planners.shutdown(wait=False, cancel_futures=True)
