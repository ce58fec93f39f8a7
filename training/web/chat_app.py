"""The chat page as a web application: the endpoints of `scratch serve`, the page, and the conversations it keeps."""

from typing import Any

from fastapi import Body, FastAPI, Request
from fastapi.responses import JSONResponse, Response

from training.common.errors import UserError
from training.serving.app import ModelServer
from training.web.conversations import ConversationFile
from training.web.pages import add_pages, error

Json = dict[str, Any]


def create_app(server: ModelServer, conversations: ConversationFile, chats: bool) -> FastAPI:
    """The application.

    Args:
        chats: whether the page begins with a conversation. Otherwise it continues a text, as suits a base model.
    """
    app = server.app()
    add_pages(app, {"/": "chat.html"})
    settings = server.engine.model.generation_config
    shown = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    defaults = {name: value for name in shown if (value := getattr(settings, name)) is not None}
    about = {
        "model": server.name,
        "template": server.tokenizer.chat_template is not None,  # without one, the page can only continue texts
        "chats": chats,
        "settings": defaults | {"max_tokens": settings.max_new_tokens or server.engine.context},
    }

    @app.exception_handler(UserError)
    async def unusable(request: Request, reason: UserError) -> JSONResponse:
        return error(409, str(reason))

    @app.get("/api/page")
    async def page() -> Json:
        return about

    @app.get("/api/conversations")
    async def listed() -> Json:
        return {"conversations": conversations.titles()}

    @app.get("/api/conversations/{name}", response_model=None)
    async def one(name: str) -> Json | Response:
        return conversations.records.get(name) or error(404, "There is no such conversation any more.")

    @app.post("/api/conversations", response_model=None)
    async def keep(body: Json = Body()) -> Json | JSONResponse:
        name = body.get("id")
        if not isinstance(name, str) or not 0 < len(name) <= 100:
            return error(400, "A conversation needs an id of at most 100 characters.")
        try:
            conversations.keep(name, body.get("messages"), server.name)
        except ValueError as reason:
            return error(400, f"The conversation cannot be kept: {reason}.")
        except OSError as reason:
            return error(507, f"{conversations.path} cannot be written ({reason.strerror}).")
        return {"id": name}

    @app.post("/api/conversations/{name}/delete", response_model=None)
    async def delete(name: str) -> Json | JSONResponse:
        try:
            conversations.delete(name)
        except KeyError:
            return error(404, "There is no such conversation any more.")
        return {"id": name}

    return app
