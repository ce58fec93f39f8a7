"""Character-level tokenizers of a few letters, with and without a token for unknown characters."""

import string
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from modeling_scratch.tokenization_character import CharacterTokenizer
from training.model_io.tokenizers import open_tokenizer


def character_tokenizer(folder: Path, unknown: bool) -> PreTrainedTokenizerBase:
    """The tokenizer of printable ASCII, saved and opened as every stage opens it."""
    folder.mkdir(parents=True, exist_ok=True)
    CharacterTokenizer.train([string.printable], unknown).save(folder)
    return open_tokenizer(folder, "tokenizer")
