"""The generation engine: one thread in which all answers of a model are generated, several at a time.

    with Engine(model, tokenizer) as engine:
        async with engine.answer(Request(ids, AnswerSettings(seed=1))) as pieces:
            async for number, piece in pieces:
                print(piece.text, piece.finish_reason)

An answer joins the batch when there is room, between any two steps, and leaves it at its end. Leaving the `async with`
block cancels it within one step. An answer that fails costs only itself: if a step of the whole batch fails, every
answer is continued by itself first.

Equality: each answer has random numbers of its own, and its logits are those of `generate` up to rounding (batch.py).
In fp32 two tokens must be equally likely up to about 1e-5 for another one to be chosen; in bf16 up to about 1 %.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from training.common.errors import one_line
from training.model_io.context_length import DEFAULT_CONTEXT, context_length
from training.serving.alone import generate_alone
from training.serving.answer import Answer, Piece, continue_answers
from training.serving.batch import Batch, can_batch
from training.serving.pieces import Pieces
from training.serving.settings import AnswerSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """An answer that somebody wants.

    Attributes:
        prompt: token ids, at least one and fewer than the context.
        settings: of the answer.
        continues: whether the answer continues the prompt's text, as a completion does. It may then begin with a
            space that the tokenizer would remove at the beginning of a text.
    """

    prompt: list[int]
    settings: AnswerSettings = field(default_factory=AnswerSettings)
    continues: bool = False


class PromptTooLong(ValueError):
    """A prompt that leaves no room for an answer in the context."""


class EngineFull(Exception):
    """As many answers wait as may wait."""


class Engine:
    """Generates the answers of one model.

    Args:
        model: in evaluation mode, on its device.
        tokenizer: used by the engine's thread alone from now on.
        max_batch: most answers that are generated at a time. A model with another state than keys and values, such as
            Mamba, generates one at a time.
        max_queue: most answers that wait.

    Attributes:
        context: most tokens of a prompt and its answer.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_batch: int = 16, max_queue: int = 128
    ):
        self.model, self.tokenizer, self.max_queue = model, tokenizer, max_queue
        self.context = context_length(model.config) or DEFAULT_CONTEXT
        self.batches = can_batch(model)
        self.max_batch = max_batch if self.batches else 1
        self.batch = Batch(model)
        self._waiting: deque[Answer] = deque()
        self._changed = threading.Condition()  # guards the two attributes around it
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="generation", daemon=True)

    def __enter__(self) -> "Engine":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether answers are being generated."""
        return self._thread.is_alive() and not self._closed

    def answer(self, *requests: Request) -> Pieces:
        """The pieces of answers, as they come, for an `async with` block; see `submit` for errors."""
        return Pieces([lambda deliver, request=request: self.submit(request, deliver) for request in requests])

    def submit(self, request: Request, deliver: Callable[[Piece], None]) -> Answer:
        """Queue an answer.

        Args:
            deliver: see `Answer`; it must not block.

        Raises:
            PromptTooLong: no room is left for an answer.
            EngineFull: too many answers wait, or the engine is closed.
            ValueError: settings that transformers rejects.
        """
        length = len(request.prompt)
        if length >= self.context:
            raise PromptTooLong(f"the prompt has {length} tokens, but the model has a context of {self.context}")
        answer = Answer(
            self.model, self.tokenizer, request.prompt, request.settings, request.continues, self.context, deliver
        )
        if answer.limit < 1:
            answer.end_without_tokens()
            return answer
        with self._changed:
            if self._closed or not self._thread.is_alive():
                raise EngineFull("the engine has stopped")
            if len(self._waiting) >= self.max_queue:
                self._waiting = deque(each for each in self._waiting if each.in_progress)
            if len(self._waiting) >= self.max_queue:
                raise EngineFull(f"{self.max_queue} answers are waiting already; try again later")
            self._waiting.append(answer)
            self._changed.notify()
        return answer

    def _run(self) -> None:
        try:
            with torch.no_grad(), self.model._optimize_model_for_decode():
                while self._has_work():
                    self.batch.keep_in_progress()
                    if len(self.batch.answers) < self.max_batch and (answer := self._next()):
                        self._begin(answer)
                    if self.batch.answers:
                        self._step()
        finally:
            with self._changed:
                self._closed = True
                left, self._waiting = [*self.batch.take_all(), *self._waiting], deque()
            for answer in left:
                if answer.in_progress:
                    answer.fail(RuntimeError("the server stops"))

    def _has_work(self) -> bool:
        """Wait until there is something to do; False if the engine was closed."""
        with self._changed:
            while not (self._closed or self._waiting or self.batch.answers):
                self._changed.wait()
            return not self._closed

    def _next(self) -> Answer | None:
        with self._changed:
            while self._waiting:
                answer = self._waiting.popleft()
                if answer.in_progress:
                    return answer
        return None

    def _begin(self, answer: Answer) -> None:
        """Read a prompt and choose the next token; in a model without batches, generate the whole answer."""
        try:
            if self.batches:
                continue_answers([answer], self.batch.add(answer))
            else:
                generate_alone(self.model, answer, stopped=lambda: self._closed)
        except Exception as error:
            self._fail(answer, error)

    def _step(self) -> None:
        """Choose a token for every answer in the batch."""
        try:
            logits = self.batch.step().float().cpu()  # where errors of a GPU appear
        except Exception as error:
            logger.warning("a step of %d answers failed (%s); each continues alone", len(self.batch.answers), error)
            for answer in self.batch.take_all():
                if answer.in_progress:
                    self._begin(answer)
            return
        continue_answers(self.batch.answers, logits)

    def _fail(self, answer: Answer, error: Exception) -> None:
        logger.error("an answer failed: %s: %s", type(error).__name__, one_line(error))
        answer.fail(error)
