"""The base class of the tokenizers: special and added tokens, and a folder that `transformers.AutoTokenizer` opens."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

END_OF_TEXT, PAD, TURN_START, TURN_END = "<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"
# The beginning of a turn is one token. As its line break is part of it, no token merges the line break with what
# follows: a message has the same tokens wherever it stands, and an answer begins where the prompt ends.
TURN_STARTS = tuple(f"{TURN_START}{role}\n" for role in ("system", "user", "assistant", "tool"))
SPECIAL_TOKENS = (END_OF_TEXT, PAD, TURN_START, TURN_END, *TURN_STARTS)  # ids 0 to 7
UNKNOWN = "<|unknown|>"  # stands for each character that a character-level vocabulary does not have

# ChatML, with tools, calls and reasoning as Qwen and Hermes write them, which vLLM, llama.cpp and TRL parse. The result
# of a call is a turn of the role `tool`. Instruction tuning trains on the part inside {% generation %}: all that the
# assistant writes, and the token that ends the turn, so that the model learns to stop. The line break after it belongs
# to the template. A turn is rendered alike whatever follows it: a prompt is the beginning of the whole conversation.
CHAT_TEMPLATE = """\
{%- macro text(content) %}
    {%- if content is string %}
        {{- content }}
    {%- else %}
        {%- for part in content or [] %}
            {{- '' + part['text'] }}
        {%- endfor %}
    {%- endif %}
{%- endmacro %}
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- text(messages[0]['content']) + '\\n\\n' }}
    {%- endif %}
    {{- '# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\n' }}
    {{- 'You are provided with function signatures within <tools></tools> XML tags:\\n<tools>' }}
    {%- for tool in tools %}
        {{- '\\n' + tool | tojson }}
    {%- endfor %}
    {{- '\\n</tools>\\n\\nFor each function call, return a json object with function name and arguments ' }}
    {{- 'within <tool_call></tool_call> XML tags:\\n<tool_call>\\n' }}
    {{- '{"name": <function-name>, "arguments": <args-json-object>}\\n</tool_call><|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message['role'] == 'assistant' %}
        {{- '<|im_start|>' + message['role'] + '\\n' }}
        {%- generation %}
            {%- if message['reasoning_content'] %}
                {{- '<think>\\n' + message['reasoning_content'] + '\\n</think>\\n\\n' }}
            {%- endif %}
            {{- text(message['content']) }}
            {%- for call in message['tool_calls'] or [] %}
                {%- set function = call['function'] or call %}
                {{- '\\n' if message['content'] or not loop.first else '' }}
                {{- '<tool_call>\\n{"name": "' + function['name'] + '", "arguments": ' }}
                {%- if function['arguments'] is string %}
                    {{- function['arguments'] }}
                {%- else %}
                    {{- (function['arguments'] or {}) | tojson }}
                {%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
            {{- '<|im_end|>' }}
        {%- endgeneration %}
        {{- '\\n' }}
    {%- elif not (tools and loop.first and message['role'] == 'system') %}
        {{- '<|im_start|>' + message['role'] + '\\n' + text(message['content']) + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def use_version_4_names(folder: str | Path) -> None:
    """Rewrite a `tokenizer_config.json` that transformers 5 saved, so that version 4 opens it too.

    Version 5 reads both kinds of names, and writes its own again whenever it saves.
    """
    file = Path(folder) / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if "extra_special_tokens" in config:
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


class BaseTokenizer(ABC):
    """A vocabulary, special and added tokens that are split off first, and `save`.

    Args:
        tokens: the vocabulary, by id.
        special_tokens: those of `tokens` that no ordinary text produces.
    """

    def __init__(self, tokens: list[str], special_tokens: tuple[str, ...]):
        self.tokens = tokens
        self.vocab = {token: index for index, token in enumerate(tokens)}
        self.special_tokens = special_tokens
        self.added_tokens: tuple[str, ...] = ()
        self._compile_searches()

    def __len__(self) -> int:
        return len(self.vocab)

    def add_tokens(self, tokens: Iterable[str], special: bool = False) -> None:
        """Append tokens to the vocabulary; existing ids stay as they are.

        The model needs an embedding for each: `model.resize_token_embeddings(len(tokenizer))`. Equivalent to
        `add_tokens` of the saved tokenizer in transformers.

        Args:
            special: find them before all other tokens, and omit them where special tokens are skipped.

        Raises:
            ValueError: an empty token.
        """
        for token in tokens:
            if not token:
                raise ValueError("a token must not be empty")
            if token not in self.vocab:
                self.vocab[token] = len(self.tokens)
                self.tokens.append(token)
            if token in self.special_tokens + self.added_tokens:
                continue
            if special:
                self.special_tokens += (token,)
            else:
                self.added_tokens += (token,)
        self._compile_searches()

    def add_as_saved(self, added: list[dict[str, Any]], file: Path) -> None:
        """Add the tokens that a tokenizer.json lists beside the vocabulary of its model.

        Raises:
            ValueError: they have options or ids that this class does not support.
        """
        for token in added:
            if token["single_word"] or token["lstrip"] or token["rstrip"]:
                raise ValueError(
                    f"{file}: the added token {token['content']!r} has single_word, lstrip or rstrip; use AutoTokenizer"
                )
            self.add_tokens([token["content"]], token["special"])
            if self.vocab[token["content"]] != token["id"]:
                raise ValueError(f"{file} orders its added tokens differently; use AutoTokenizer")

    def _compile_searches(self) -> None:
        # As in the Rust library: special tokens first, then added tokens in the rest; the longest match wins.
        self._searches = []
        for tokens in (self.special_tokens, self.added_tokens):
            longest_first = "|".join(map(re.escape, sorted(tokens, key=len, reverse=True)))
            self._searches.append(re.compile(f"({longest_first})") if tokens else None)

    def encode(self, text: str, split_special_tokens: bool = False) -> list[int]:
        """Token ids of a text.

        Args:
            split_special_tokens: treat special tokens in the text as ordinary text, as documents need it. Otherwise
                each becomes its own id.
        """
        searches = self._searches[1:] if split_special_tokens else self._searches
        return self._encode(text, [search for search in searches if search])

    def _encode(self, text: str, searches: list[re.Pattern]) -> list[int]:
        if not searches:
            return self._encode_ordinary(text)
        ids = []
        for position, part in enumerate(searches[0].split(text)):
            if position % 2:  # a match of the pattern's group
                ids.append(self.vocab[part])
            elif part:
                ids.extend(self._encode(part, searches[1:]))
        return ids

    @abstractmethod
    def _encode_ordinary(self, text: str) -> list[int]:
        """Token ids of a text without special or added tokens."""

    @abstractmethod
    def to_backend(self) -> Tokenizer:
        """The same tokenizer as an object of the Rust library, which writes `tokenizer.json`."""

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja` for `AutoTokenizer`.

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
        unknown = {"unk_token": UNKNOWN} if UNKNOWN in self.special_tokens else {}
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend,
            eos_token=END_OF_TEXT,
            pad_token=PAD,
            **unknown,
            padding_side="left",  # generation continues the last position, which must not be padding
            extra_special_tokens=[token for token in self.special_tokens if token not in (END_OF_TEXT, PAD, UNKNOWN)],
            clean_up_tokenization_spaces=False,
            chat_template=CHAT_TEMPLATE,
        )
        tokenizer.save_pretrained(folder)
        use_version_4_names(folder)


def read_tokenizer_json(folder: str | Path, kind: str) -> tuple[Path, dict[str, Any], list[dict[str, Any]], list[str]]:
    """Read a `tokenizer.json`: its path, its model, its added tokens by id, and the patterns that split text.

    Args:
        kind: the expected type of model, such as "BPE".

    Raises:
        ValueError: damaged, or another type.
    """
    file = Path(folder) / "tokenizer.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        model, added = content["model"], sorted(content["added_tokens"], key=lambda token: token["id"])
        steps = content["pre_tokenizer"].get("pretokenizers", [content["pre_tokenizer"]])
        splits = [step["pattern"]["Regex"] for step in steps if step["type"] == "Split"]
        found = model["type"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{file} is damaged, or was not written by this class") from None
    if found != kind:
        raise ValueError(f"{file} holds a {found} tokenizer, not a {kind} one")
    return file, model, added, splits
