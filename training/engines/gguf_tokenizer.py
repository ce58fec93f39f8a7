"""Tokenizer of a GGUF file, for `scratch import`: the ids that llama.cpp gives, as a tokenizer of transformers.

A file names its split pattern and does not hold it, so only patterns that are known here can be rebuilt. llama.cpp
normalizes no text; a tokenizer that does (Qwen's, to NFC) has other ids for some text, and comes in by `--tokenizer`.
"""

from typing import Any

from gguf import TokenType
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, processors
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from transformers import GenerationConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from modeling_scratch.tokenization_base import CHAT_TEMPLATE
from training.engines.gguf_vocabulary import IGNORES_MERGES, PATTERNS, for_engines
from training.foreign.checkpoint import Checkpoint
from training.model_io.model_folder import generation_config

# Each pattern is applied to the pieces of the one before it.
_SPLITS = {name: (pattern,) for pattern, name in PATTERNS.items()}
_SPLITS["smollm"] = (r"\p{N}", *_SPLITS["gpt-2"])
_ALIASES = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "falcon3": "llama-bpe", "deepseek-r1-qwen": "qwen2"}
_NONE = 2**32 - 1  # -1 without a sign, which older converters wrote
_NAMES = {"bos": "bos_token_id", "eos": "eos_token_id", "eot": "eot_token_id", "pad": "padding_token_id"}


def has_tokenizer(checkpoint: Checkpoint) -> bool:
    """Whether the file holds a vocabulary."""
    return "tokenizer.ggml.tokens" in checkpoint.beside


def rebuild_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerFast:
    """The tokenizer in the file.

    Raises:
        UserError: it is not byte-level BPE with a known split pattern, or its parts contradict each other.
    """
    kind, pre = _setting(checkpoint, "ggml.model", str), _setting(checkpoint, "ggml.pre", str, "default")
    pre = _ALIASES.get(pre, pre)
    if kind != "gpt2" or pre not in _SPLITS:
        what = f"of the type {kind!r:.80}" if kind != "gpt2" else f"with the split pattern {pre!r:.80}"
        known = ", ".join(f"'{name}'" for name in _SPLITS)
        raise checkpoint.error(
            f"its tokenizer is one {what}, and only 'gpt2' with {known} can be rebuilt; add --tokenizer FOLDER with "
            "the tokenizer.json of the original model"
        )
    tokens, types = _tokens(checkpoint)
    backend = Tokenizer(_model(checkpoint, tokens, pre))
    splits = [Split(Regex(pattern), "isolated") for pattern in _SPLITS[pre]]
    backend.pre_tokenizer = Sequence([*splits, ByteLevel(add_prefix_space=False, use_regex=False)])
    backend.decoder = decoders.ByteLevel()
    for special, kind in ((True, TokenType.CONTROL), (False, TokenType.USER_DEFINED)):
        added = [token for token, found in zip(tokens, types) if found == kind]
        backend.add_tokens([AddedToken(token, special=special, normalized=not special) for token in added])
    ids = special_ids(checkpoint)
    begins = _setting(checkpoint, "ggml.add_bos_token", bool, pre == "llama-bpe") and ids["bos"] is not None
    ends = _setting(checkpoint, "ggml.add_eos_token", bool, False) and ids["eos"] is not None
    used = {tokens[ids[name]]: ids[name] for name, is_used in (("bos", begins), ("eos", ends)) if is_used}
    if used:
        parts = [tokens[ids["bos"]] if begins else "", "$A", tokens[ids["eos"]] if ends else ""]
        backend.post_processor = processors.TemplateProcessing(
            list(filter(None, parts)), special_tokens=list(used.items())
        )
    # A file without a beginning of its own names the end.
    named = {"eos_token": ids["eos"], "pad_token": ids["pad"], "bos_token": ids["bos"]}
    if ids["bos"] == ids["eos"] and not begins:
        del named["bos_token"]
    names = {name: tokens[index] for name, index in named.items() if index is not None}
    others = [token for token, kind in zip(tokens, types) if kind == TokenType.CONTROL and token not in names.values()]
    template = _setting(checkpoint, "chat_template", str, "") or None
    if template == for_engines(CHAT_TEMPLATE):
        template = CHAT_TEMPLATE  # with the marks that instruction tuning reads
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        extra_special_tokens=others,
        clean_up_tokenization_spaces=False,
        chat_template=template,
        **names,
    )


