"""Origins of requests: checks by which a server on this computer rejects the pages of others."""

import ipaddress
from collections.abc import Mapping


def is_local(host: str) -> bool:
    """Whether an address to listen on, or a host name of a request, is this computer alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


def foreign_host(headers: Mapping[str, str]) -> str | None:
    """The reason to reject a request by its host name: a page can make its own name resolve to this computer.

    Args:
        headers: by names in lower case.
    """
    host = headers.get("host", "")
    if is_local(host if host.endswith("]") else host.rsplit(":", 1)[0]):
        return None
    return f"Requests to {host or 'no host'} are not accepted; use localhost."


def foreign_origin(headers: Mapping[str, str]) -> str | None:
    """The reason to reject a request that a browser sends for a page of another origin. Programs name no origin.

    Args:
        headers: by names in lower case.
    """
    origin = headers.get("origin")
    if origin is None or origin.partition("://")[2] == headers.get("host", ""):
        return None
    return f"Requests from pages of {origin} are not accepted."
