"""Bodies of OpenAI-shaped requests: every field read and checked, or rejected by name."""

import json
import math
from dataclasses import dataclass, fields
from typing import Any

from training.common.errors import UserError
from training.model_io.messages import check_messages, check_tools
from training.serving.settings import AnswerSettings
from training.stages.recipe import build, option

# Fields that change nothing about an answer.
IGNORED = {
    *("user", "metadata", "store", "service_tier", "parallel_tool_calls", "safety_identifier"),
    *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"),
}
# Values of fields, not supported otherwise, that ask for what every answer is.
WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "tool_choice": ("auto",),
    "echo": (False,),
    "suffix": ("",),
    "best_of": (1,),
    "functions": ([],),
}
MOST_LOGPROBS = 20
MOST_STOPS = 16  # texts to look for after every token


class RequestError(Exception):
    """A request that is not answered, in the form of OpenAI's error object.

    Args:
        field: of the body, that has to be changed.
        status: of the HTTP answer.
        code: a word for programs, such as `model_not_found`.
    """

    def __init__(self, message: str, field: str | None = None, status: int = 400, code: str | None = None):
        super().__init__(message)
        self.field, self.status, self.code = field, status, code


@dataclass(kw_only=True)
class AnswerFields:
    """Fields that both kinds of requests have. The names are OpenAI's; `top_k` and some others are as in vLLM."""

    model: str | None = option(None, "name of the model, as in /v1/models")
    stream: bool = option(False, "send the answer piece by piece")
    stream_options: dict[str, Any] = option(dict, "include_usage: whether a last chunk counts the tokens")
    max_tokens: int | None = option(None, "maximum length of the answer in tokens", at_least=0)
    n: int = option(1, "number of answers", at_least=1, at_most=128)
    stop: str | list[str] = option(list, "text before which the answer ends, or several")
    seed: int | None = option(None, "random seed", at_least=0, below=2**63)
    temperature: float | None = option(None, "randomness of sampling", at_least=0)
    top_p: float | None = option(None, "total probability of the tokens to sample from", at_least=0, at_most=1)
    top_k: int | None = option(None, "number of tokens to sample from; 0 or -1 for all", at_least=-1)
    min_p: float | None = option(None, "least probability, as a fraction of the highest", at_least=0, at_most=1)
    repetition_penalty: float | None = option(None, "factor against repetition", above=0, at_most=100)
    frequency_penalty: float = option(0.0, "for each time that the answer has the token", at_least=-2, at_most=2)
    presence_penalty: float = option(0.0, "if the answer has the token", at_least=-2, at_most=2)
    logit_bias: dict[str, float] = option(dict, "token id: number to add to its logit")

    def settings(self, vocab_size: int) -> AnswerSettings:
        """Settings of the answer.

        Raises:
            RequestError: `stop` or `logit_bias` holds what it must not.
        """
        if self.stream_options and not self.stream:
            raise RequestError("'stream_options' needs 'stream': true", "stream_options")
        if isinstance(self.stop, list) and len(self.stop) > MOST_STOPS:
            raise RequestError(f"'stop' takes at most {MOST_STOPS} texts, not {len(self.stop)}", "stop")
        return AnswerSettings(
            max_new_tokens=self.max_tokens,
            stop=[text for text in ([self.stop] if isinstance(self.stop, str) else self.stop) if text],
            seed=self.seed,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=None if self.top_k is None else max(0, self.top_k),
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            logit_bias=token_biases(self.logit_bias, vocab_size),
            top_logprobs=self.reported_logprobs(),
        )

    def reported_logprobs(self) -> int | None:
        """The number of most likely tokens to report for each token, or None."""
        raise NotImplementedError


@dataclass(kw_only=True)
class ChatFields(AnswerFields):
    """Fields of /v1/chat/completions."""

    messages: list[Any] = option(list, "the conversation")
    max_completion_tokens: int | None = option(None, "as max_tokens", at_least=0)
    logprobs: bool = option(False, "report the probability of each token")
    top_logprobs: int | None = option(None, "number of likely tokens to report", at_least=0, at_most=MOST_LOGPROBS)
    tools: list[Any] = option(list, "functions that the chat template shows to the model")
    chat_template_kwargs: dict[str, Any] = option(dict, "variables of the chat template, such as enable_thinking")

    def settings(self, vocab_size: int) -> AnswerSettings:
        if self.max_completion_tokens is not None:
            self.max_tokens = self.max_completion_tokens
        return super().settings(vocab_size)

    def reported_logprobs(self) -> int | None:
        if self.top_logprobs is not None and not self.logprobs:
            raise RequestError("'top_logprobs' needs 'logprobs': true", "top_logprobs")
        return (self.top_logprobs or 0) if self.logprobs else None

    def conversation(self) -> list[dict[str, Any]]:
        """The messages, checked."""
        return _checked("messages", check_messages, self.messages, "messages")

    def template_variables(self) -> dict[str, Any]:
        """Tools and variables for the chat template."""
        if reserved := self.chat_template_kwargs.keys() & {"chat_template", "starts", "add_generation_prompt", "tools"}:
            raise RequestError(f"'chat_template_kwargs' cannot set '{min(reserved)}'", "chat_template_kwargs")
        _checked("tools", check_tools, self.tools)
        return self.chat_template_kwargs | {"tools": self.tools or None}


