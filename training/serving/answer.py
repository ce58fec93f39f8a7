"""One answer in progress: its tokens, its text up to a stop string, and why it ended."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from training.chat.streaming import CharacterStreamer
from training.common.errors import one_line
from training.model_io.token_bytes import token_bytes
from training.serving.sampler import Sampler, choose
from training.serving.settings import AnswerSettings


@dataclass(frozen=True)
class Candidate:
    """A token with its probability, of the model itself: before temperature, penalties and the like.

    Attributes:
        id, text, bytes: the token; `text` has U+FFFD where the token alone is not whole characters.
        logprob: natural logarithm of its probability.
    """

    id: int
    text: str
    bytes: bytes
    logprob: float


@dataclass(frozen=True)
class Piece:
    """The part of an answer that one token adds.

    Attributes:
        text: may be empty: a character still lacks bytes, or a stop string may have begun.
        token: the chosen token, if `top_logprobs` is set and it does not end the answer.
        likely: the most likely tokens, as many as `top_logprobs`.
        finish_reason: of the last piece: `stop`, `length`, or `error`.
        error: one line, if the answer failed.
    """

    text: str = ""
    token: Candidate | None = None
    likely: tuple[Candidate, ...] = ()
    finish_reason: str | None = None
    error: str | None = None


class StoppableText:
    """Text of tokens, in whole characters, that ends before the first stop string.

    Args:
        after: tokens of the text before, if there is one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: list[str], after: list[int]):
        self.stop, self.held, self.stopped = [text for text in stop if text], "", False
        self.streamer = CharacterStreamer(tokenizer, self._receive, after)

    def add(self, token: int) -> str:
        """The text that can be shown after another token."""
        self.streamer.add([token])
        return self._release(whole=not self.stop)

    def rest(self) -> str:
        """The text that was held back, at the end of the answer."""
        self.streamer.flush()
        return self._release(whole=True)

    def _receive(self, piece: str) -> None:
        self.held += piece

    def _release(self, whole: bool) -> str:
        """Take the text that can be shown from what is held: up to a stop string, or to what may begin one."""
        found = [place for text in self.stop if (place := self.held.find(text)) >= 0]
        if found:
            self.stopped, end = True, min(found)
        elif whole:
            end = len(self.held)
        else:
            longest = max(map(len, self.stop)) - 1
            begins = range(max(0, len(self.held) - longest), len(self.held))
            end = next((place for place in begins if self._may_begin(place)), len(self.held))
        released, self.held = self.held[:end], "" if self.stopped else self.held[end:]
        return released

    def _may_begin(self, place: int) -> bool:
        return any(text.startswith(self.held[place:]) for text in self.stop)


class Answer:
    """An answer, from the prompt to its last token. The engine's thread adds tokens; `cancel` may come from any thread.

    Args:
        prompt: token ids, at least one.
        continues: whether the answer continues the prompt's text, rather than beginning one.
        context: most tokens of prompt and answer.
        deliver: receives the pieces, in the engine's thread; the last one has a `finish_reason`, unless the answer was
            cancelled.

    Attributes:
        ids: tokens of the answer so far, the one that ends it included.
        limit: most tokens of the answer, which may be 0.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prompt: list[int],
        wanted: AnswerSettings,
        continues: bool,
        context: int,
        deliver: Callable[[Piece], None],
    ):
        settings = wanted.applied(model.generation_config)
        limit = settings.max_new_tokens if wanted.max_new_tokens is None else wanted.max_new_tokens
        self.limit = min(limit, context - len(prompt))
        settings.max_new_tokens = max(1, self.limit)  # transformers rejects 0
        self.prompt, self.deliver, self.tokenizer = prompt, deliver, tokenizer
        self.ids: list[int] = []
        self.sampler = Sampler(model, prompt, settings, wanted)
        own = settings.stop_strings or []  # of the model: one text or a list
        stop = wanted.stop + ([own] if isinstance(own, str) else list(own))
        self.text = StoppableText(tokenizer, stop, prompt if continues else [])
        self.ends = end_tokens(settings)
        self.top_logprobs = wanted.top_logprobs
        self.cancelled = self.finished = False

    @property
    def in_progress(self) -> bool:
        """Whether more tokens are wanted."""
        return not (self.finished or self.cancelled)

    def cancel(self) -> None:
        """Let the engine drop the answer before its next step."""
        self.cancelled = True

    def take(self, token: int | Exception, logits: torch.Tensor) -> None:
        """Add the next token and deliver what it adds; a failure ends this answer.

        Args:
            token: or why there is none.
            logits: (vocab,), by which it was chosen.
        """
        try:
            if isinstance(token, Exception):
                raise token
            self.ids.append(token)
            self.sampler.ids.append(token)
            if token in self.ends:
                return self._finish("stop", self.text.rest())
            text = self.text.add(token)
            chosen, likely = self._candidates(logits, token)
            full = len(self.ids) >= self.limit
            if full and not self.text.stopped:
                text += self.text.rest()
            reason = "stop" if self.text.stopped else "length" if full else None
            if reason:
                self._finish(reason, text, chosen, likely)
            elif text or chosen:
                self._send(Piece(text, chosen, likely))
        except Exception as error:
            self.fail(error)

    def end_without_tokens(self) -> None:
        """End an answer of no tokens."""
        self._finish("length", "")

    def fail(self, error: Exception) -> None:
        """End the answer with an error."""
        self.finished = True
        said = f"{type(error).__name__}: {one_line(error)}"[:300]
        self._send(Piece(finish_reason="error", error=f"this answer failed ({said})"))

    def _finish(self, reason: str, text: str, token: Candidate | None = None, likely: tuple = ()) -> None:
        self.finished = True
        self._send(Piece(text, token, likely, finish_reason=reason))

    def _send(self, piece: Piece) -> None:
        try:
            self.deliver(piece)
        except Exception:  # whoever waited for this answer has failed
            self.cancelled = True

    def _candidates(self, logits: torch.Tensor, token: int) -> tuple[Candidate | None, tuple[Candidate, ...]]:
        """The chosen token and the most likely ones, with their probabilities, if they are wanted."""
        if self.top_logprobs is None:
            return None, ()
        logprobs = logits.log_softmax(dim=-1)
        top = logprobs.topk(min(self.top_logprobs, len(logprobs)))
        values = [(token, float(logprobs[token])), *zip(top.indices.tolist(), top.values.tolist(), strict=True)]
        chosen, *likely = (Candidate(each, *token_bytes(self.tokenizer, each), value) for each, value in values)
        return chosen, tuple(likely)


def continue_answers(answers: list[Answer], logits: torch.Tensor) -> None:
    """Choose the next token of each answer.

    Args:
        logits: (rows, vocab), a row for each answer.
    """
    logits = logits.float().cpu()
    tokens = choose([answer.sampler for answer in answers], logits)
    for answer, token, row in zip(answers, tokens, logits, strict=True):
        answer.take(token, row)


def end_tokens(settings: GenerationConfig) -> set[int]:
    """The tokens that end an answer."""
    ends = settings.eos_token_id
    return set(ends) if isinstance(ends, list) else set() if ends is None else {ends}
