"""Shared parts of the web pages: files, streams of events, errors, and a cookie that tells visitors apart."""

import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles

STATIC = Path(__file__).parent / "static"
VISITOR = "visitor"  # name of the cookie


def add_pages(app: FastAPI, pages: dict[str, str]) -> None:
    """Serve the static files, and at each path of `pages` the file of that name."""
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    for path, name in pages.items():
        app.add_api_route(path, lambda name=name: FileResponse(STATIC / name), include_in_schema=False)


def visitor(request: Request, response: Response) -> str:
    """The random identity of the browser, which is set as a cookie at its first request."""
    known = request.cookies.get(VISITOR, "")
    if len(known) == 43:
        return known
    new = secrets.token_urlsafe(32)
    response.set_cookie(VISITOR, new, max_age=365 * 86400, httponly=True, samesite="strict")
    return new


def error(status: int, reason: str) -> JSONResponse:
    """An error object of the shape that OpenAI's clients read."""
    return JSONResponse({"error": {"message": reason, "type": "invalid_request_error"}}, status)


def event_stream(events: AsyncIterator[dict[str, Any]]) -> StreamingResponse:
    """Server-sent events with a JSON object each; nothing between the server and the page may collect them."""

    async def lines() -> AsyncIterator[str]:
        async for event in events:
            yield f"data: {json.dumps(event, ensure_ascii=False)}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
