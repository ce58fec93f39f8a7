"""A model that answers: loaded from a folder or the Hub, with its side of the conversation."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jinja2 import TemplateError
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
)

from training.chat.conversation import Conversation, Message
from training.chat.sampling import Sampling
from training.chat.streaming import CharacterStreamer
from training.common.device import pick_device
from training.common.errors import UserError
from training.common.hub_names import is_hub_name
from training.common.signals import StopSignals
from training.common.stage import LANGUAGE_MODELS, check_stage
from training.machine.threads import follow_load_in
from training.model_io.model_folder import no_progress_bars
from training.model_io.tokenizers import open_model_tokenizer
from training.model_io.weights import check_weights

LONGEST = 2048  # tokens of context, where the model names none


@dataclass
class Answer:
    """What is to be told about an answer, each a line, and the signal that ended it, if one did."""

    notes: list[str]
    interrupted: int | None


class Speaker:
    """Answers the last message of a conversation.

    Args:
        name: of its folder, or on the Hub.

    Attributes:
        conversation: its own, for another model says other things.
        context: how many tokens it sees at once.
    """

    def __init__(self, name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        self.name, self.model, self.tokenizer = name.rstrip("/"), model, tokenizer
        self.conversation = Conversation()
        self.context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or LONGEST

    @classmethod
    def open(cls, name: str) -> "Speaker":
        """Load a model. Code that comes with it is not run: ours are known, and so are those of transformers.

        Raises:
            UserError: no model there, one of another kind, one without a chat template, or one that cannot be loaded.
        """
        if not is_hub_name(name):
            if not (Path(name) / "config.json").is_file():
                raise UserError(f"{name}: no model there")
            check_stage(name, *LANGUAGE_MODELS, key="model")
        tokenizer = open_model_tokenizer(name, "model")
        if tokenizer.chat_template is None:
            raise UserError(f"{name}: its tokenizer has no chat template; it is not a chat model")
        check_weights(name, "model")
        with no_progress_bars():
            model = AutoModelForCausalLM.from_pretrained(name).to(pick_device()).eval()
        follow_load_in(model)
        return cls(name, model, tokenizer)

    def check(self, message: str, system: str | None) -> None:
        """Refuse a message that cannot be asked: the template does not take it, or it would not fit even alone.

        Raises:
            UserError: which of the two.
        """
        asked = Conversation(system)
        asked.ask(message)
        length = len(self._render(asked.seen()))
        if length >= self.context:
            raise UserError(
                f"{self.name} sees {self.context} tokens, and this message takes {length} with all that goes with it; "
                "shorten it"
            )
        asked.messages = self.conversation.messages + asked.messages
        self._render(asked.seen())

    def answer(self, message: str, sampling: Sampling, write: Callable[[str], None]) -> Answer:
        """Answer a message that passed `check`, and keep both in the conversation.

        Where the context is full, in the middle of the answer too, the oldest turn is forgotten, until none is left but
        this one. A signal ends the answer, and what was said by then is kept.

        Args:
            write: takes the answer piece by piece.
        """
        self.conversation.ask(message)
        streamer, forgotten = CharacterStreamer(self.tokenizer, write), self.conversation.forgotten
        with StopSignals() as stop:
            try:
                notes = self._generate(sampling.applied(self.model.generation_config), streamer, stop)
            except KeyboardInterrupt:  # the second Ctrl-C, where a token takes long
                notes = []
        streamer.flush()
        if self.conversation.forgotten > forgotten:
            turns = self.conversation.forgotten // 2
            notes.append(
                f"{self.name} sees {self.context} tokens; of this conversation it has forgotten the first "
                + (f"{turns} turns" if turns > 1 else "turn")
            )
        self.conversation.answer(streamer.text())
        return Answer(notes, stop.received)

    def _generate(self, settings: GenerationConfig, streamer: CharacterStreamer, stop: StopSignals) -> list[str]:
        def stopped(input_ids: torch.Tensor, scores: object) -> torch.Tensor:  # (batch, seq) -> (batch,)
            return torch.full(input_ids.shape[:1], stop.received is not None, device=input_ids.device)

        longest, ends = settings.max_new_tokens, settings.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        while True:
            prompt = self._render(self.conversation.seen()) + streamer.ids
            room = min(self.context - len(prompt), longest - len(streamer.ids))
            if room < 1:
                if self.conversation.forget():
                    continue
                return [f"cut: this turn alone takes the {self.context} tokens that {self.name} sees"]
            settings.max_new_tokens = room
            input_ids = torch.tensor([prompt], device=self.model.device)
            output = self.model.generate(
                input_ids,
                attention_mask=torch.ones_like(input_ids),
                generation_config=settings,
                streamer=streamer,
                stopping_criteria=StoppingCriteriaList([stopped]),
                tokenizer=self.tokenizer,  # in which it looks for a `stop_strings` of the settings
            )
            if output.shape[1] < len(prompt) + room or int(output[0, -1]) in ends or stop.received:
                return []
            if len(streamer.ids) == longest:
                return [f"cut after {longest} tokens (max_new_tokens)"]

    def _render(self, messages: list[Message]) -> list[int]:
        try:
            return self.tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        except TemplateError as error:
            raise UserError(f"{self.name}: its chat template does not take this conversation ({error})") from None
