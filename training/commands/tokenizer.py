"""scratch tokenizer: train a tokenizer on text and save it as a folder that AutoTokenizer opens, compare tokenizers, or
show how one cuts a text.

    scratch tokenizer --config recipes/quickstart/tokenizer.yaml
    scratch tokenizer --compare FOLDER FOLDER [...] [--data.path FILE]
    scratch tokenizer --show TEXT --tokenizer FOLDER [--output tokens.png]

--kind bpe learns byte-level byte-pair encoding with the implementation in modeling_scratch/tokenization_scratch.py;
--kind character gives every character of the text its own token, and one token to all others. --compare trains nothing:
it takes tokenizer or model folders, or Hub names, and prints bytes per token by kind of text; with --data.path, for
your own text too. --show prints the words of a text, the merges inside each word with their ranks, and the tokens, and
draws them; it takes a tokenizer or model folder, a name on the Hub, or a tokenizer.json.
"""

import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from training.common.progress import progress_bar
from training.corpus.curation.blocks import in_blocks
from training.corpus.curation.config import DataConfig
from training.corpus.curation.splitting import SPLITS, split_key
from training.corpus.sources import Document
from training.stages.flags import has_flag, parse
from training.stages.recipe import PathText, option, required
from training.stages.stage import Stage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from modeling_scratch.tokenization_character import CharacterTokenizer
    from modeling_scratch.tokenization_scratch import ScratchTokenizer
    from training.corpus.curation.corpus import Corpus

SPECIAL_TOKENS = 8
SMALLEST_VOCABULARY = 256 + SPECIAL_TOKENS  # the bytes, and modeling_scratch.tokenization_base.SPECIAL_TOKENS
BATCH_BYTES = 1_000_000  # of text encoded at once
RUNTIME_KEYS = frozenset({"unknown"})  # without effect on bpe; `inputs` has it for kind character
COMPARED_BYTES = 5_000_000  # of the user's own text


@dataclass
class TokenizerConfig:
    """A recipe of `scratch tokenizer`."""

    output_dir: PathText = required("folder for the tokenizer")
    data: DataConfig = option(DataConfig, "text to learn from")
    kind: Literal["bpe", "character"] = option("bpe", "byte pairs (bpe), or one token per character")
    vocab_size: int = option(4096, "bpe: number of tokens, including the 256 bytes and the special tokens")
    digits: Literal[1, 2, 3] = option(3, "bpe: maximum digits per token; 1 splits numbers into single digits")
    whitespace: Literal["runs", "single"] = option(
        "runs", "bpe: runs (several spaces or line breaks may be one token), or single (one token per character)"
    )
    unknown: bool = option(
        True, "character: one token for all characters that the text does not have; without it, they are an error"
    )
    max_bytes: int | None = option(
        None, "bpe: bytes of training text to learn from (default: all); fewer bytes are faster", at_least=1
    )

    def __post_init__(self):
        if self.kind == "bpe" and self.vocab_size < SMALLEST_VOCABULARY:
            raise ValueError(
                f"'vocab_size' must be at least {SMALLEST_VOCABULARY} (256 bytes and {SPECIAL_TOKENS} special tokens), "
                f"not {self.vocab_size}"
            )


CONFIG = TokenizerConfig


@dataclass
class ComparedText:
    """Your own text for a comparison."""

    path: PathText | None = option(None, "file, folder or Hub dataset with your own text")
    text_column: str = option("text", "column that holds the text")


@dataclass
class CompareConfig:
    """Options of `scratch tokenizer --compare`."""

    compare: list[PathText] = required("tokenizer folders, or names on the Hub", several=True)
    data: ComparedText = option(ComparedText, "Your own text")


@dataclass
class ShowConfig:
    """Options of `scratch tokenizer --show`."""

    show: str = required("text to cut and merge")
    tokenizer: PathText = required("tokenizer folder, name on the Hub, or tokenizer.json")
    output: PathText = option("tokens.png", "image file to write: .png, .svg or .pdf")

    def __post_init__(self):
        output = Path(self.output)
        if output.suffix not in (".png", ".svg", ".pdf") or not output.absolute().parent.is_dir():
            raise ValueError(f"'output': {output} is not a .png, .svg or .pdf file in an existing folder")


def inputs(config: TokenizerConfig) -> dict[str, str]:
    """The digest of all that the documents are made from. Raises UserError: a file is missing."""
    from training.corpus.curation.fingerprint import corpus_digest

    of_kind = {"unknown": str(config.unknown)} if config.kind == "character" else {}
    return {"data": corpus_digest(config.data)} | of_kind


