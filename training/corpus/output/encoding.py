"""Encoding: text to tokens on disk, with the sources mixed by their shares."""

from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tokenizers import Tokenizer

from training.common.errors import UserError
from training.common.progress import progress_bar
from training.corpus.curation.blocks import in_blocks
from training.corpus.curation.config import DataConfig
from training.corpus.curation.corpus import Corpus
from training.corpus.curation.splitting import Split
from training.corpus.output.token_budget import choose, interleave, requested_shares, tokens_to_take
from training.corpus.sources import Document
from training.data.shards import open_shard, write_shard

_BATCH_BYTES = 2_000_000  # of text handed to the tokenizer at once

Written = tuple[dict[str, Any], np.ndarray]  # a shard's entry in the manifest; (documents,) the bytes of each


class Encoder:
    """A tokenizer for documents that encodes spelled-out control tokens as plain text.

    Args:
        folder: holds tokenizer.json.
        end: id of the token after every document.
        vocab_size: of the tokenizer, including its control tokens.
    """

    def __init__(self, folder: Path, end: int, vocab_size: int):
        self.folder, self.end, self.vocab_size = folder, end, vocab_size
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.unknown = self.tokenizer.token_to_id(getattr(self.tokenizer.model, "unk_token", None) or "")
        self.tokenizer.encode_special_tokens = True
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()

    def __reduce__(self) -> tuple:
        return type(self), (self.folder, self.end, self.vocab_size)  # a pickled tokenizer would lose its settings

    @property
    def name(self) -> str:
        return self.folder.name

    def write(self, folder: Path, name: str, documents: Iterable[Document], size: int | None = None) -> Written:
        """Write a shard of documents, `size` bytes in all; returns its entry in the manifest and the bytes of each.

        Characters that the tokenizer does not know count no bytes: a model is not asked which they are, so bits per
        byte are those of the other text. Prints how many bytes that is.
        """
        sizes, unknown = array("q"), 0
        with progress_bar(total=size, desc=f"tokenizing {name}", unit="B", unit_scale=True) as bar:

            def ids() -> Iterator[list[int]]:
                nonlocal unknown
                for batch in in_blocks(documents, _BATCH_BYTES):
                    encodings = self._encode([document.text for document in batch])
                    for document, encoding in zip(batch, encodings, strict=True):
                        lost = self._unknown_bytes(document.text) if self.unknown in encoding.ids else 0
                        sizes.append(document.size - lost)
                        unknown += lost
                        yield [*encoding.ids, self.end]
                    bar.update(sum(document.size for document in batch))

            entry = write_shard(folder, name, ids(), self.vocab_size, self.name)
        if unknown:
            print(
                f"prepare: {name}: {unknown:,} of {unknown + sum(sizes):,} bytes are characters that the tokenizer in "
                f"{self.folder} does not know; they become one token, and count no bytes in bits per byte"
            )
        return entry | {"bytes": sum(sizes)}, np.asarray(sizes)

    def size(self, ids: np.ndarray) -> int:
        """Bytes of the text that some tokens encode, without unknown characters."""
        known = [index for index in ids.tolist() if index != self.unknown]
        return len(self.tokenizer.decode(known, skip_special_tokens=False).encode())

    def _unknown_bytes(self, text: str) -> int:
        """Bytes of the characters in a text that the tokenizer does not know."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        places = zip(encoding.ids, encoding.offsets, strict=True)
        return sum(len(text[start:end].encode()) for index, (start, end) in places if index == self.unknown)

    def _encode(self, texts: list[str]) -> list:
        try:
            return self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        except Exception as error:  # tokenizers raises no narrower class
            message = f"'tokenizer': {self.folder} cannot encode all of the text ({error}); train it on the same text"
            raise UserError(message) from None


class Writer(Protocol):
    """Writes a split, of one source or of all, as the shard `name` into a folder."""

    def __call__(self, folder: Path, name: str, split: Split, source: str | None = None) -> Written: ...


def encode_locally(corpus: Corpus, encoder: Encoder) -> Writer:
    """A writer that tokenizes in this process."""

    def write(folder: Path, name: str, split: Split, source: str | None = None) -> Written:
        return encoder.write(folder, name, corpus.documents(split, source), corpus.size(split, source))

    return write


def write_mixture(
    write: Writer, config: DataConfig, encoder: Encoder, folder: Path, work: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the training split of several sources, each spread evenly over the whole by its share.

    Args:
        work: folder for the tokens of each source.

    Returns:
        The split's entry in the manifest; and for each source its tokens, those taken, epochs, and both shares.
    """
    names, sources = list(config.sources), list(config.sources.values())
    parts, sizes = [], []
    for name in names:
        entry, of_each = write(work, name, "train", name)
        parts.append(open_shard(work / entry["file"], entry, encoder.vocab_size))
        sizes.append(of_each)
    available = np.array([len(part) for part in parts])
    requested_tokens = tokens_to_take(sources, available, config.temperature, config.max_tokens)
    lengths = [np.diff(part.document_ends, prepend=0) for part in parts]
    chosen, tokens_of = zip(*map(choose, lengths, requested_tokens.tolist(), [config.seed] * len(parts)), strict=True)
    order = interleave(tokens_of)
    size = 0

    def ids() -> Iterator[np.ndarray]:
        nonlocal size
        pairs = zip(*order, strict=True)
        for source, number in progress_bar(pairs, "mixing", len(order[0]), unit=" documents", unit_scale=True):
            document, count = chosen[source][number], tokens_of[source][number]
            start = parts[source].document_ends[document] - lengths[source][document]
            tokens = parts[source].tokens[start : start + count]
            if count == lengths[source][document]:
                size += int(sizes[source][document])
            else:
                tokens = np.append(tokens[:-1], encoder.end)  # a truncated document ends like any other
                size += encoder.size(tokens[:-1])
            yield tokens

    entry = write_shard(folder, "train", ids(), encoder.vocab_size, encoder.name)
    entry["bytes"] = size
    taken = [int(tokens.sum()) for tokens in tokens_of]
    requested = requested_shares(sources, available, config.temperature)
    shares = {
        name: {
            "tokens": int(available[index]),
            "taken": taken[index],
            "epochs": round(taken[index] / int(available[index]), 4),
            "share": round(taken[index] / sum(taken), 4),
            "requested": None if requested is None else round(float(requested[index]), 4),
        }
        for index, name in enumerate(names)
    }
    return entry, shares


def describe_shares(shares: dict[str, Any]) -> str:
    """The shares as a table for the terminal."""
    lines = [f"{'source':<20}{'tokens':>14}{'taken':>14}{'epochs':>8}{'share':>9}{'requested':>11}"]
    for name, row in shares.items():
        requested = "" if row["requested"] is None else f"{row['requested']:.2%}"
        lines.append(
            f"{name:<20}{row['tokens']:>14,}{row['taken']:>14,}{row['epochs']:>8.2f}{row['share']:>9.2%}{requested:>11}"
        )
    return "\n".join(lines)
