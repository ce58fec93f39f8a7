"""Contestants behind OpenAI-shaped endpoints: `scratch serve`, llama.cpp, Ollama, vLLM or a company's API."""

import functools
import json
import os
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2

from training.common.errors import UserError, one_line

KEY = "ARENA_API_KEY"  # environment variable with the key of all endpoints
SILENCE = 60.0  # seconds without a piece after which a contestant counts as hanging
LONGEST_LINE = 1 << 20  # bytes of one event
LONGEST_REFUSAL = 10_000  # bytes of an error response that is read


class ContestantError(Exception):
    """A contestant failed. The reason may name it, so it goes to the terminal, never to a page.

    Args:
        reason: the same for all requests that fail alike.
        detail: the words of the endpoint, which may differ for each request.
    """

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason = reason


def is_address(text: str) -> bool:
    """Whether a text is the address of an endpoint, rather than a folder or a name on the Hub."""
    return text.startswith(("http://", "https://"))


@dataclass(frozen=True)
class Endpoint:
    """A model behind a URL that ends in /v1.

    Attributes:
        name: as the leaderboard shows it.
        url: without a slash at its end.
        model: the name that the endpoint knows it by.
    """

    name: str
    url: str
    model: str

    @property
    def fingerprint(self) -> str:
        """URL and model: the weights behind them cannot be seen."""
        return f"{self.url}#{self.model}"

    @classmethod
    def open(cls, text: str) -> "Endpoint":
        """Find the model of `URL` or `URL#MODEL`.

        Raises:
            UserError: the endpoint does not answer, or has not exactly one model and none is named.
        """
        url, _, model = text.partition("#")
        url = url.rstrip("/")
        if not model:
            try:
                response = httpx2.get(f"{url}/models", headers=_headers(), timeout=10)
                response.raise_for_status()
                models = [str(entry["id"]) for entry in response.json()["data"]]
            except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, KeyError, TypeError) as error:
                reason = one_line(error)
                raise UserError(f"{url}: no models listed there ({reason}); is it a URL that ends in /v1?") from None
            if len(models) != 1:
                raise UserError(f"{url}: has {len(models)} models; name one, as in {url}#{(models or ['MODEL'])[0]}")
            model = models[0]
        return cls(model, url, model)

    async def answer(self, messages: list[dict[str, str]], settings: dict[str, Any]) -> AsyncIterator[str]:
        """The pieces of an answer.

        Args:
            settings: fields of the request, such as `temperature`, `max_tokens` and `seed`.

        Raises:
            ContestantError: no connection, an error, silence, or events that are not of this interface.
        """
        body = {"model": self.model, "messages": messages, "stream": True, **settings}
        timeout = httpx2.Timeout(SILENCE, connect=10)
        try:
            async with httpx2.AsyncClient(verify=_certificates(), timeout=timeout, follow_redirects=False) as client:
                async with client.stream(
                    "POST", f"{self.url}/chat/completions", json=body, headers=_headers()
                ) as response:
                    if response.status_code != 200:
                        detail = await _refusal(response.aiter_bytes())
                        raise ContestantError(f"{self.name}: answered {response.status_code}", detail)
                    async for event in _events(response.aiter_bytes()):
                        piece = _piece(event)
                        if piece:
                            yield piece
        except (
            *(httpx2.HTTPError, httpx2.InvalidURL),
            *(ValueError, LookupError, TypeError, AttributeError),
        ) as error:
            raise ContestantError(f"{self.name}: {one_line(error) or type(error).__name__}") from None


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Read once: it takes longer than a short answer."""
    return httpx2.create_ssl_context()


def _headers() -> dict[str, str]:
    key = os.environ.get(KEY)
    return {"Authorization": f"Bearer {key}"} if key else {}


async def _refusal(pieces: AsyncIterator[bytes]) -> str:
    """The message of an error response, short and on one line; empty if it has none."""
    body = b""
    async for piece in pieces:
        body += piece
        if len(body) > LONGEST_REFUSAL:
            return ""
    try:
        message = one_line(json.loads(body)["error"]["message"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return "".join(letter for letter in message if letter.isprintable())[:200]


async def _events(pieces: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of a stream of server-sent events, until `[DONE]` or its end.

    Raises:
        ValueError: a line that is too long or not JSON.
    """
    waiting = b""
    async for piece in pieces:
        *lines, waiting = (waiting + piece).split(b"\n")
        if len(waiting) > LONGEST_LINE:
            raise ValueError("an event without end")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            event = json.loads(data)
            if not isinstance(event, dict) or "error" in event:
                raise ValueError(f"an event that is not an answer: {data[:100]!r}")
            yield event


def _piece(event: dict[str, Any]) -> str:
    """The text of an event.

    Raises:
        TypeError: it has another shape.
    """
    choices = event.get("choices") or []
    content = (choices[0].get("delta") or {}).get("content") if choices else None
    if content is not None and not isinstance(content, str):
        raise TypeError("the content of an event is not text")
    return content or ""
