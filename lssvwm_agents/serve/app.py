"""The ASGI application: one page, its files, and a WebSocket for each client."""

from __future__ import annotations

import hmac
from pathlib import Path
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from lssvwm_agents.serve.connection import Connection
from lssvwm_agents.serve.host import DreamHost

STATIC = Path(__file__).parent / "static"
LOOPBACK_NAMES = ["127.0.0.1", "localhost", "[::1]"]
REFUSED = 4403


def make_app(host: DreamHost, token: str | None = None, names: list[str] | None = None) -> Starlette:
    """Build the application.

    Args:
        host: The dream, the sessions and the threads.
        token: Page and WebSocket are given only to addresses with ``?token=`` this; None for everybody.
        names: Host names that requests may be for (against DNS rebinding); loopback ones by default, ``*``
            for all.
    """

    def permitted(connection: HTTPConnection) -> bool:
        return token is None or hmac.compare_digest(connection.query_params.get("token", ""), token)

    async def page(request: Request) -> Response:
        if not permitted(request):
            return PlainTextResponse(
                "This page needs the address with its token, as `lssvwm play` printed it.", 403
            )
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    async def socket(websocket: WebSocket) -> None:
        if not permitted(websocket) or not _same_origin(websocket):
            await websocket.close(REFUSED)
            return
        await websocket.accept()
        await Connection(host, websocket).serve()

    return Starlette(
        routes=[
            Route("/", page),
            WebSocketRoute("/walk", socket),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=names or LOOPBACK_NAMES)],
    )


def _same_origin(websocket: WebSocket) -> bool:
    """Whether a page of ours asks, or a program that is no browser; other sites' pages are refused."""
    origin = websocket.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == websocket.headers.get("host")
