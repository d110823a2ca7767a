"""A walk to a point of the map: plan, walk a piece of the plan, plan again; the client watches."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.websockets import WebSocketDisconnect

from lssvwm_agents.errors import UserError
from lssvwm_agents.planners import Distribution, Plan
from lssvwm_agents.serve import messages
from lssvwm_agents.serve.host import DreamHost
from lssvwm_agents.serve.plan_to import ARRIVED_CELLS, SearchView
from lssvwm_agents.serve.sessions import Session
from lssvwm_agents.serve.walk import Walk

MOVES_PER_PLAN = 9
MAX_PLANS = 12


class _StoppedError(Exception):
    """Somebody ended the search."""


class Journey:
    """Leads one walk to a point; to be run as a task, and ended by :meth:`stop`.

    Args:
        host: The planner and the threads.
        session: Whose walk it is.
        walk: The walk, as it was when the journey began.
        goal: x, y in cells of the maze.
        send: Tells the client.

    Raises:
        UserError: If the goal lies in a wall or outside the maze.
    """

    def __init__(
        self,
        host: DreamHost,
        session: Session,
        walk: Walk,
        goal: tuple[float, float],
        send: Callable[[dict[str, Any]], Coroutine[Any, Any, None]],
    ) -> None:
        grid, (x, y) = walk.dream.maze.grid_size, goal
        if not (0 <= x < grid and 0 <= y < grid) or bool(walk.moment.real.walls[0, int(y), int(x)]):
            raise UserError(f"({x:.1f}, {y:.1f}) is no floor of this maze: choose another point.")
        self.host, self.session, self.walk, self.goal, self.send = host, session, walk, goal, send
        self._stopped, self._woken = threading.Event(), asyncio.Event()

    async def run(self) -> None:
        """Go there, and say how it ended: ``arrived``, ``gave_up`` or ``stopped``."""
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # the connection is gone
            await self.send({"type": "journey", "goal": list(self.goal)})
            try:
                outcome = await self._go()
            except UserError as error:
                outcome = "gave_up"
                await self.send({"type": "error", "message": str(error)})
            distance = round(self._distance(), 2)
            await self.send({"type": "journey_end", "outcome": outcome, "distance": distance})

    def stop(self) -> None:
        """End it before the next move; a search in its thread ends by itself after its iteration."""
        self._stopped.set()
        self._woken.set()

    async def _go(self) -> str:
        warm_start: Distribution | None = None
        for number in range(MAX_PLANS):
            plan = await self._search(number, warm_start)
            if plan is None:
                return "stopped"
            moves = min(MOVES_PER_PLAN, plan.num_frames)
            for index in range(moves):
                if self._distance() < ARRIVED_CELLS:
                    return "arrived"
                if self._stopped.is_set():
                    return "stopped"
                await self._step(plan, index)
            warm_start = plan.shift(moves)
        return "arrived" if self._distance() < ARRIVED_CELLS else "gave_up"

    async def _search(self, number: int, warm_start: Distribution | None) -> Plan | None:
        """A plan, or None where the journey was stopped meanwhile."""
        loop, walk, moment = asyncio.get_running_loop(), self.walk, self.walk.moment
        walked = walk.look.proprio[:, :2]

        def watch(view: SearchView) -> None:
            if self._stopped.is_set():
                raise _StoppedError
            message = messages.search_message(walk, view, number + 1)
            asyncio.run_coroutine_threadsafe(self.send(message), loop)

        def search() -> Plan | None:
            try:
                return self.host.planner.plan(moment, self.goal, walked, number, warm_start, watch)
            except _StoppedError:
                return None

        searching = asyncio.ensure_future(self.host.plan(search))
        waking = asyncio.ensure_future(self._woken.wait())
        await asyncio.wait({searching, waking}, return_when=asyncio.FIRST_COMPLETED)
        waking.cancel()
        return None if self._stopped.is_set() else await searching

    async def _step(self, plan: Plan, index: int) -> None:
        def work() -> dict[str, Any]:
            self.walk.follow(plan, index)
            return messages.moment_message(self.walk, self.session.show_real, by="planner")

        pause = asyncio.sleep(1.0 / self.host.moves_per_second)
        async with self.session.lock:
            message, _ = await asyncio.gather(self.host.move(work), pause)
            await self.send(message)

    def _distance(self) -> float:
        x, y, _ = self.walk.pose
        return math.hypot(x - self.goal[0], y - self.goal[1])
