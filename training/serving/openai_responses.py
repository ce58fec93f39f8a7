"""OpenAI-shaped responses: whole answers, chunks of a stream, and errors."""

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from training.serving.answer import Answer, Candidate, Piece
from training.serving.openai_requests import RequestError


def error_object(error: RequestError) -> dict[str, Any]:
    """OpenAI's error object."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return {"error": {"message": str(error), "type": kind, "param": error.field, "code": error.code}}


def usage(answers: list[Answer], per_prompt: int) -> dict[str, int]:
    """Tokens of the prompts and of all answers, the tokens that end them included.

    Args:
        per_prompt: answers of each prompt.
    """
    prompt = sum(len(answer.prompt) for answer in answers[::per_prompt])
    completion = sum(len(answer.ids) for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


class Shape(ABC):
    """The form of the responses of one endpoint, for one request.

    Args:
        model: the name of the model.
    """

    prefix: str  # of ids
    whole: str  # `object` of a response
    chunk: str  # `object` of a chunk of a stream

    def __init__(self, model: str):
        self.head = {"id": f"{self.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def response(self, choices: list["Choice"], counts: dict[str, int]) -> dict[str, Any]:
        """The response with whole answers."""
        entries = [self.entry(number, choice) for number, choice in enumerate(choices)]
        return self.head | {"object": self.whole, "choices": entries, "usage": counts}

    def usage_chunk(self, counts: dict[str, int]) -> dict[str, Any]:
        """The last chunk of a stream whose client asked for the number of tokens."""
        return self.head | {"object": self.chunk, "choices": [], "usage": counts}

    def first_chunks(self, count: int) -> Iterable[dict[str, Any]]:
        """Chunks before those of the answers."""
        return ()

    @abstractmethod
    def entry(self, number: int, choice: "Choice") -> dict[str, Any]:
        """One whole answer, an entry of `choices`."""

    @abstractmethod
    def chunks(self, number: int, piece: Piece) -> Iterable[dict[str, Any]]:
        """Chunks of a stream for one piece of an answer."""

    def _chunk(self, **choice: Any) -> dict[str, Any]:
        return self.head | {"object": self.chunk, "choices": [choice]}


@dataclass
class Choice:
    """One answer, as far as its pieces have come."""

    text: str = ""
    pieces: list[Piece] = field(default_factory=list)  # those with a token
    finish_reason: str | None = None

    def add(self, piece: Piece) -> None:
        """Append a piece."""
        self.text += piece.text
        self.finish_reason = piece.finish_reason
        if piece.token:
            self.pieces.append(piece)


class ChatShape(Shape):
    """Responses of /v1/chat/completions."""

    prefix, whole, chunk = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def first_chunks(self, count: int) -> Iterable[dict[str, Any]]:
        for number in range(count):
            delta = {"role": "assistant", "content": ""}
            yield self._chunk(index=number, delta=delta, logprobs=None, finish_reason=None)

    def entry(self, number: int, choice: Choice) -> dict[str, Any]:
        message = {"role": "assistant", "content": choice.text, "refusal": None}
        logprobs = _chat_logprobs(choice.pieces)
        return {"index": number, "message": message, "logprobs": logprobs, "finish_reason": choice.finish_reason}

    def chunks(self, number: int, piece: Piece) -> Iterable[dict[str, Any]]:
        if piece.text or piece.token:
            logprobs = _chat_logprobs([piece] if piece.token else [])
            yield self._chunk(index=number, delta={"content": piece.text}, logprobs=logprobs, finish_reason=None)
        if piece.finish_reason:
            yield self._chunk(index=number, delta={}, logprobs=None, finish_reason=piece.finish_reason)


class CompletionShape(Shape):
    """Responses of /v1/completions."""

    prefix, whole, chunk = "cmpl", "text_completion", "text_completion"

    def __init__(self, model: str):
        super().__init__(model)
        self.offsets: dict[int, int] = {}  # by answer: characters of its tokens so far

    def entry(self, number: int, choice: Choice) -> dict[str, Any]:
        logprobs = self._logprobs(number, choice.pieces)
        return {"index": number, "text": choice.text, "logprobs": logprobs, "finish_reason": choice.finish_reason}

    def chunks(self, number: int, piece: Piece) -> Iterable[dict[str, Any]]:
        logprobs = self._logprobs(number, [piece] if piece.token else [])
        yield self._chunk(index=number, text=piece.text, logprobs=logprobs, finish_reason=piece.finish_reason)

    def _logprobs(self, number: int, pieces: list[Piece]) -> dict[str, Any] | None:
        if not pieces:
            return None
        offsets = []
        for piece in pieces:
            offsets.append(self.offsets.get(number, 0))
            self.offsets[number] = offsets[-1] + len(piece.token.text)
        return {
            "tokens": [_name(piece.token) for piece in pieces],
            "token_logprobs": [_finite(piece.token.logprob) for piece in pieces],
            "top_logprobs": [{_name(each): _finite(each.logprob) for each in piece.likely} for piece in pieces],
            "text_offset": offsets,
        }


def _chat_logprobs(pieces: list[Piece]) -> dict[str, Any] | None:
    if not pieces:
        return None
    content = [_logprob(piece.token) | {"top_logprobs": [_logprob(each) for each in piece.likely]} for piece in pieces]
    return {"content": content, "refusal": None}


def _name(candidate: Candidate) -> str:
    """The text of a token; its bytes, as OpenAI writes them, if they are not whole characters."""
    whole = candidate.text.encode() == candidate.bytes
    return candidate.text if whole else "bytes:" + "".join(f"\\x{byte:02x}" for byte in candidate.bytes)


def _logprob(candidate: Candidate) -> dict[str, Any]:
    return {"token": candidate.text, "logprob": _finite(candidate.logprob), "bytes": list(candidate.bytes)}


def _finite(logprob: float) -> float:
    """A log probability as JSON, which has neither -inf nor NaN; OpenAI writes -9999 for impossible tokens."""
    return max(-9999.0, logprob)
