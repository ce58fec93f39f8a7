"""A server at an address that is taken before a large model is loaded, and served until a signal."""

import contextlib
import socket
import sys
from typing import Any

import uvicorn

from training.common.errors import UserError, one_line

SHUTDOWN_SECONDS = 1  # for answers in progress to end
# How long an idle connection stays open: longer than in clients (5 s in httpx). Otherwise a request may be sent on a
# connection that the server is just closing, and fail.
IDLE_SECONDS = 75


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at the address, before a large model is loaded. Clients wait from then on.

    Raises:
        UserError: the address is in use, not allowed, or not of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UserError(f"'host': {host} is not an address of this machine ({one_line(error)})") from None
    try:
        if sys.platform != "win32":  # there it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()  # until then another server could take it as well
    except OSError as error:
        listener.close()
        raise UserError(f"'port': {port} cannot be used ({error.strerror}); choose another with --port") from None
    return listener


def address_of(listener: socket.socket) -> str:
    """Host and port, as in an address line."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def serve(app: Any, listener: socket.socket) -> None:
    """Serve an ASGI application until Ctrl-C or SIGTERM."""
    options = uvicorn.Config(
        app,
        log_level="warning",
        lifespan="off",
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again, once it has closed everything
        uvicorn.Server(options).run(sockets=[listener])
