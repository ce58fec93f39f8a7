"""Vocabulary of a GGUF file: a byte-level BPE tokenizer in llama.cpp's terms, with the same ids for every text.

llama.cpp takes no split pattern from a file. It has a list of patterns by name, so a tokenizer with another pattern
cannot be written; it is rejected, with the nearest one. `gguf_unicode` has the letters that it splits differently.
"""

import difflib
import json
import re
from dataclasses import dataclass
from typing import Any

from gguf import TokenType
from tokenizers import Tokenizer
from transformers import GenerationConfig, PreTrainedTokenizerBase

from modeling_scratch.tokenization_scratch import split_pattern

_QWEN35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# Of llama.cpp's patterns, those for which it has a scanner of its own: the others pass through std::regex, which
# overflows the stack on long runs of one character.
PATTERNS = {
    split_pattern(3): "llama-bpe",
    split_pattern(1): "qwen2",
    _QWEN35: "qwen35",
    _GPT2: "gpt-2",
}
_OPTIONS = {"llama-bpe": "digits: 3, whitespace: runs", "qwen2": "digits: 1, whitespace: runs"}  # of `scratch prepare`
IGNORES_MERGES = ("llama-bpe",)  # a word that is a token becomes that token
# Blocks that only instruction tuning reads. Older engines do not know them, and these render alike.
_GENERATION = re.compile(r"\{%(-?)\s*(end)?generation\s*(-?)%\}")


@dataclass
class Vocabulary:
    """The tokenizer as a GGUF file stores it.

    Attributes:
        pre: llama.cpp's name of the split pattern.
        tokens, types: of each row of the embedding; rows without a token have the type UNUSED.
        merges: in the order in which they were learned, such as `t h`.
        bos, eos, eot, pad: ids; `eot` ends a turn, or is `eos`.
        adds_bos, adds_eos: whether every text gets them.
        suppressed: ids that are never drawn.
        chat_template: None for a model that does not answer messages.
    """

    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    bos: int
    eos: int
    eot: int
    pad: int | None
    adds_bos: bool
    adds_eos: bool
    suppressed: list[int]
    chat_template: str | None


def read_vocabulary(
    tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig, rows: int, chat: bool
) -> Vocabulary:
    """The vocabulary of a tokenizer.

    Args:
        generation: of the model: its ends, and the tokens that it suppresses.
        rows: of the model's embedding, at least as many as tokens.
        chat: whether the model answers messages.

    Raises:
        ValueError: llama.cpp would give other ids for some text; names the reason.
    """
    backend = tokenizer.backend_tokenizer
    content = json.loads(backend.to_str())
    pre = pattern_name(content)
    _check_model(content["model"], backend, pre)
    _check_added(content["added_tokens"])
    special = {token["id"]: token["special"] for token in content["added_tokens"]}
    names = {index: token for token, index in tokenizer.get_vocab().items()}
    kinds = {True: TokenType.CONTROL, False: TokenType.USER_DEFINED, None: TokenType.NORMAL}
    tokens = [names.get(index, f"[PAD{index}]") for index in range(rows)]
    if len(set(tokens)) < rows:
        raise ValueError("two tokens have the same text")
    types = [int(kinds[special.get(index)] if index in names else TokenType.UNUSED) for index in range(rows)]
    ends = generation.eos_token_id if isinstance(generation.eos_token_id, list) else [generation.eos_token_id]
    eos = tokenizer.eos_token_id
    if eos is None:
        raise ValueError("its tokenizer has no eos_token, for which llama.cpp would take token 11")
    others = [end for end in ends if end not in (eos, None)]
    if len(others) > 1:
        raise ValueError(f"generation ends at {len(others) + 1} tokens; a GGUF file names two (eos, eot)")
    before, after = _added_around(tokenizer, eos)
    bos = tokenizer.bos_token_id if before is None else before
    if chat and before is not None and not _opens_with(tokenizer, before):
        before = None  # llama.cpp adds it to conversations, too, and transformers does not
    empty = {index for index in range(rows) if index not in names}
    return Vocabulary(
        pre,
        tokens,
        types,
        [merge if isinstance(merge, str) else " ".join(merge) for merge in content["model"]["merges"]],
        bos=eos if bos is None else bos,
        eos=eos,
        eot=others[0] if others else eos,
        pad=tokenizer.pad_token_id,
        adds_bos=before is not None,
        adds_eos=after and not chat,  # as above
        suppressed=sorted(empty.union(generation.suppress_tokens or ())),
        chat_template=for_engines(tokenizer.chat_template) if chat and tokenizer.chat_template else None,
    )


