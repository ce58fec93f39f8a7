"""Conversations and texts as token ids, the same in training, evaluation and chat.

Two rules make them the same:

- The prompt of each answer is encoded apart from the answer. A model is shown the prompt alone, and a tokenizer may
  merge the end of a prompt with the beginning of an answer, such as a line break with the indentation after it.
- Text from outside is text. Special tokens that the chat template writes become control tokens. Special tokens that
  a message, a tool or a text contains are encoded as the characters that they are written with.
"""

import functools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from training.model_io.messages import Message, as_template_reads
from training.model_io.template_features import check_features, features
from training.model_io.tokenizers import naming_unknown

# Code points that no character has. One of them is put inside special tokens that a message contains, so that they are
# told apart from those that the template writes, and is removed after rendering.
_NONCHARACTERS = [chr(code_point) for code_point in range(0xFDD0, 0xFDF0)]
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True)
class EncodedConversation:
    """The token ids of a conversation.

    Attributes:
        ids: of the whole conversation.
        answers: for each id, 1 inside the `{% generation %}` marks of the template and 0 outside; all 0 without marks.
        prompts: message index to the number of ids before the message. Of every assistant message, and of the index
            that `starts` named.
        as_shown: whether these first ids are, for each of them, the prompt that a model is shown at inference. Not if
            the template writes a prompt alone differently from a prompt that an answer follows.
    """

    ids: list[int]
    answers: list[int]
    prompts: dict[int, int]
    as_shown: bool


def encode_conversation(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[Message],
    add_generation_prompt: bool = False,
    starts: int | None = None,
    chat_template: str | None = None,
    tools: list[Any] | None = None,
    **variables: Any,
) -> EncodedConversation:
    """The token ids of a conversation, every answer encoded apart from the prompt before it.

    Args:
        messages: at least one.
        add_generation_prompt: end with the beginning of an answer.
        starts: index of a message that starts an answer, beside those of the assistant.
        chat_template: instead of the tokenizer's own.
        tools, variables: for the template.

    Raises:
        jinja2.TemplateError: the template rejects the conversation, or would leave out a part of it.
    """
    template = tokenizer.get_chat_template(chat_template, tools)
    messages = [as_template_reads(message) for message in messages]  # JSON text may hide special tokens by escapes
    check_features(tokenizer, template, features(messages, tools))
    special = _special_tokens(tokenizer)
    (messages, tools, variables), mark = _mark_special_tokens([messages, tools, variables], special)
    render = functools.partial(_render, tokenizer, template, tools, variables)
    text, spans = render(messages, add_generation_prompt)

    prompts, as_shown = {}, True  # message index to the number of characters before it
    for index, message in enumerate(messages):
        if index and (message["role"] == "assistant" or index == starts):
            try:
                shown, _ = render(messages[:index], True)
            except TemplateError:  # a prompt that no model is shown
                if index == starts:
                    raise
                continue
            prompts[index] = len(shown) if text.startswith(shown) else len(os.path.commonprefix([shown, text]))
            as_shown = as_shown and prompts[index] == len(shown)

    parts = list(_split(text, sorted({0, len(text), *prompts.values()}), special))
    ids, answers, before = [], [], {}  # `before`: number of characters to number of ids
    for part, encoded in zip(parts, _encode_parts(tokenizer, text, parts, mark), strict=True):
        before[part.start] = len(ids)
        ids += encoded
        answers += _inside(tokenizer, text, part, spans, len(encoded), mark)
    before[len(text)] = len(ids)
    return EncodedConversation(ids, answers, {index: before[place] for index, place in prompts.items()}, as_shown)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str | list[Message], **template: Any) -> list[int]:
    """The token ids that a model is shown before it answers.

    Args:
        prompt: text, which gets what the tokenizer puts before a text; or messages.
        template: `chat_template`, `tools` and variables, see `encode_conversation`.
    """
    if isinstance(prompt, str):
        with naming_unknown(tokenizer, prompt):
            return tokenizer(prompt, split_special_tokens=True, verbose=False)["input_ids"]
    return encode_conversation(tokenizer, prompt, add_generation_prompt=True, **template).ids


@dataclass(frozen=True)
class EncodedAnswers:
    """The token ids of a prompt and of its answers.

    Attributes:
        prompt: those of `encode_prompt`; without `as_shown` what it has in common with the prompts of the answers.
        answers: of each answer, what follows `prompt`.
        as_shown: see `EncodedConversation`.
    """

    prompt: list[int]
    answers: list[list[int]]
    as_shown: bool


