"""Who walks: every client has a session with a walk of its own, which outlives a lost connection."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lssvwm_agents.errors import UserError
from lssvwm_agents.serve.walk import Walk

if TYPE_CHECKING:
    from lssvwm_agents.serve.journey import Journey


@dataclass
class Session:
    """One client's place.

    Attributes:
        name: Secret; whoever knows it may go on with the walk.
        walk: None until the first maze was looked at.
        lock: Held while the walk changes.
        owner: The connection that it is served by; None while there is none.
        show_real: Whether the page asks for the real maze beside the imagined frame.
        journey: The walk to a planned point, while there is one, and its task.
        last_used: Monotonic seconds.
    """

    name: str
    walk: Walk | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    owner: object | None = None
    show_real: bool = False
    journey: tuple[Journey, asyncio.Task[None]] | None = None
    last_used: float = field(default_factory=time.monotonic)


class Sessions:
    """The sessions of one server.

    Args:
        limit: At most so many are kept; to make room, the one longest without a connection goes.
        idle_seconds: A session without a connection is kept for so long.
    """

    def __init__(self, limit: int = 16, idle_seconds: float = 3600.0) -> None:
        if limit < 1:
            raise UserError(f"`limit` must be at least 1, got {limit}.")
        self.limit, self.idle_seconds = limit, idle_seconds
        self._sessions: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def join(self, name: str | None) -> tuple[Session, bool]:
        """The session of that name, and True; or, where there is none, a new one, and False.

        Raises:
            UserError: If all places are taken.
        """
        self._let_go()
        session = self._sessions.get(name or "")
        if session is not None:
            return session, True
        if len(self._sessions) >= self.limit:
            away = [one for one in self._sessions.values() if one.owner is None]
            if not away:
                raise UserError(f"All {self.limit} places are taken; try again later.")
            del self._sessions[min(away, key=lambda one: one.last_used).name]
        session = Session(secrets.token_urlsafe(12))
        self._sessions[session.name] = session
        return session, False

    def _let_go(self) -> None:
        """Drop sessions that nobody came back to."""
        limit = time.monotonic() - self.idle_seconds
        for session in list(self._sessions.values()):
            if session.owner is None and session.last_used < limit:
                del self._sessions[session.name]