def _added_around(tokenizer: PreTrainedTokenizerBase, eos: int) -> tuple[int | None, bool]:
    """The token that the tokenizer puts before every text, and whether it ends each with `eos`.

    Raises:
        ValueError: it adds something else, which llama.cpp does not.
    """
    bare, whole = (tokenizer("a", add_special_tokens=added)["input_ids"] for added in (False, True))
    starts = (index for index in range(len(whole)) if whole[index : index + len(bare)] == bare)
    start = next(starts, len(whole))
    before, after = whole[:start], whole[start + len(bare) :]
    if len(before) > 1 or after not in ([], [eos]):
        words = tokenizer.convert_ids_to_tokens(before + after)
        raise ValueError(f"its tokenizer adds {' '.join(words)} to every text, and llama.cpp adds bos and eos at most")
    return next(iter(before), None), bool(after)


def _opens_with(tokenizer: PreTrainedTokenizerBase, bos: int) -> bool:
    """Whether the chat template begins a conversation with a token."""
    text = tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    return text.startswith(tokenizer.convert_ids_to_tokens(bos))


def for_engines(chat_template: str) -> str:
    """A chat template without the blocks that only instruction tuning reads. It renders alike."""
    return _GENERATION.sub(_as_condition, chat_template)


def _as_condition(block: re.Match) -> str:
    left, end, right = block.groups()
    return f"{{%{left} {'endif' if end else 'if true'} {right}%}}"


def pattern_name(content: dict[str, Any]) -> str:
    """llama.cpp's name of the split pattern in a `tokenizer.json`.

    Raises:
        ValueError: it has none; names the nearest.
    """
    steps = content["pre_tokenizer"] or {}
    steps = steps.get("pretokenizers", [steps])
    kinds = [step.get("type") for step in steps]
    if kinds not in (["Split", "ByteLevel"], ["ByteLevel"]) or content["model"]["type"] != "BPE":
        raise ValueError("its tokenizer is not byte-level BPE with one split pattern, the only kind that gguf has here")
    if content["normalizer"]:
        kind = content["normalizer"]["type"]
        raise ValueError(f"its tokenizer normalizes text ({kind}) before it splits it, and llama.cpp does not")
    if steps[-1]["add_prefix_space"] or steps[-1]["use_regex"] is not (kinds == ["ByteLevel"]):
        raise ValueError("its tokenizer adds a space before a text, or splits twice, and llama.cpp does not")
    pattern = _GPT2
    if kinds[0] == "Split":
        pattern = steps[0]["pattern"].get("Regex", "")
        if steps[0]["behavior"] != "Isolated" or steps[0]["invert"]:
            raise ValueError("its split pattern matches separators, and those of llama.cpp match words")
    if pattern not in PATTERNS:
        (closest,) = difflib.get_close_matches(pattern, PATTERNS, n=1, cutoff=0)
        name = PATTERNS[closest]
        options = f" ({_OPTIONS[name]})" if name in _OPTIONS else ""
        raise ValueError(
            f"llama.cpp has no counterpart of its split pattern {pattern}; the nearest is {name}{options}; train a "
            "tokenizer with that, and the model again"
        )
    return PATTERNS[pattern]


def _check_model(model: dict[str, Any], backend: Tokenizer, pre: str) -> None:
    """Reject options of BPE with which llama.cpp would merge differently. Raises ValueError."""
    options = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    used = [name for name in options if model.get(name)]
    if used:
        raise ValueError(f"its tokenizer has {used[0]}, and llama.cpp's byte-level BPE does not")
    if (pre in IGNORES_MERGES) != bool(model.get("ignore_merges")):
        added = {token.content for token in backend.get_added_tokens_decoder().values()}
        for token in model["vocab"]:
            if token not in added and len(backend.model.tokenize(token)) > 1:
                raise ValueError(f"no merges lead to its token {token!r}; llama.cpp's {pre} has another rule for these")


def _check_added(added: list[dict[str, Any]]) -> None:
    """Reject added tokens that llama.cpp would find elsewhere. Raises ValueError."""
    for token in added:
        used = [name for name in ("single_word", "lstrip", "rstrip") if token[name]]
        if used:
            raise ValueError(f"its added token {token['content']!r} has {used[0]}, and llama.cpp has no such option")