def encode_answers(
    tokenizer: PreTrainedTokenizerBase, prompt: str | list[Message], *answers: str | list[Message], **template: Any
) -> EncodedAnswers:
    """The token ids of a prompt and of its answers, which are encoded apart from it.

    Args:
        answers: text, which gets the end-of-text token; or messages, with all that the template puts after them.
        template: `chat_template`, `tools` and variables, see `encode_conversation`.

    Raises:
        ValueError: answers of text, and a tokenizer without an end-of-text token.
    """
    if isinstance(prompt, str):
        continued = [_encode_answer(tokenizer, answer) for answer in answers]
        return EncodedAnswers(encode_prompt(tokenizer, prompt), continued, as_shown=True)
    whole = [encode_conversation(tokenizer, prompt + answer, starts=len(prompt), **template) for answer in answers]
    shown = os.path.commonprefix([each.ids[: each.prompts.get(len(prompt), 0)] for each in whole])
    return EncodedAnswers(shown, [each.ids[len(shown) :] for each in whole], all(each.as_shown for each in whole))


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The token ids of a text with what the tokenizer puts before it and the end-of-text token after it.

    Raises:
        ValueError: a tokenizer without an end-of-text token.
    """
    return encode_prompt(tokenizer, _without_end(tokenizer, text)) + [tokenizer.eos_token_id]


def _encode_answer(tokenizer: PreTrainedTokenizerBase, answer: str) -> list[int]:
    """The token ids of a text that continues another, and of the end of text."""
    (ids,) = _encode_texts(tokenizer, [_without_end(tokenizer, answer)], begins=[False])
    return ids + [tokenizer.eos_token_id]


def _without_end(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """The text without the end-of-text token, which it may end with already.

    Raises:
        ValueError: the tokenizer has none.
    """
    if tokenizer.eos_token is None:
        raise ValueError("the tokenizer has no end-of-text token; set 'eos_token'")
    return text.removesuffix(tokenizer.eos_token)


def _render(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    tools: list[Any] | None,
    variables: dict[str, Any],
    messages: list[Message],
    add_generation_prompt: bool,
) -> tuple[str, list[tuple[int, int]]]:
    """The text of a conversation, and the spans of its characters inside generation marks.

    Raises:
        jinja2.TemplateError: of the template, which also says what its expressions raise, such as a TypeError.
    """
    try:
        texts, spans = render_jinja_template(
            [messages],
            tools=tools,
            chat_template=template,
            add_generation_prompt=add_generation_prompt,
            return_assistant_tokens_mask=bool(_GENERATION.search(template)),
            **{**tokenizer.special_tokens_map, **variables},
        )
    except TemplateError:
        raise
    except Exception as error:
        raise TemplateError(f"{type(error).__name__}: {error}") from error
    return texts[0], spans[0] if spans else []


@dataclass(frozen=True)
class _SpecialTokens:
    """The special tokens of a tokenizer: a pattern with one group for each, their ids in the same order, and a pattern
    of their contents alone. The first includes the whitespace that a token removes beside it (`lstrip`, `rstrip`)."""

    written: re.Pattern
    ids: list[int]
    contained: re.Pattern


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> _SpecialTokens:
    added = [(token, index) for index, token in tokenizer.added_tokens_decoder.items() if token.special]
    added.sort(key=lambda entry: len(entry[0].content), reverse=True)  # the longest match wins
    contents = [re.escape(token.content) for token, _ in added]
    groups = [
        r"\s*" * token.lstrip + f"({content})" + r"\s*" * token.rstrip
        for (token, _), content in zip(added, contents, strict=True)
    ]
    nothing = "(?!)"
    return _SpecialTokens(
        re.compile("|".join(groups) or nothing),
        [index for _, index in added],
        re.compile("|".join(contents) or nothing),
    )


def _mark_special_tokens(value: Any, special: _SpecialTokens) -> tuple[Any, str]:
    """The same value, in whose strings no special token is left, and the mark to remove from what is rendered."""
    strings = list(_strings(value))
    if not any(map(special.contained.search, strings)):
        return value, ""
    mark = next(character for character in _NONCHARACTERS if not any(character in string for string in strings))
    return _map_strings(value, lambda text: special.contained.sub(lambda match: mark.join(match[0]), text)), mark


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _strings(key)
            yield from _strings(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _strings(each)


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {_map_strings(key, change): _map_strings(each, change) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_map_strings(each, change) for each in value]
    return value


class _Part(NamedTuple):
    """A part of a rendered conversation: a control token, or a text between two.

    Attributes:
        start, end: its characters.
        control: the id of the control token; None for a text.
        begins: whether a text begins the conversation, or follows a control token.
    """

    start: int
    end: int
    control: int | None = None
    begins: bool = False


def _split(text: str, cuts: list[int], special: _SpecialTokens) -> Iterator[_Part]:
    """The parts of a rendered conversation, in which unmarked special tokens are control tokens; none crosses a cut."""
    begins = True
    for start, end in pairwise(cuts):
        for match in special.written.finditer(text, start, end):
            if match.start() > start:
                yield _Part(start, match.start(), begins=begins)
            yield _Part(match.start(), match.end(), special.ids[match.lastindex - 1])
            start, begins = match.end(), True
        if start < end:
            yield _Part(start, end, begins=begins)
            begins = False


def _encode_parts(tokenizer: PreTrainedTokenizerBase, text: str, parts: list[_Part], mark: str) -> Iterator[list[int]]:
    """The token ids of each part."""
    always = _prefix_scheme(tokenizer) == "always"
    texts = [part for part in parts if part.control is None]
    begins = [part.start == 0 or part.begins and always for part in texts]
    encoded = iter(_encode_texts(tokenizer, [_unmarked(text, part, mark) for part in texts], begins))
    return ([part.control] if part.control is not None else next(encoded) for part in parts)


def _encode_texts(tokenizer: PreTrainedTokenizerBase, texts: list[str], begins: list[bool]) -> list[list[int]]:
    """The token ids of texts, special tokens in them taken as text.

    Args:
        begins: of each text, whether to encode it as a beginning, or as what continues another text.
    """
    encode = functools.partial(tokenizer, add_special_tokens=False, split_special_tokens=True, verbose=False)
    if not texts:
        return []
    if _prefix_scheme(tokenizer) == "never":
        with naming_unknown(tokenizer, texts):
            return encode(texts)["input_ids"]
    # The tokenizer puts a space before a text, but not after the line break in it.
    before = encode("\n")["input_ids"]
    encoded = encode([each if alone else f"\n{each}" for each, alone in zip(texts, begins, strict=True)])["input_ids"]
    for place, (text, alone) in enumerate(zip(texts, begins, strict=True)):
        if not alone:
            merged = encoded[place][: len(before)] != before
            encoded[place] = encode(text)["input_ids"] if merged else encoded[place][len(before) :]
    return encoded


def _inside(
    tokenizer: PreTrainedTokenizerBase, text: str, part: _Part, spans: list[tuple[int, int]], count: int, mark: str
) -> list[int]:
    """For each of the `count` tokens of a part, 1 if it has a character inside the spans, else 0."""
    if not any(start < part.end and part.start < end for start, end in spans):
        return [0] * count
    if part.control is not None or any(start <= part.start and part.end <= end for start, end in spans):
        return [1] * count
    # A template that marks a part of a text, and not the answer as the model writes it.
    plain = _unmarked(text, part, mark)
    encode = functools.partial(tokenizer, add_special_tokens=False, split_special_tokens=True, verbose=False)
    offsets = encode(plain, return_offsets_mapping=True)["offset_mapping"]
    places = [place for place in range(part.start, part.end) if text[place] != mark] + [part.end]
    marks = [int(any(start < places[last] and places[first] < end for start, end in spans)) for first, last in offsets]
    return [0] * (count - len(marks)) + marks[-count:]


def _unmarked(text: str, part: _Part, mark: str) -> str:
    return text[part.start : part.end].replace(mark, "") if mark else text[part.start : part.end]


@functools.lru_cache(maxsize=8)
def _prefix_scheme(tokenizer: PreTrainedTokenizerBase) -> str:
    """The places where the tokenizer puts a space before a text: never; first, as SentencePiece does; or always, also
    after each special token."""
    backend = tokenizer.backend_tokenizer
    text = backend.normalizer.normalize_str("a") if backend.normalizer else "a"
    words = backend.pre_tokenizer.pre_tokenize_str(text) if backend.pre_tokenizer else [(text, ())]
    if len("".join(word for word, _ in words)) == 1:
        return "never"
    encode = functools.partial(tokenizer, add_special_tokens=False)
    after = encode(f"{tokenizer.eos_token}a")["input_ids"][1:]
    return "always" if after == encode("a")["input_ids"] else "first"
