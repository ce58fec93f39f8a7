"""The address of a server: taken before a large model is loaded, and written as in an address line."""

import socket
import sys

from training.common.errors import UserError, one_line


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
