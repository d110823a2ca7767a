"""One client's WebSocket: what it asks, and what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from lssvwm_agents.errors import UserError
from lssvwm_agents.seeding import fold_in
from lssvwm_agents.serve import messages
from lssvwm_agents.serve.dream import MOVES
from lssvwm_agents.serve.host import DreamHost
from lssvwm_agents.serve.journey import Journey
from lssvwm_agents.serve.sessions import Session
from lssvwm_agents.serve.walk import Walk

TAKEN_OVER = 4001
_SEED_LIMIT = 1 << 32


class Connection:
    """Serves one WebSocket until it closes; the session stays.

    The first message must be ``hello``, with the session's name where the client has one. Then ``move``,
    ``fork``, ``restore``, ``forget``, ``plan``, ``stop``, ``real`` and ``maze``; whatever is wrong with a
    message is answered by an ``error``.
    """

    def __init__(self, host: DreamHost, websocket: WebSocket) -> None:
        self.host, self.websocket = host, websocket
        self.session: Session | None = None
        self._answers: dict[str, Callable[[Session, dict[str, Any]], Awaitable[None]]] = {
            "move": self._move,
            "fork": self._fork,
            "restore": self._restore,
            "forget": self._forget,
            "plan": self._plan,
            "stop": self._stop,
            "real": self._real,
            "maze": self._maze,
        }

    async def serve(self) -> None:
        """Answer until the client goes, or comes back by another connection."""
        try:
            while True:
                text = await self.websocket.receive_text()
                try:
                    await self._answer(_read(text))
                except UserError as error:
                    await self.send({"type": "error", "message": str(error)})
        except (WebSocketDisconnect, RuntimeError):  # Starlette's word for a send after the end
            pass
        finally:
            session = self.session
            if session is not None and session.owner is self:
                session.owner, session.last_used = None, time.monotonic()
                await self._end_journey(session)

    async def send(self, message: dict[str, Any]) -> None:
        """Tell the client, unless its session is served by another connection by now."""
        if self.session is None or self.session.owner is self:
            await self.websocket.send_text(json.dumps(message, separators=(",", ":")))

    # --- answers ----------------------------------------------------------------------------------

    async def _answer(self, message: dict[str, Any]) -> None:
        kind = message.get("type")
        if kind == "hello":
            return await self._hello(message)
        if self.session is None:
            raise UserError("The first message must be `hello`.")
        if not isinstance(kind, str) or kind not in self._answers:
            raise UserError(f"A message's `type` must be one of {', '.join(self._answers)}, got {kind!r}.")
        self.session.last_used = time.monotonic()
        await self._answers[kind](self.session, message)

    async def _hello(self, message: dict[str, Any]) -> None:
        if self.session is not None:
            raise UserError("`hello` was said already.")
        name = message.get("session")
        session, known = self.host.sessions.join(name if isinstance(name, str) else None)
        before, session.owner = session.owner, self
        self.session, session.last_used = session, time.monotonic()
        if isinstance(before, Connection):
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                await before.websocket.close(TAKEN_OVER)
        await self._end_journey(session)
        async with session.lock:
            if session.walk is None:
                await self._look_around(session, self.host.first_seed)
            await self._show(session, resumed=known)

    async def _move(self, session: Session, message: dict[str, Any]) -> None:
        move = _whole(message, "move", 0, len(MOVES))
        await self._end_journey(session)
        async with session.lock:
            walk = _walk(session)

            def work() -> dict[str, Any]:
                walk.move(move)
                return messages.moment_message(walk, session.show_real)

            await self.send(await self.host.move(work))

    async def _fork(self, session: Session, message: dict[str, Any]) -> None:
        async with session.lock:
            walk = _walk(session)
            await self.send({"type": "fork", "fork": messages.fork_message(walk, walk.fork())})

    async def _restore(self, session: Session, message: dict[str, Any]) -> None:
        await self._end_journey(session)
        async with session.lock:
            walk = _walk(session)
            walk.restore(_whole(message, "number", 0))
            await self.send({"type": "branch", "branch": messages.branch_message(walk.branch)})
            await self._show_moment(session)

    async def _forget(self, session: Session, message: dict[str, Any]) -> None:
        async with session.lock:
            number = _whole(message, "number", 0)
            _walk(session).forget(number)
            await self.send({"type": "forgotten", "number": number})

    async def _plan(self, session: Session, message: dict[str, Any]) -> None:
        await self._end_journey(session)
        walk = _walk(session)
        goal = (_number(message, "x"), _number(message, "y"))
        journey = Journey(self.host, session, walk, goal, self.send)
        session.journey = journey, asyncio.create_task(journey.run())

    async def _stop(self, session: Session, message: dict[str, Any]) -> None:
        await self._end_journey(session)

    async def _real(self, session: Session, message: dict[str, Any]) -> None:
        session.show_real = bool(message.get("show"))
        async with session.lock:
            await self._show_moment(session)

    async def _maze(self, session: Session, message: dict[str, Any]) -> None:
        await self._end_journey(session)
        async with session.lock:
            seed = fold_in(_walk(session).seed) % _SEED_LIMIT
            if message.get("seed") is not None:
                seed = _whole(message, "seed", 0, _SEED_LIMIT)
            await self._look_around(session, seed)
            await self._show(session, resumed=False)

    # --- parts ------------------------------------------------------------------------------------

    async def _look_around(self, session: Session, seed: int) -> None:
        await self.send({"type": "looking", "frames": self.host.dream.context_frames})
        session.walk = await self.host.move(lambda: Walk(self.host.dream, seed))

    async def _show(self, session: Session, resumed: bool) -> None:
        walk = _walk(session)
        await self.send(await self.host.move(lambda: messages.scene(walk, session.name, resumed)))
        await self._show_moment(session)

    async def _show_moment(self, session: Session) -> None:
        walk = _walk(session)
        await self.send(await self.host.move(lambda: messages.moment_message(walk, session.show_real)))

    async def _end_journey(self, session: Session) -> None:
        running, session.journey = session.journey, None
        if running is not None:
            journey, task = running
            journey.stop()
            await task


def _read(text: str) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"A message must be JSON ({error}).") from error
    if not isinstance(message, dict):
        raise UserError(f"A message must be a JSON object, got {type(message).__name__}.")
    return message


def _walk(session: Session) -> Walk:
    if session.walk is None:
        raise UserError("No maze has been looked at yet.")
    return session.walk


def _whole(message: dict[str, Any], name: str, low: int, high: int | None = None) -> int:
    value = message.get(name)
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or value < low
        or (high is not None and value >= high)
    ):
        limit = f"at least {low}" if high is None else f"in [{low}, {high})"
        raise UserError(f"`{name}` must be a whole number {limit}, got {value!r}.")
    return value


def _number(message: dict[str, Any], name: str) -> float:
    value = message.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e3:
        raise UserError(f"`{name}` must be a number of cells, got {value!r}.")
    return float(value)
