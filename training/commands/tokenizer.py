"""Train a tokenizer on text and save it as a folder that AutoTokenizer opens, or compare tokenizers.

scratch tokenizer --config recipes/quickstart/tokenizer.yaml
scratch tokenizer --compare FOLDER FOLDER [...] [--data.path FILE]

kind 'bpe' learns byte-level byte-pair encoding with the implementation in modeling_scratch/tokenization_scratch.py;
kind 'character' gives every character of the text a token of its own. --compare trains nothing: it takes tokenizer
or model folders, or names on the Hub, and prints bytes per token by kind of text; with --data.path also of your own.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from modeling_scratch.tokenization_base import SPECIAL_TOKENS
from modeling_scratch.tokenization_character import CharacterTokenizer
from modeling_scratch.tokenization_scratch import ScratchTokenizer
from training.common.progress import progress_bar
from training.common.recipe import option, parse, required
from training.common.stage import Stage
from training.corpus.curation.blocks import in_blocks
from training.corpus.curation.config import DataConfig
from training.corpus.curation.corpus import Corpus, corpus_digest, open_corpus
from training.corpus.curation.splitting import SPLITS, split_key
from training.corpus.sources import Document
from training.eval.measures.compression import compare, kinds_of_text
from training.model_io.tokenizers import open_tokenizer

SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)
BATCH_BYTES = 1_000_000  # of text encoded at once
COMPARED_BYTES = 5_000_000  # of the user's own text


@dataclass
class TokenizerConfig:
    output_dir: str = required("where the tokenizer goes")
    data: DataConfig = option(DataConfig, "the text")
    kind: Literal["bpe", "character"] = option("bpe", "bpe, or character: one token a character")
    vocab_size: int = option(4096, "bpe: tokens in all, the 256 bytes and the special tokens included")
    digits: Literal[1, 2, 3] = option(3, "bpe: digits a token holds at most; with 1, numbers line up digit by digit")
    whitespace: Literal["runs", "single"] = option(
        "runs", "bpe: runs (a line break with its indentation may be one token), or single: a token a character"
    )
    max_bytes: int | None = option(None, "bpe: how much of the training text to learn from; less is faster")
    model_max_length: int = option(1024, "tokens the model takes; transformers warns about longer texts")

    def __post_init__(self):
        if self.kind == "bpe" and self.vocab_size < SMALLEST_VOCABULARY:
            raise ValueError(
                f"'vocab_size' is at least {SMALLEST_VOCABULARY} "
                f"(256 bytes and {len(SPECIAL_TOKENS)} special tokens), not {self.vocab_size}"
            )
        for name in ("max_bytes", "model_max_length"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"'{name}' is a positive number, not {value}")


CONFIG = TokenizerConfig


def main(arguments: list[str]) -> None:
    if "--compare" in arguments:
        print_comparison(arguments)
        return
    config = parse(TokenizerConfig, arguments, __doc__)
    stage = Stage("tokenizer", config.output_dir, config, {"data": corpus_digest(config.data)}, arguments)
    if stage.is_current():
        return
    folder = stage.begin()
    work = folder / "work"  # what an interrupted run goes on from
    corpus = open_corpus(config.data, work)
    started = time.monotonic()
    if config.kind == "bpe":
        tokenizer = _train_bpe(corpus, config)
    else:  # the alphabet of all the text: a character seen only in validation must still have a token
        tokenizer = CharacterTokenizer.train(document.text for split in SPLITS for document in corpus.documents(split))
    seconds = time.monotonic() - started
    tokenizer.save(folder, config.model_max_length)

    # Through the saved folder: what every later stage will open.
    size, tokens = _count_tokens(AutoTokenizer.from_pretrained(folder), corpus.documents("validation"))
    shutil.rmtree(work, ignore_errors=True)  # there is none of the Python corpus
    print(
        f"tokenizer: {len(tokenizer)} tokens learnt in {seconds:.1f} s; "
        f"{size / tokens:.2f} bytes per token on {size / 1e6:.2f} MB of held-out text"
    )
    metrics = {
        "vocab_size": len(tokenizer),
        "bytes_per_token": round(size / tokens, 4),
        "validation_bytes": size,
        "seconds": round(seconds, 2),
    }
    stage.finish(metrics, wrote=f"{config.kind} tokenizer, {len(tokenizer)} tokens")


def print_comparison(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="scratch tokenizer", description=__doc__)
    parser.add_argument("--compare", nargs="+", metavar="FOLDER", help="tokenizer folders, or names on the Hub")
    parser.add_argument(
        "--data.path", dest="path", metavar="FILE", help="your own text: a file, folder or Hub data set"
    )
    parser.add_argument("--data.text_column", dest="text_column", default="text", help="the column that holds it")
    options = parser.parse_args(arguments)
    tokenizers = {name: open_tokenizer(name, "compare") for name in options.compare}
    kinds = {}
    if options.path:
        data = DataConfig(path=options.path, text_column=options.text_column, max_bytes=COMPARED_BYTES)
        with tempfile.TemporaryDirectory() as folder:
            corpus = open_corpus(data, Path(folder))
            kinds[options.path] = [document.text for split in SPLITS for document in corpus.documents(split)]
    print(compare(tokenizers, kinds_of_text() | kinds))


def _train_bpe(corpus: Corpus, config: TokenizerConfig) -> ScratchTokenizer:
    with progress_bar(total=config.vocab_size - SMALLEST_VOCABULARY, desc="learning merges", unit=" merges") as bar:

        def texts() -> Iterator[str]:
            yield from progress_bar(_sample(corpus, config), desc="counting words", unit=" documents", leave=False)
            bar.reset()  # its clock starts when the counting is over

        tokenizer = ScratchTokenizer.train(
            texts(),
            config.vocab_size,
            digits=config.digits,
            whitespace=config.whitespace,
            progress=lambda made: bar.update(),
        )
    if len(tokenizer) < config.vocab_size:
        print(
            f"tokenizer: the text fills {len(tokenizer)} tokens, not the {config.vocab_size} asked for: "
            "no pair of tokens occurs twice any more; give it more text, or a smaller vocab_size"
        )
    return tokenizer


def _sample(corpus: Corpus, config: TokenizerConfig) -> Iterator[str]:
    """Texts of at most `max_bytes` together, drawn from the whole corpus and not from its beginning."""
    if config.max_bytes is None:
        yield from (document.text for document in corpus.documents("train"))
        return
    keys, sizes = [], []
    for document in corpus.documents("train"):
        keys.append(split_key(config.data.seed, document.id))
        sizes.append(document.size)
    order = np.argsort(np.array(keys, dtype=np.uint64), kind="stable")
    before = np.zeros(len(order), dtype=np.int64)  # bytes of the documents drawn before each
    before[order[1:]] = np.cumsum(np.array(sizes)[order[:-1]])
    for document, used in zip(corpus.documents("train"), before.tolist(), strict=True):
        if used < config.max_bytes:
            yield document.text.encode()[: config.max_bytes - used].decode(errors="ignore")


def _count_tokens(tokenizer: PreTrainedTokenizerFast, documents: Iterable[Document]) -> tuple[int, int]:
    """Bytes and tokens of documents."""
    size = tokens = 0
    for batch in progress_bar(in_blocks(documents, BATCH_BYTES), desc="measuring", unit=" batches", leave=False):
        size += sum(document.size for document in batch)
        texts = [document.text for document in batch]
        encodings = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        tokens += sum(len(encoding) for encoding in encodings)
    return size, tokens
