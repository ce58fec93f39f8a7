"""The arena as a web application: battles, votes and the leaderboard."""

from typing import Any

from fastapi import Body, FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from training.arena.leaderboard import Leaderboard
from training.common.errors import UserError
from training.web.battles import Battles, Rejected
from training.web.pages import add_pages, error, event_stream, visitor
from training.web.polls import FILTERS, Polls, read_filter

Json = dict[str, Any]


def create_app(battles: Battles, polls: Polls) -> FastAPI:
    """The application."""
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
        if not battle.turns:
            raise Rejected(409, "This battle has not begun.")
        return event_stream(battles.steps(battle, max(0, shown)))

    @app.post("/api/battles/{name}/stop")
    async def stop(name: str, request: Request, response: Response) -> Json:
        battle = battles.find(name, visitor(request, response))
        battles.stop(battle)
        return battle.public()

    @app.post("/api/battles/{name}/vote")
    async def vote(name: str, request: Request, response: Response, body: Json = Body()) -> Json:
        battle = battles.find(name, visitor(request, response))
        await battles.vote(battle, body.get("vote"))
        return battle.public()

    @app.get("/api/filters")
    async def filters() -> Json:
        return FILTERS

    def board(request: Request) -> tuple[Leaderboard, list[str]]:
        try:
            chosen, style = read_filter(dict(request.query_params))
        except ValueError as reason:
            raise Rejected(400, str(reason)) from None
        try:
            return polls.board(chosen, style)
        except UserError as reason:
            raise Rejected(404, str(reason)) from None

    @app.get("/api/leaderboard")
    def as_json(request: Request) -> Json:  # in a thread: it reads the whole store
        found, remarks = board(request)
        return found.to_json() | {"remarks": remarks}

    @app.get("/api/leaderboard.csv")
    def as_csv(request: Request) -> PlainTextResponse:
        return PlainTextResponse(board(request)[0].to_csv(), media_type="text/csv")

    return app