@dataclass(kw_only=True)
class CompletionFields(AnswerFields):
    """Fields of /v1/completions."""

    prompt: Any = option("", "text, token ids, or a list of either")
    max_tokens: int | None = option(16, "maximum length of the answer in tokens", at_least=0)
    logprobs: int | None = option(None, "number of likely tokens to report", at_least=0, at_most=MOST_LOGPROBS)

    def reported_logprobs(self) -> int | None:
        return self.logprobs

    def prompts(self, vocab_size: int) -> list[str | list[int]]:
        """The texts or token ids to continue.

        Raises:
            RequestError: something else, or a token that the model does not have.
        """
        prompts = self.prompt if isinstance(self.prompt, list) and not _are_ids(self.prompt) else [self.prompt]
        if not prompts or not all(isinstance(prompt, str) or _are_ids(prompt) for prompt in prompts):
            raise RequestError("'prompt' takes text, token ids, or a list of either", "prompt")
        for token in (token for prompt in prompts if not isinstance(prompt, str) for token in prompt):
            if not 0 <= token < vocab_size:
                raise RequestError(f"'prompt' has the token {token}, but the model has {vocab_size} tokens", "prompt")
        return prompts


def read_body(body: bytes) -> dict[str, Any]:
    """The JSON object of a request, in which every text can be encoded.

    Raises:
        RequestError: it is not an object, or a field holds half of a surrogate pair.
    """

    def reject(name: str) -> None:
        raise ValueError(f"{name} is not a number")

    try:
        values = json.loads(body, parse_constant=reject)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is not valid JSON ({error})") from None
    if not isinstance(values, dict):
        raise RequestError("the body is not a JSON object")
    for name, value in values.items():
        field = ascii(name)[1:-1]
        try:
            json.dumps([name, value], ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise RequestError(f"'{field}' has half of a surrogate pair, which is not text", field) from None
        except RecursionError:
            raise RequestError(f"'{field}' is nested too deeply", field) from None
    return values


def read_fields(kind: type[AnswerFields], values: dict[str, Any]) -> Any:
    """The fields of a request; null is as good as absent.

    Raises:
        RequestError: a field that is not supported, or a wrong value.
    """
    given = {
        name: value
        for name, value in values.items()
        if value is not None and name not in IGNORED and value not in WITHOUT_EFFECT.get(name, ())
    }
    if given.get("tool_choice") == "none":
        given = {name: value for name, value in given.items() if name not in ("tool_choice", "tools")}
    known = {field.name for field in fields(kind)}
    for name, value in given.items():
        if name not in known:
            raise RequestError(f"'{name}' is not supported here; leave it out", name)
        _checked(name, build, kind, {name: value}, "the request")
    return build(kind, given, "the request")


def token_biases(biases: dict[str, float], vocab_size: int) -> dict[int, float]:
    """`logit_bias` by token.

    Raises:
        RequestError: not a token of the model, or a bias beyond 100.
    """
    for token, bias in biases.items():
        if not (token.isdecimal() and len(token) < 10 and int(token) < vocab_size):
            key = f"'{token[:20]}'"
            raise RequestError(f"'logit_bias' has the key {key}, which is not a token of the model", "logit_bias")
        if not math.isfinite(bias) or abs(bias) > 100:
            raise RequestError(f"'logit_bias' must be -100 to 100, not {bias}", "logit_bias")
    return {int(token): bias for token, bias in biases.items()}


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(token) is int for token in value)


def _checked(field: str, check: Any, *arguments: Any) -> Any:
    """The result of a check, whose error becomes that of the field."""
    try:
        return check(*arguments)
    except (UserError, ValueError) as error:
        raise RequestError(str(error), field) from None
