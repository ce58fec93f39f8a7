"""What every tokenizer here has: special and added tokens, and a folder that `transformers.AutoTokenizer` opens."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

END_OF_TEXT, PAD, TURN_START, TURN_END = "<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, PAD, TURN_START, TURN_END)  # ids 0, 1, 2, 3

# ChatML. The loss of instruction tuning falls on what {% generation %} encloses: the assistant's words and the token
# that ends the turn, so that the model learns to stop. The line break after it is the template's, not the assistant's.
CHAT_TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' }}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}
            {{- message['content'] + '<|im_end|>' }}
        {%- endgeneration %}
    {%- else %}
        {{- message['content'] + '<|im_end|>' }}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def use_version_4_names(folder: str | Path) -> None:
    """Rewrite a `tokenizer_config.json` that transformers 5 saved, so that version 4 and tools built on it open it too.

    Version 5 reads the older names itself, and goes back to its own whenever it saves.
    """
    file = Path(folder) / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if "extra_special_tokens" in config:
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


class BaseTokenizer(ABC):
    """What both tokenizers share: a vocabulary, the tokens that are cut out before anything else, and `save`."""

    def __init__(self, tokens: list[str], special_tokens: tuple[str, ...]):
        self.tokens = tokens
        self.vocab = {token: index for index, token in enumerate(tokens)}
        self.special_tokens = special_tokens
        self.added_tokens: tuple[str, ...] = ()
        self._look_for_tokens()

    def __len__(self) -> int:
        return len(self.vocab)

    def add_tokens(self, tokens: Iterable[str], special: bool = False) -> None:
        """Give texts an id of their own, after all others, so that everything written before keeps its ids.

        The model needs a row for each: `model.resize_token_embeddings(len(tokenizer))`. The same as `add_tokens` of
        the saved tokenizer in transformers.

        Args:
            special: cut them out of a text first, and leave them out where special tokens are skipped.

        Raises:
            ValueError: an empty token.
        """
        for token in tokens:
            if not token:
                raise ValueError("an empty text cannot be a token")
            if token not in self.vocab:
                self.vocab[token] = len(self.tokens)
                self.tokens.append(token)
            if token in self.special_tokens + self.added_tokens:
                continue
            if special:
                self.special_tokens += (token,)
            else:
                self.added_tokens += (token,)
        self._look_for_tokens()

    def add_as_saved(self, added: list[dict[str, Any]], file: Path) -> None:
        """Add the tokens that a tokenizer.json holds beyond the vocabulary of its model."""
        for token in added:
            if token["single_word"] or token["lstrip"] or token["rstrip"]:
                raise ValueError(
                    f"{file}: the added token {token['content']!r} asks for its surroundings; use AutoTokenizer"
                )
            self.add_tokens([token["content"]], token["special"])
            if self.vocab[token["content"]] != token["id"]:
                raise ValueError(f"{file} numbers its added tokens in another way; use AutoTokenizer")

    def _look_for_tokens(self) -> None:
        """As the Rust library does: special tokens first, then added ones in what is left; of several, the longest."""
        self._searches = []
        for tokens in (self.special_tokens, self.added_tokens):
            longest_first = "|".join(map(re.escape, sorted(tokens, key=len, reverse=True)))
            self._searches.append(re.compile(f"({longest_first})") if tokens else None)

    def encode(self, text: str, split_special_tokens: bool = False) -> list[int]:
        """Token ids of a text.

        Args:
            split_special_tokens: special tokens written in the text are text like any other, as they should be in a
                document; otherwise they become their own ids.
        """
        searches = self._searches[1:] if split_special_tokens else self._searches
        return self._encode(text, [search for search in searches if search])

    def _encode(self, text: str, searches: list[re.Pattern]) -> list[int]:
        if not searches:
            return self._encode_ordinary(text)
        ids = []
        for position, part in enumerate(searches[0].split(text)):
            if position % 2:  # what the pattern's group caught
                ids.append(self.vocab[part])
            elif part:
                ids.extend(self._encode(part, searches[1:]))
        return ids

    @abstractmethod
    def _encode_ordinary(self, text: str) -> list[int]:
        """Token ids of a stretch of text without special tokens."""

    @abstractmethod
    def to_backend(self) -> Tokenizer:
        """The same tokenizer in the Rust library, whose JSON is the content of `tokenizer.json`."""

    def save(self, folder: str | Path, model_max_length: int = 1024) -> None:
        """Write `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja` for `AutoTokenizer`.

        Args:
            model_max_length: tokens that the model takes; transformers warns about longer texts.

        Raises:
            ValueError: the vocabulary lacks one of `SPECIAL_TOKENS`, which the chat template needs.
        """
        missing = [token for token in SPECIAL_TOKENS if token not in self.special_tokens]
        if missing:
            raise ValueError(f"a saved tokenizer needs the special tokens {', '.join(missing)}")
        backend = self.to_backend()
        for token in sorted(self.special_tokens + self.added_tokens, key=self.vocab.__getitem__):
            if token in self.special_tokens:
                backend.add_special_tokens([AddedToken(token, special=True, normalized=False)])
            else:
                backend.add_tokens([token])
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend,
            eos_token=END_OF_TEXT,
            pad_token=PAD,
            extra_special_tokens=[token for token in self.special_tokens if token not in (END_OF_TEXT, PAD)],
            clean_up_tokenization_spaces=False,
            model_max_length=model_max_length,
            chat_template=CHAT_TEMPLATE,
        )
        tokenizer.save_pretrained(folder)
        use_version_4_names(folder)


def read_tokenizer_json(folder: str | Path, kind: str) -> tuple[Path, dict[str, Any], list[dict[str, Any]], list[str]]:
    """The file, its model, its special and added tokens in the order of their ids, and its patterns to split by."""
    file = Path(folder) / "tokenizer.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        model, added = content["model"], sorted(content["added_tokens"], key=lambda token: token["id"])
        steps = content["pre_tokenizer"].get("pretokenizers", [content["pre_tokenizer"]])
        splits = [step["pattern"]["Regex"] for step in steps if step["type"] == "Split"]
        found = model["type"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{file} is damaged, or not written by this class") from None
    if found != kind:
        raise ValueError(f"{file} holds a {found} tokenizer, not a {kind} one")
    return file, model, added, splits
