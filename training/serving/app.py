"""The server with OpenAI's interface: models, chat and plain completions, answered by the engine."""

import asyncio
import contextlib
import copy
import json
import secrets
import threading
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from transformers import PreTrainedTokenizerBase

from training.common.errors import one_line
from training.model_io.conversations import encode_prompt
from training.serving import engine as generation
from training.serving.engine import Engine, EngineFull, PromptTooLong
from training.serving.openai_requests import ChatFields, CompletionFields, RequestError, read_body, read_fields
from training.serving.openai_responses import ChatShape, Choice, CompletionShape, Shape, error_object, usage
from training.serving.origins import foreign_host, foreign_origin
from training.serving.pieces import Pieces

LARGEST_BODY = 2**22  # bytes; far more than a context holds
BODY_SECONDS = 60.0  # for a client to send its body


class ModelServer:
    """A model under its name, and the endpoints that answer with it.

    Args:
        name: that requests use.
        engine: running.
        tokenizer: for requests; a copy is made, because the engine's thread uses its own.
        api_key: demanded of every request but /health, if not None.
        local: whether it listens on this computer alone. Without a key, requests from other origins are then rejected.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        tokenizer: PreTrainedTokenizerBase,
        api_key: str | None = None,
        local: bool = False,
    ):
        self.name, self.engine, self.api_key, self.local = name, engine, api_key, local
        self.tokenizer, self._encoding = copy.deepcopy(tokenizer), threading.Lock()
        self.vocab_size = engine.model.config.get_text_config().vocab_size
        self.description = {"id": name, "object": "model", "created": 0, "owned_by": "scratch"}

    def app(self) -> FastAPI:
        """The application."""
        checks = [Depends(_check_origin)] if self.local and self.api_key is None else []
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, dependencies=checks)
        app.add_api_route("/health", self.health, response_model=None)
        app.add_api_route("/v1/models", self.models, response_model=None)
        app.add_api_route("/v1/models/{name:path}", self.model, response_model=None)
        app.add_api_route("/v1/chat/completions", self.chat, methods=["POST"], response_model=None)
        app.add_api_route("/v1/completions", self.complete, methods=["POST"], response_model=None)
        app.add_exception_handler(RequestError, _error_response)
        for status in (404, 405):
            app.add_exception_handler(status, _http_error)
        app.add_exception_handler(Exception, _unexpected_error)
        return app

    async def health(self) -> Response:
        """200 while answers are generated, else 503."""
        alive = self.engine.is_alive
        return _json({"status": "ok" if alive else "the engine has stopped"}, 200 if alive else 503)

    async def models(self, request: Request) -> Response:
        """The list of the one model."""
        self._authorize(request)
        return _json({"object": "list", "data": [self.description]})

    async def model(self, request: Request, name: str) -> Response:
        """The model, by the name that requests use."""
        self._authorize(request)
        self._check_model(name)
        return _json(self.description)

    async def chat(self, request: Request) -> Response:
        """Answer a conversation."""
        fields: ChatFields = read_fields(ChatFields, await self._body(request))
        self._check_model(fields.model)
        if self.tokenizer.chat_template is None:
            raise RequestError(f"{self.name} has no chat template; use /v1/completions", "messages")
        self._check_number(1, fields.n, "messages")
        settings = fields.settings(self.vocab_size)
        conversation, variables = fields.conversation(), fields.template_variables()
        try:
            prompt = await self._encode(conversation, **variables)
        except Exception as error:  # a template is a program, which may fail in any way
            reason = one_line(error)[:500]
            raise RequestError(f"the chat template rejects this conversation ({reason})", "messages") from None
        return await self._answer(request, fields, ChatShape(self.name), [prompt], settings, "messages")

    async def complete(self, request: Request) -> Response:
        """Continue texts."""
        fields: CompletionFields = read_fields(CompletionFields, await self._body(request))
        self._check_model(fields.model)
        settings = fields.settings(self.vocab_size)
        given = fields.prompts(self.vocab_size)
        self._check_number(len(given), fields.n, "prompt")
        prompts = [await self._encode(prompt) if isinstance(prompt, str) else prompt for prompt in given]
        return await self._answer(request, fields, CompletionShape(self.name), prompts, settings, "prompt")

    async def _body(self, request: Request) -> dict[str, Any]:
        """The fields of a request that may be made."""
        self._authorize(request)
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for part in request.stream():
                    body += part
                    if len(body) > LARGEST_BODY:
                        raise RequestError(f"the body exceeds {LARGEST_BODY:,} bytes", status=413)
        except TimeoutError:
            raise RequestError("the body did not arrive in time", status=408) from None
        except ClientDisconnect:
            raise RequestError("the client has gone", status=499) from None
        return read_body(bytes(body))

    def _authorize(self, request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.api_key is not None and not secrets.compare_digest(given.encode(), self.api_key.encode()):
            raise RequestError("this server needs its --api_key as bearer token", status=401, code="invalid_api_key")

    def _check_model(self, name: str | None) -> None:
        if name not in (None, self.name):
            raise RequestError(f"no model '{name}'; this server has '{self.name}'", "model", 404, "model_not_found")

    def _check_number(self, prompts: int, per_prompt: int, field: str) -> None:
        """Reject a request for more answers than may wait, before any work for it."""
        if prompts * per_prompt > self.engine.max_queue:
            name = "n" if per_prompt > 1 else field
            reason = f"a request may have {self.engine.max_queue} answers, not {prompts * per_prompt}"
            raise RequestError(reason, name)

    async def _encode(self, prompt: str | list[dict[str, Any]], **template: Any) -> list[int]:
        """Token ids of a prompt; an empty one becomes the token before which every text begins."""

        def encode() -> list[int]:
            with self._encoding:
                return encode_prompt(self.tokenizer, prompt, **template)

        ids = await asyncio.to_thread(encode)
        beginnings = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        ids = ids or [token for token in beginnings if token is not None][:1]
        if not ids:
            raise RequestError("the prompt is empty", "prompt")
        return ids

    async def _answer(
        self,
        request: Request,
        fields: ChatFields | CompletionFields,
        shape: Shape,
        prompts: list[list[int]],
        settings: generation.AnswerSettings,
        field: str,
    ) -> Response:
        """Generate answers to all prompts; a response with all of them, or a stream.

        Args:
            field: of the body, that holds the prompts.
        """
        continues = isinstance(fields, CompletionFields)
        wanted = [
            generation.Request(prompt, settings.numbered(number), continues)
            for prompt in prompts
            for number in range(fields.n)
        ]
        pieces = self.engine.answer(*wanted)
        try:
            await pieces.__aenter__()
        except PromptTooLong as error:
            raise RequestError(f"{error}; shorten it", field, code="context_length_exceeded") from None
        except EngineFull as error:
            raise RequestError(str(error), status=503, code="overloaded") from None
        if fields.stream:
            counted = bool(fields.stream_options.get("include_usage"))
            return AnswerStream(pieces, _events(pieces, shape, fields.n, counted))
        try:
            return await _unless_disconnected(request, _whole_answer(pieces, shape, fields.n))
        finally:
            pieces.cancel()


class AnswerStream(StreamingResponse):
    """Server-sent events; whatever ends them, such as the client's disconnect, cancels the answers."""

    def __init__(self, pieces: Pieces, events: AsyncIterator[str]):
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self.pieces = pieces

    async def __call__(self, *arguments: Any) -> None:
        try:
            await super().__call__(*arguments)
        finally:
            self.pieces.cancel()


