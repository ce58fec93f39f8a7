"""Texts that engines are likely to split differently, and a tokenizer whose ids show where they were split."""

import inspect
import json.decoder
import textwrap
from pathlib import Path

from hypothesis import strategies as st
from tiny_stages import LINES
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from modeling_scratch.tokenization_base import CHAT_TEMPLATE, END_OF_TEXT, PAD, SPECIAL_TOKENS
from modeling_scratch.tokenization_scratch import byte_characters
from training.engines.gguf_unicode import unknown_characters
from training.engines.gguf_vocabulary import PATTERNS

PROSE = "Größe, naïve café — Привет! 你好，世界。 こんにちは مرحبا नमस्ते ١٢٣ ½ don't WE'LL 12345 \u00a0\u3000 🙂\r\n\n"
CODE = inspect.getsource(json.decoder) + inspect.getsource(textwrap)
TEXT = "def main():\n    print('hello 12345')\n\n\n  I'm — ünïcode 你好 \t\t x"
LONG = ["A" * 30_000, " " * 30_000, "1" * 30_000, "." * 30_000]
CODE_POINTS = [code for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
PLACES = ("{}", "a{}b", "1{}2", " {}", "{} ", "  {}x", "\n{}", "{}\n ", "'{}")
_AWKWARD = st.sampled_from(
    [" ", "  ", "\n", "\r\n", "\t", "'s", "'LL", "'", "ſ", "1", "12345", "٣", "Ⅷ", "a", "É", "e\u0301", "न\u093f"]
    + ["<|im_start|>", "<|im_start|>user\n", "<|im_end|>", "<|endoftext|>", "<|", "|>", "<|tool|>", "<thought>"]
    + ["<think>\n", "<think>", "\0", "\u2028", "\u00a0", "\u3000", "你", "🙂", "👍🏽", "_", "==", "\ufeff", "[PAD990]"]
)


def texts(pre: str) -> st.SearchStrategy[list[str]]:
    """Texts of characters that llama.cpp knows, with the split pattern `pre`."""
    unknown = unknown_characters(pre)
    known = st.characters(codec="utf-8").filter(lambda character: character not in unknown)
    return st.lists(st.lists(st.one_of(_AWKWARD, known), max_size=12).map("".join), min_size=1, max_size=20)


def write_split_tokenizer(folder: Path, pre: str) -> PreTrainedTokenizerFast:
    """A tokenizer of byte-level BPE with a split pattern of llama.cpp.

    The first merges join the beginning and the end of every character with what stands beside it in `PLACES`. So the
    ids show on which side of it the text was split, for each code point: without such merges most are the same bytes
    wherever they are split. Trained merges follow.
    """
    pattern = next(pattern for pattern, name in PATTERNS.items() if name == pre)
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated")]
    pre_tokenizer = pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(False, use_regex=False)])
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=byte_characters(), show_progress=False)
    trained.train_from_iterator([*LINES, CODE, PROSE * 3], trainer)
    learned = [tuple(merge) for merge in json.loads(trained.to_str())["model"]["merges"]]

    characters = byte_characters()
    before, after = ([characters[ord(letter)] for letter in letters] for letters in ("a1 \n'", "b2 x\n"))
    first = [characters[byte] for byte in (*range(0x80), *range(0xC2, 0xF5))]
    last = [characters[byte] for byte in range(0xC0)]
    merges = [(left, right) for left in before for right in first] + [(left, right) for left in last for right in after]
    merges = list(dict.fromkeys([*merges, *learned]))
    tokens = dict.fromkeys([*SPECIAL_TOKENS, *characters, *("".join(merge) for merge in merges)])
    vocab = {token: index for index, token in enumerate(tokens)}
    # As llama.cpp has it: it takes a word that is a token for that token.
    backend = Tokenizer(models.BPE(vocab, merges, ignore_merges=pre == "llama-bpe"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizer, decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=END_OF_TEXT,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.save_pretrained(folder)
    return tokenizer