def main(arguments: list[str]) -> None:
    """Train a tokenizer, compare several (`--compare`), or show what one does to a text (`--show`).

    1. Read the recipe; skip everything if the output is up to date.
    2. Curate the text, so that validation text and evaluation items stay unseen.
    3. Learn the merges or the alphabet, and save.
    4. Open the saved folder as every later stage will, and measure bytes per token on the validation split.
    """
    if has_flag(arguments, "compare") and not has_flag(arguments, "help"):
        print_comparison(arguments)
        return
    if has_flag(arguments, "show") and not has_flag(arguments, "help"):
        show_merges(arguments)
        return
    config = parse(TokenizerConfig, arguments, __doc__)

    stage = Stage("tokenizer", config.output_dir, config, inputs(config), arguments, RUNTIME_KEYS)
    if stage.is_current():
        return

    from transformers import AutoTokenizer

    from training.corpus.curation.curation import Curation

    folder = stage.begin()
    corpus = Curation(config.data, folder / "work").run()  # an interrupted run resumes from there
    for line in (corpus.funnel.summary(), *corpus.split_notes()):
        print(f"tokenizer: {line}")
    started = time.monotonic()
    tokenizer = train_bpe(corpus, config) if config.kind == "bpe" else train_character(corpus, config)
    seconds = time.monotonic() - started
    tokenizer.save(folder)

    size, tokens = count_tokens(AutoTokenizer.from_pretrained(folder), corpus.documents("validation"))
    print(
        f"tokenizer: {len(tokenizer)} tokens learned in {seconds:.1f} s; "
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
    """Print bytes per token of several tokenizers, by kind of text."""
    config = parse(CompareConfig, arguments, __doc__, recipe=False)

    from training.corpus.curation.curation import Curation
    from training.eval.measures.compression import compare, kinds_of_text
    from training.model_io.tokenizers import open_tokenizer

    tokenizers = {name: open_tokenizer(name, "compare") for name in config.compare}
    kinds, text = {}, config.data
    if text.path:
        data = DataConfig(path=text.path, text_column=text.text_column, max_bytes=COMPARED_BYTES)
        with tempfile.TemporaryDirectory() as folder:
            corpus = Curation(data, Path(folder)).run()
            kinds[text.path] = [document.text for split in SPLITS for document in corpus.documents(split)]
    print(compare(tokenizers, kinds_of_text() | kinds))


def show_merges(arguments: list[str]) -> None:
    """Print and draw how a text is cut into words and merged into tokens."""
    config = parse(ShowConfig, arguments, __doc__, recipe=False)

    from training.model_io.token_merges import cut, describe, open_backend
    from training.plots.merges import draw_merges

    found = cut(open_backend(config.tokenizer, "tokenizer"), config.show)
    print(describe(found))
    if found.model != "BPE":
        print(f"tokenizer: {config.tokenizer} is a {found.model} model, which has no merges")
    draw_merges(Path(config.output), found, f"Tokens of {config.tokenizer}")
    print(f"tokenizer: wrote {config.output}")


def train_bpe(corpus: "Corpus", config: TokenizerConfig) -> "ScratchTokenizer":
    """Learn byte pairs from the training split; says if the text is too small for the vocabulary."""
    from modeling_scratch.tokenization_scratch import ScratchTokenizer

    with progress_bar(total=config.vocab_size - SMALLEST_VOCABULARY, desc="learning merges", unit=" merges") as bar:

        def texts() -> Iterator[str]:
            yield from progress_bar(sample(corpus, config), desc="counting words", unit=" documents", leave=False)
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
            f"tokenizer: learned {len(tokenizer)} tokens, not the {config.vocab_size} requested, because no "
            "further pair of tokens occurs twice; use more text, or a smaller vocab_size"
        )
    return tokenizer


def train_character(corpus: "Corpus", config: TokenizerConfig) -> "CharacterTokenizer":
    """The alphabet of both splits: a character seen only in validation must still have a token."""
    from modeling_scratch.tokenization_character import CharacterTokenizer

    texts = (document.text for split in SPLITS for document in corpus.documents(split))
    return CharacterTokenizer.train(texts, config.unknown)


def sample(corpus: "Corpus", config: TokenizerConfig) -> Iterator[str]:
    """Training texts of at most `max_bytes` together, drawn from the whole corpus and not from its beginning."""
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


def count_tokens(tokenizer: "PreTrainedTokenizerFast", documents: Iterable[Document]) -> tuple[int, int]:
    """Bytes and tokens of documents."""
    size = tokens = 0
    for batch in progress_bar(in_blocks(documents, BATCH_BYTES), desc="measuring", unit=" batches", leave=False):
        size += sum(document.size for document in batch)
        texts = [document.text for document in batch]
        encodings = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        tokens += sum(len(encoding) for encoding in encodings)
    return size, tokens
