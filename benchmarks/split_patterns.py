"""Bytes per token of vocabularies that differ in the pattern that splits text into words.

    python -m benchmarks.split_patterns --data books=books.jsonl.gz chat=dolly.jsonl:response

For each pattern one vocabulary is learned, from the Python source on this machine and the same number of megabytes of
each file of `--data`. Bytes per token are measured on held-out text. The last line is all of it as JSON.
"""

import argparse
import json
import tempfile
from pathlib import Path

from tokenizers import Regex, decoders, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from benchmarks.tokenizer import train_rust
from modeling_scratch.tokenization_scratch import split_pattern
from training.corpus.curation.config import DataConfig
from training.corpus.curation.curation import Curation
from training.corpus.curation.splitting import SPLITS
from training.corpus.sources import PYTHON
from training.eval.measures.compression import kinds_of_text, measure

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = split_pattern()
# By the name of llama.cpp, where it knows the pattern: the regular expressions, applied one after another.
PATTERNS = {
    "llama-bpe: `digits: 3`": [_LLAMA3],
    "qwen2: `digits: 1`": [split_pattern(digits=1)],
    "qwen35": [split_pattern(digits=1).replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"[^\s\p{L}", r"[^\s\p{L}\p{M}")],
    "gpt-2": [_GPT2],
    "smollm": [r"\p{N}", _GPT2],
    "none: line break with indentation": [rf"\s*[\r\n]\s*|{_LLAMA3}"],
    "none: `whitespace: single`": [split_pattern(whitespace="single")],
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", default=[], metavar="NAME=FILE[:COLUMN]", help="further text")
    parser.add_argument("--megabytes", type=float, default=2, help="of each kind of text to learn from")
    parser.add_argument("--vocab-size", type=int, default=4096)
    return parser.parse_args()


def read(path: str, column: str, megabytes: float) -> tuple[list[str], list[str]]:
    """Texts to learn from, and a twentieth of them that is held out."""
    config = DataConfig(path=path, text_column=column, max_bytes=round(megabytes * 1e6), validation_fraction=0.05)
    with tempfile.TemporaryDirectory() as folder:
        corpus = Curation(config, Path(folder)).run()
        train, held_out = ([document.text for document in corpus.documents(split)] for split in SPLITS)
    return train, held_out


def learn(patterns: list[str], texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    pre_tokenizer = pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(False, use_regex=False)])
    backend = train_rust(texts, vocab_size, pre_tokenizer)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def main() -> None:
    arguments = parse_arguments()
    texts, _ = read(PYTHON, "text", arguments.megabytes)
    kinds = kinds_of_text()
    for data in arguments.data:
        name, _, place = data.partition("=")
        path, _, column = place.partition(":")
        train, kinds[name] = read(path, column or "text", arguments.megabytes)
        texts += train
    figures = {}
    for name, patterns in PATTERNS.items():
        tokenizer = learn(patterns, texts, arguments.vocab_size)
        figures[name] = {kind: round(measure(tokenizer, held_out)[0], 3) for kind, held_out in kinds.items()}
    print(f"bytes per token; {len(PATTERNS)} vocabularies of {arguments.vocab_size:,} tokens\n")
    print(f"| kind of text | {' | '.join(figures)} |\n|---{'|---' * len(figures)}|")
    for kind in kinds:
        print(f"| {kind} | {' | '.join(f'{figures[name][kind]:.3f}' for name in figures)} |")
    print()
    print(json.dumps({"benchmark": "split_patterns", "conditions": vars(arguments), "bytes_per_token": figures}))


if __name__ == "__main__":
    main()
