"""A causal language model that continues a text: loaded from a folder or the Hub, streamed, stopped by a signal."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteriaList

from training.chat.sampling import Sampling
from training.chat.streaming import CharacterStreamer
from training.common.errors import UserError
from training.common.signals import StopSignals
from training.model_io.context_length import DEFAULT_CONTEXT, context_length
from training.model_io.conversations import encode_prompt
from training.model_io.language_model import open_language_model


@dataclass
class Reply:
    """The end of an answer, or of a completion.

    Attributes:
        notes: one line each, such as that the answer was truncated.
        interrupted: the signal that ended it, or None.
        tokens: its length.
        seconds: the time it took.
    """

    notes: list[str]
    interrupted: int | None
    tokens: int
    seconds: float


class TextModel:
    """A model that continues a text.

    Args:
        name: its folder, or its name on the Hub.

    Attributes:
        context: the number of tokens that it sees at a time.
    """

    def __init__(self, name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        self.name, self.model, self.tokenizer = name.rstrip("/"), model, tokenizer
        self.context = context_length(model.config) or DEFAULT_CONTEXT

    @classmethod
    def open(cls, name: str) -> "TextModel":
        """Load a model; see `open_language_model`.

        Raises:
            UserError: no model there, one of another kind, or one that does not load.
        """
        return cls(name, *open_language_model(name))

    def encode(self, text: str) -> list[int]:
        """Token ids of a text to complete; of an empty one, the token before a text. Special tokens in it are text.

        Raises:
            UserError: the text leaves no room in the context, or it is empty and the model has no such token.
        """
        ids = encode_prompt(self.tokenizer, text)
        if not ids:
            start = self.model.config.bos_token_id
            if start is None:
                raise UserError(f"'text' is empty, and {self.name} has no token that begins a text; write a first word")
            ids = [start]
        if len(ids) >= self.context:
            raise UserError(
                f"'text' takes {len(ids)} tokens, but {self.name} has a context of {self.context}; shorten it"
            )
        return ids

    def complete(self, ids: list[int], sampling: Sampling, write: Callable[[str], None]) -> Reply:
        """Continue a text until the model ends it, or `max_new_tokens`, the context or a signal does.

        Args:
            ids: see `encode`.
            write: receives the continuation piece by piece.
        """
        settings = sampling.applied(self.model.generation_config)
        room = self.context - len(ids)
        fills = settings.max_new_tokens > room
        settings.max_new_tokens = min(settings.max_new_tokens, room)
        streamer, started = CharacterStreamer(self.tokenizer, write, after=ids), time.perf_counter()
        with StopSignals() as stop:
            try:
                ended = self.generate(ids, settings, streamer, stop)
            except KeyboardInterrupt:  # a second Ctrl-C, during a slow token
                ended = True
        seconds = time.perf_counter() - started
        streamer.flush()
        note = f"truncated: the context of {self.name} is full ({self.context} tokens)"
        return Reply([note] if fills and not ended else [], stop.received, len(streamer.ids) - len(ids), seconds)

    def generate(
        self, ids: list[int], settings: GenerationConfig, streamer: CharacterStreamer, stop: StopSignals
    ) -> bool:
        """Generate after a prompt, at most `settings.max_new_tokens`.

        Returns:
            Whether the text ended, by itself or by a signal.
        """

        def stopped(input_ids: torch.Tensor, scores: object) -> torch.Tensor:  # (batch, seq) -> (batch,)
            return torch.full(input_ids.shape[:1], stop.received is not None, device=input_ids.device)

        ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
        input_ids = torch.tensor([ids], device=self.model.device)
        output = self.model.generate(
            input_ids,
            attention_mask=torch.ones_like(input_ids),
            generation_config=settings,
            streamer=streamer,
            stopping_criteria=StoppingCriteriaList([stopped]),
            tokenizer=self.tokenizer,  # for `stop_strings` in the model's settings
        )
        new = output.shape[1] - len(ids)
        return new < settings.max_new_tokens or int(output[0, -1]) in ends or stop.received is not None