def check_same_tokens(checkpoint: Checkpoint, tokenizer: PreTrainedTokenizerBase, folder: str) -> None:
    """Check a tokenizer from elsewhere against the tokens in the file.

    Raises:
        UserError: names the first token that differs.
    """
    if not has_tokenizer(checkpoint):
        return
    tokens, types = _tokens(checkpoint)
    for index, (token, kind) in enumerate(zip(tokens, types)):
        if kind == TokenType.NORMAL and tokenizer.convert_ids_to_tokens(index) != token:
            other = tokenizer.convert_ids_to_tokens(index)
            raise checkpoint.error(
                f"token {index} is {token!r:.80} in it and {other!r:.80} in {folder}; give the tokenizer of the model "
                "that the file was made from"
            )


def settings_of(checkpoint: Checkpoint, tokenizer: PreTrainedTokenizerBase, rows: int) -> GenerationConfig:
    """Generation settings: the file's ends and suppressed tokens, and common sampling defaults.

    Args:
        rows: of the model's embedding.

    Raises:
        UserError: an id beyond the vocabulary.
    """
    settings, ids = generation_config(tokenizer, rows), special_ids(checkpoint)
    own = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    ends = list(dict.fromkeys(end for end in (ids["eos"], ids["eot"], *own) if end is not None))
    settings.eos_token_id = ends if len(ends) > 1 else next(iter(ends), None)
    if ids["bos"] is not None:
        settings.bos_token_id = ids["bos"]
    suppressed = set(_setting(checkpoint, "ggml.suppress_tokens", list, []))
    if not all(isinstance(index, int) and 0 <= index < rows for index in suppressed):
        raise checkpoint.error(f"tokenizer.ggml.suppress_tokens has ids that are not of its {rows} tokens")
    if has_tokenizer(checkpoint):
        suppressed |= {index for index, kind in enumerate(_tokens(checkpoint)[1]) if kind == TokenType.UNUSED}
    settings.suppress_tokens = sorted(suppressed.union(settings.suppress_tokens or ())) or None
    return settings


def special_ids(checkpoint: Checkpoint) -> dict[str, int | None]:
    """The ids `bos`, `eos`, `eot` and `pad`; None for those that the file does not have.

    Raises:
        UserError: one that is not of a token.
    """
    size = len(_tokens(checkpoint)[0])
    ids = {name: _setting(checkpoint, f"ggml.{key}", int, None) for name, key in _NAMES.items()}
    ids = {name: None if index == _NONE else index for name, index in ids.items()}
    for name, index in ids.items():
        if index is not None and not 0 <= index < size:
            raise checkpoint.error(f"tokenizer.ggml.{_NAMES[name]} is {index}, but it has {size} tokens")
    return ids


def _setting(checkpoint: Checkpoint, key: str, kind: type, default: Any = "") -> Any:
    """A setting of the tokenizer. Raises UserError: it is of another kind."""
    value = checkpoint.beside.get(f"tokenizer.{key}", default)
    if value is not default and (not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool)):
        raise checkpoint.error(f"tokenizer.{key} is {value!r:.80}, not of the type {kind.__name__}")
    return value


def _tokens(checkpoint: Checkpoint) -> tuple[list[str], list[int]]:
    """The tokens and their types, without the rows at the end that have no token."""
    tokens = _setting(checkpoint, "ggml.tokens", list)
    types = _setting(checkpoint, "ggml.token_type", list, [int(TokenType.NORMAL)] * len(tokens))
    if len(types) != len(tokens) or len({token for token in tokens if isinstance(token, str)}) != len(tokens):
        raise checkpoint.error("tokenizer.ggml.tokens are not different texts, each with a type; copy the file again")
    size = max((index + 1 for index, kind in enumerate(types) if kind != TokenType.UNUSED), default=0)
    return tokens[:size], types[:size]


def _model(checkpoint: Checkpoint, tokens: list[str], pre: str) -> models.BPE:
    merges = [tuple(str(merge).split(" ")) for merge in _setting(checkpoint, "ggml.merges", list, [])]
    vocab = {token: index for index, token in enumerate(tokens)}
    if any(len(merge) != 2 or not {*merge, "".join(merge)} <= vocab.keys() for merge in merges):
        raise checkpoint.error("tokenizer.ggml.merges do not fit its tokens; copy the file again")
    return models.BPE(vocab, merges, ignore_merges=pre in IGNORES_MERGES)
