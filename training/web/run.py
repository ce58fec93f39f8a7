"""Run a web application until Ctrl-C, and show its page in the browser of this computer."""

import os
import secrets
import socket
import sys
import webbrowser

from training.serving.listening import address_of, serve
from training.serving.origins import is_local
from training.web.guards import TOKEN, Guard


def run_pages(app: object, listener: socket.socket, host: str, settings: str = "") -> None:
    """Serve an application at an address that is taken already.

    An address that other computers reach gets a random token, without which no request is served.

    Args:
        settings: what the page reads from the end of its address line.
    """
    token = None if is_local(host) else secrets.token_urlsafe(16)
    address = f"http://{reachable(listener)}/" + (f"?{TOKEN}={token}" if token else "")
    address += f"#{settings}" if settings else ""
    if token:
        print("other computers reach this address; only who has the token in it is served", file=sys.stderr)
    print(f"open {address} in a browser; Ctrl-C ends it", file=sys.stderr, flush=True)
    if sys.stderr.isatty() and has_display():
        webbrowser.open(address)
    serve(Guard(app, token), listener)


def reachable(listener: socket.socket) -> str:
    """Host and port as a browser takes them; of a socket that listens on all addresses, this computer's own."""
    address = address_of(listener)
    host, _, port = address.rpartition(":")
    if host.strip("[]") not in ("0.0.0.0", "::"):
        return address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # nothing is sent
        try:
            probe.connect(("192.0.2.1", 9))
            return f"{probe.getsockname()[0]}:{port}"
        except OSError:
            return f"{socket.gethostname()}:{port}"


def has_display() -> bool:
    """Whether a browser window can open; without one, `webbrowser` may start a text browser in this terminal."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
