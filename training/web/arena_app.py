"""The arena as a web application: battles, votes and the leaderboard."""

from typing import Any

from fastapi import Body, FastAPI, Request, Response
from fastapi.responses import JSONResponse

from training.web.battles import Battles, Rejected
from training.web.pages import add_pages, error, event_stream, visitor

Json = dict[str, Any]


def create_app(battles: Battles, leaderboard: Any) -> FastAPI:
    """The application.

    Args:
        leaderboard: called with the filters of a request; returns what the leaderboard page shows.
    """
    app = FastAPI(title="scratch arena", docs_url=None, redoc_url=None, openapi_url=None)
    add_pages(app, {"/": "arena.html", "/leaderboard": "leaderboard.html"})

    @app.exception_handler(Rejected)
    async def rejected(request: Request, reason: Rejected) -> JSONResponse:
        return error(reason.status, str(reason))

    @app.post("/api/battles")
    async def begin(request: Request, response: Response) -> Json:
        return battles.begin(visitor(request, response)).public()

    @app.get("/api/battles/{name}")
    async def see(name: str, request: Request, response: Response) -> Json:
        return battles.find(name, visitor(request, response)).public()

    @app.post("/api/battles/{name}/turns")
    async def ask(name: str, request: Request, response: Response, body: Json = Body()) -> Json:
        battle = battles.find(name, visitor(request, response))
        battles.ask(battle, body.get("prompt"))
        return battle.public()

    @app.get("/api/battles/{name}/events")
    async def events(name: str, request: Request, response: Response, shown: int = 0) -> Response:
        battle = battles.find(name, visitor(request, response))
        return event_stream(battles.steps(battle, max(0, shown)))

    @app.post("/api/battles/{name}/stop")
    async def stop(name: str, request: Request, response: Response) -> Json:
        battle = battles.find(name, visitor(request, response))
        battles.stop(battle)
        return battle.public()

    @app.post("/api/battles/{name}/vote")
    async def vote(name: str, request: Request, response: Response, body: Json = Body()) -> Json:
        battle = battles.find(name, visitor(request, response))
        battles.vote(battle, body.get("vote"))
        return battle.public()

    @app.get("/api/leaderboard")
    async def table(topic: str = "", length: str = "") -> Json:
        return leaderboard(topic, length)

    return app