async def _events(pieces: Pieces, shape: Shape, per_prompt: int, counted: bool) -> AsyncIterator[str]:
    """The events of a stream of answers."""
    for chunk in shape.first_chunks(len(pieces.answers)):
        yield _event(chunk)
    async for number, piece in pieces:
        if piece.error:
            yield _event(error_object(RequestError(piece.error, status=500)))
            break
        for chunk in shape.chunks(number, piece):
            yield _event(chunk)
    else:
        if counted:
            yield _event(shape.usage_chunk(usage(pieces.answers, per_prompt)))
    yield "data: [DONE]\n\n"


async def _whole_answer(pieces: Pieces, shape: Shape, per_prompt: int) -> Response:
    """The response with whole answers."""
    choices = [Choice() for _ in pieces.answers]
    async for number, piece in pieces:
        if piece.error:
            raise RequestError(piece.error, status=500)
        choices[number].add(piece)
    return _json(shape.response(choices, usage(pieces.answers, per_prompt)))


async def _unless_disconnected(request: Request, work: Awaitable[Response]) -> Response:
    """The response of `work`, which is given up when the client has gone."""

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = asyncio.ensure_future(work), asyncio.ensure_future(disconnected())
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].result() if tasks[0] in done else Response(status_code=499)
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, RequestError):
                await task


async def _check_origin(request: Request) -> None:
    """Reject a request of a page that is not of this computer."""
    if reason := foreign_host(request.headers) or foreign_origin(request.headers):
        raise RequestError(reason, status=403)


def _json(content: dict[str, Any], status: int = 200) -> Response:
    # In ASCII: a folder's name, which is the model's, need not be text.
    return Response(json.dumps(content), status, media_type="application/json")


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"


async def _error_response(_: Request, error: RequestError) -> Response:
    return _json(error_object(error), error.status)


async def _http_error(_: Request, error: HTTPException) -> Response:
    return _json(error_object(RequestError(str(error.detail), status=error.status_code)), error.status_code)


async def _unexpected_error(_: Request, error: Exception) -> Response:
    return _json(error_object(RequestError(f"the server failed ({type(error).__name__})", status=500)), 500)


