"""Encoding speed of our tokenizer on text without spaces, beside the Rust library.

    python -m benchmarks.unspaced
    python -m benchmarks.unspaced --bytes 1000000 --rounds 5

The texts are made up, the same every time: 200,000 letters as one word, DNA as one word, base64 as one line, and pages
of Chinese characters. Letters, digits and signs alternate in base64, so it splits into short words that hardly recur.
The vocabulary is learned from Python source of this machine and a third as much of such Chinese.

Contestants take turns as in benchmarks/tokenizer.py, which says what cold and warm are; the tokens must be equal. The
last line is all of it as JSON.
"""

import argparse
import base64
import json
import platform
import random
import tempfile
from pathlib import Path

import tokenizers
import torch

from benchmarks.machine import processor_name
from benchmarks.tokenizer import race_encoding
from modeling_scratch.tokenization_scratch import ScratchTokenizer
from training.corpus.curation.config import DataConfig
from training.corpus.curation.curation import Curation
from training.corpus.sources import PYTHON

LETTERS, BASES = "etaoinshrdlucmfwypvbgkjqxz", "ACGT"
CHARACTERS = [chr(code) for code in range(0x4E00, 0x4E00 + 3000)]
CHARACTER_WORDS = 20_000
PAGE = 2_000  # characters


def unspaced(size: int, seed: int) -> dict[str, list[str]]:
    """Texts of about `size` bytes, by their kind."""
    draw = random.Random(seed)
    return {
        "letters, one word": ["".join(draw.choices(LETTERS, k=size))],
        "DNA, one word": ["".join(draw.choices(BASES, k=size))],
        "base64, one line": [base64.b64encode(draw.randbytes(size * 3 // 4)).decode()],
        "Chinese characters": chinese(size, draw),
    }


def chinese(size: int, draw: random.Random) -> list[str]:
    """Pages of sentences of 4 to 12 words, which have 1 to 3 characters and are drawn by Zipf's law."""
    of_words = random.Random(0)  # the same in every text
    words = ["".join(of_words.choices(CHARACTERS, k=of_words.choice((1, 2, 2, 3)))) for _ in range(CHARACTER_WORDS)]
    weights = [1 / rank for rank in range(10, CHARACTER_WORDS + 10)]
    characters = "".join(
        word + ("" if draw.random() < 1 / 8 else "，。、；"[draw.randrange(4)] * (draw.random() < 1 / 7))
        for word in draw.choices(words, weights, k=size // 5)
    )
    return [characters[start : start + PAGE] for start in range(0, len(characters), PAGE)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=int, default=200_000, help="of each kind of text")
    parser.add_argument("--megabytes", type=float, default=3, help="of Python source to learn the vocabulary from")
    parser.add_argument("--merges", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus = Curation(DataConfig(path=PYTHON, max_bytes=round(arguments.megabytes * 1e6)), Path(folder)).run()
        texts = [document.text for document in corpus.documents("train")]
    texts += chinese(round(arguments.megabytes * 1e6 / 3), random.Random(1))
    ours = ScratchTokenizer.train(texts, len(ScratchTokenizer([])) + arguments.merges)
    figures = {}
    for kind, made in unspaced(arguments.bytes, seed=0).items():
        figures[kind] = race_encoding(made, ours, ours.to_backend, arguments.rounds)
        rates = ", ".join(f"{name} {rate:.2f}" for name, rate in figures[kind]["megabytes_per_second"].items())
        print(
            f"{kind:24}{rates} MB/s; the Rust library {figures[kind]['rust_times_as_fast_as_ours_cold']} times as fast"
        )
    conditions = vars(arguments) | {
        "processor": processor_name(torch.device("cpu")),
        "python": platform.python_version(),
        "tokenizers": tokenizers.__version__,
    }
    print(json.dumps({"benchmark": "unspaced", "conditions": conditions, "encoding": figures}))


if __name__ == "__main__":
    main()
