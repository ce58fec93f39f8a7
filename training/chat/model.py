"""A model to chat with, and its side of the conversation."""

import time
from collections.abc import Callable

from jinja2 import TemplateError
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from training.chat.conversation import Conversation, Message
from training.chat.sampling import Sampling
from training.chat.streaming import CharacterStreamer
from training.chat.text_model import Reply, TextModel
from training.common.errors import UserError
from training.common.signals import StopSignals
from training.model_io.conversations import encode_prompt


class ChatModel(TextModel):
    """A model that answers the last message of its conversation.

    Args:
        name: its folder, or its name on the Hub.

    Attributes:
        conversation: of this model alone; with `/compare` each model continues its own.
    """

    def __init__(self, name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        super().__init__(name, model, tokenizer)
        self.conversation = Conversation()

    @classmethod
    def open(cls, name: str) -> "ChatModel":
        """Load a model; see `open_language_model`.

        Raises:
            UserError: no model there, one of another kind, one without a chat template, or one that does not load.
        """
        model = super().open(name)
        if model.tokenizer.chat_template is None:
            raise UserError(
                f"{name}: its tokenizer has no chat template; use the output of scratch sft or later, or continue a "
                "text with scratch complete"
            )
        return model

    def check(self, message: str, system: str | None) -> None:
        """Reject a message that the chat template does not accept, or that alone exceeds the context.

        Raises:
            UserError: which of the two.
        """
        alone = Conversation(system)
        alone.ask(message)
        length = len(self._render(alone.seen()))
        if length >= self.context:
            raise UserError(
                f"the message takes {length} tokens, but {self.name} has a context of {self.context}; shorten it"
            )
        alone.messages = self.conversation.messages + alone.messages
        self._render(alone.seen())

    def answer(self, message: str, sampling: Sampling, write: Callable[[str], None]) -> Reply:
        """Answer a message that passed `check`; the conversation keeps both.

        Whenever the context is full, even in the middle of the answer, the oldest turn is dropped, until only this one
        is left. A signal ends the answer, and the conversation keeps what was written so far.

        Args:
            write: receives the answer piece by piece.
        """
        self.conversation.ask(message)
        streamer, forgotten = CharacterStreamer(self.tokenizer, write), self.conversation.forgotten
        started = time.perf_counter()
        with StopSignals() as stop:
            try:
                notes = self._generate(sampling.applied(self.model.generation_config), streamer, stop)
            except KeyboardInterrupt:  # a second Ctrl-C, during a slow token
                notes = []
        seconds = time.perf_counter() - started
        streamer.flush()
        if self.conversation.forgotten > forgotten:
            turns = self.conversation.forgotten // 2
            first = f"the first {turns} turns no longer fit" if turns > 1 else "the first turn no longer fits"
            notes.append(f"{self.name} has a context of {self.context} tokens; {first}")
        self.conversation.answer(streamer.text())
        return Reply(notes, stop.received, len(streamer.ids), seconds)

    def _generate(self, settings: GenerationConfig, streamer: CharacterStreamer, stop: StopSignals) -> list[str]:
        """Generate until the answer ends, dropping turns when the context is full; return notes."""
        longest = settings.max_new_tokens
        while True:
            prompt = self._render(self.conversation.seen()) + streamer.ids
            room = min(self.context - len(prompt), longest - len(streamer.ids))
            if room < 1:
                if self.conversation.forget():
                    continue
                return [f"truncated: this turn alone fills the context of {self.name} ({self.context} tokens)"]
            settings.max_new_tokens = room
            if self.generate(prompt, settings, streamer, stop):
                return []
            if len(streamer.ids) == longest:
                return [f"truncated after {longest} tokens (max_new_tokens)"]

    def _render(self, messages: list[Message]) -> list[int]:
        """Token ids of the messages and of the beginning of an answer, by the model's chat template."""
        try:
            return encode_prompt(self.tokenizer, messages)
        except TemplateError as error:
            raise UserError(f"{self.name}: its chat template rejects this conversation ({error})") from None
