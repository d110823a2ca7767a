"""Serve the play page on this machine, or with a token to others."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Callable

import uvicorn

from lssvwm_agents.errors import UserError
from lssvwm_agents.serve.app import make_app
from lssvwm_agents.serve.host import DreamHost


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes a free one.

    Raises:
        UserError: If the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((host, port))
    except (OSError, OverflowError) as error:
        taken.close()
        raise UserError(
            f"{host} port {port} cannot be used ({error}): choose another --port or --host."
        ) from error
    return taken


def serve(
    dream_host: DreamHost,
    host: str = "127.0.0.1",
    port: int = 8765,
    token: str | None = None,
    ready: Callable[[str], None] = print,
) -> None:
    """Serve until interrupted.

    Args:
        dream_host: What is served.
        host: Address to listen on. For any but a loopback address a token is needed, and made if none is
            given.
        port: 0 for a free one.
        token: That the page's address must hold.
        ready: Told the page's address when it can be opened.

    Raises:
        UserError: If the address cannot be used.
    """
    loopback = is_loopback(host)
    if token is None and not loopback:
        token = secrets.token_urlsafe(16)
    taken = listen(host, port)
    name = "localhost" if host in ("127.0.0.1", "localhost") else host
    if host in ("0.0.0.0", "::"):
        name = socket.gethostname()
    shown = f"[{name}]" if ":" in name else name
    address = f"http://{shown}:{taken.getsockname()[1]}/" + (f"?token={token}" if token else "")
    app = make_app(dream_host, token, None if loopback else ["*"])
    config = uvicorn.Config(app, log_level="warning", ws_max_size=1 << 16, timeout_graceful_shutdown=2)
    taken.listen()
    ready(address)
    try:
        uvicorn.Server(config).run(sockets=[taken])
    finally:
        dream_host.close()
        taken.close()
