"""Guards of the web pages and the API: who may send requests, how large they are, and what a page may load.

Everything listens on this computer unless `--host` says otherwise. Then a token is required, because whoever reaches
the port could use the models and read conversations. The checks here hold for every request; what one person may do
to another's conversation or battle is checked where those are kept.
"""

import hmac
from typing import Any
from urllib.parse import parse_qs

from fastapi.responses import RedirectResponse
from starlette.requests import cookie_parser

from training.serving.origins import foreign_host, foreign_origin
from training.web.pages import error

Scope, Receive, Send = dict[str, Any], Any, Any

TOKEN = "token"
LARGEST_BODY = 1 << 20
# Nothing is loaded from another host, and no script or style within a page runs: an answer cannot become either.
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
POLICY += "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Guard:
    """ASGI middleware that rejects requests from elsewhere before the application sees them.

    - A host name that is not of this computer is rejected (403) unless a token is set: a page on the Internet can
      make its own name resolve to 127.0.0.1 and would then be read as a page of ours (DNS rebinding).
    - A request that changes something is rejected (403) if the browser says that it comes from a page of another
      origin, or if it is not JSON, as a form of another page would send it.
    - With a token, a request without it is rejected (401). `?token=` sets it as a cookie, `Authorization: Bearer` is
      for programs.
    - A body above `LARGEST_BODY` bytes is rejected (413), also if its length is not given in advance.
    """

    def __init__(self, app: Any, token: str | None = None):
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        given = parse_qs(scope["query_string"].decode("latin-1")).get(TOKEN, [""])[0]
        if self.token and scope["method"] == "GET" and _equal(given, self.token):
            answer = RedirectResponse(scope["path"], 303)
            answer.set_cookie(TOKEN, self.token, httponly=True, samesite="strict")
        elif refusal := self.refusal(scope, headers):
            answer = error(*refusal)
        else:
            answer = self.app
        await answer(scope, _limited(receive), _with_headers(send))

    def refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Status and reason if the request is rejected."""
        if self.token:
            cookie = cookie_parser(headers.get("cookie", "")).get(TOKEN, "")
            bearer = headers.get("authorization", "").removeprefix("Bearer ")
            if not any(_equal(given, self.token) for given in (cookie, bearer)):
                return 401, "A token is needed: open the address that was printed when the server started."
        elif reason := foreign_host(headers):
            return 403, reason
        if scope["method"] not in ("GET", "HEAD"):
            if reason := foreign_origin(headers):
                return 403, reason
            if not headers.get("content-type", "").startswith("application/json"):
                return 415, "The body must be JSON, with Content-Type: application/json."
            if int(headers.get("content-length", "0") or 0) > LARGEST_BODY:
                return 413, f"The body is longer than {LARGEST_BODY:,} bytes."
        return None


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def _limited(receive: Receive) -> Receive:
    """The body of a request up to `LARGEST_BODY` bytes; a longer one looks like a client that went away."""
    received = 0

    async def limited() -> dict[str, Any]:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        return message if received <= LARGEST_BODY else {"type": "http.disconnect"}

    return limited


def _with_headers(send: Send) -> Send:
    async def sending(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            added = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            message = message | {"headers": [*message.get("headers", []), *added]}
        await send(message)

    return sending
