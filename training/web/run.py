"""Run a web application until Ctrl-C, and show its page in the browser of this computer."""

import os
import secrets
import socket
import sys
import webbrowser

import uvicorn

from training.serving.listening import address_of
from training.serving.origins import is_local
from training.web.guards import TOKEN, Guard

SHUTDOWN_SECONDS = 1  # for answers in progress to end


def run_pages(app: object, listener: socket.socket, host: str, settings: str = "") -> None:
    """Serve an application at an address that is taken already.

    An address that other computers reach gets a random token, without which no request is served.

    Args:
        settings: what the page reads from the end of its address line.
    """
    token = None if is_local(host) else secrets.token_urlsafe(16)
    listener.listen()
    address = f"http://{address_of(listener)}/" + (f"?{TOKEN}={token}" if token else "")
    address += f"#{settings}" if settings else ""
    if token:
        print("other computers reach this address; only who has the token in it is served", file=sys.stderr)
    print(f"open {address} in a browser; Ctrl-C ends it", file=sys.stderr, flush=True)
    if sys.stderr.isatty() and has_display():
        webbrowser.open(address)
    options = uvicorn.Config(
        Guard(app, token), log_level="warning", lifespan="off", timeout_graceful_shutdown=SHUTDOWN_SECONDS
    )
    uvicorn.Server(options).run(sockets=[listener])


def has_display() -> bool:
    """Whether a browser window can open; without one, `webbrowser` may start a text browser in this terminal."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
