"""Repeated lines, which occur in many documents: navigation, cookie notices, footers.

After CCNet (Wenzek et al. 2019, arXiv 1911.00359), which drops paragraphs that were seen before, and RefinedWeb
(Penedo et al. 2023, arXiv 2306.01116). Two lines are the same if they are in lower case, with digits as zeros and
punctuation and whitespace removed, as there. A line of at least `min_characters` (so counted) in more than
`max_documents` documents is kept in the first of these and dropped from all others. For prose and web pages: in source
code such lines are imports and licence headers, and a file without them is broken.

The steps: `line_hashes` of every document; `repeated_lines` over all of them, through files on disk, so that memory
is bounded; `RepeatedLines.prune` of every document.
"""

import hashlib
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.stages.recipe import option

_OUT = re.compile(r"[\W_]+")
_DIGIT = re.compile(r"\d")
_PREFIX = 8  # bits of a hash that select its file
_SEEN = np.dtype([("line", np.uint64), ("document", np.uint32)])


@dataclass
class LinesConfig:
    """Repeated lines, which only the first document keeps."""

    max_documents: int = option(10, "documents in which a line may occur before it counts as repeated", at_least=1)
    min_characters: int = option(30, "minimum letters and digits of a line to be compared", at_least=1)


def line_hashes(text: str, config: LinesConfig) -> np.ndarray:
    """Hashes of a document's long lines, each once, sorted.  # (lines,) uint64"""
    hashes = {_hash(line, config.min_characters) for line in text.split("\n")} - {None}
    return np.array(sorted(hashes), np.uint64)


def repeated_lines(documents: Iterable[np.ndarray], config: LinesConfig, folder: Path) -> "RepeatedLines":
    """The lines that too many documents have.

    Takes 12 bytes of disk a line of a document, and memory for a 256th of that at a time.

    Args:
        documents: the `line_hashes` of every document, in the order of the documents.
        folder: where files for the time of the call may be written.
    """
    lines, firsts = [], []
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        parts = [Path(temporary) / str(number) for number in range(1 << _PREFIX)]
        for batch in _batches(documents):
            batch = batch[np.argsort(batch["line"], kind="stable")]
            borders = np.searchsorted(batch["line"] >> np.uint64(64 - _PREFIX), np.arange(1, 1 << _PREFIX))
            for path, piece in zip(parts, np.split(batch, borders), strict=True):
                with path.open("ab") as stream:
                    stream.write(piece.tobytes())
        for path in parts:
            seen = np.frombuffer(path.read_bytes(), _SEEN) if path.exists() else np.empty(0, _SEEN)
            seen = seen[np.argsort(seen["line"], kind="stable")]  # among equal lines, the first document comes first
            starts = np.flatnonzero(np.diff(seen["line"], prepend=~seen["line"][:1]))
            often = starts[np.diff(starts, append=len(seen)) > config.max_documents]
            lines.append(seen["line"][often])
            firsts.append(seen["document"][often])
    return RepeatedLines(np.concatenate(lines), np.concatenate(firsts), config.min_characters)


@dataclass
class RepeatedLines:
    """Lines that only the first document with them keeps.

    Attributes:
        lines: (lines,) uint64, their hashes, ascending; may be a memory-mapped file, as `firsts`.
        firsts: (lines,) uint32, the number of that document.
    """

    lines: np.ndarray
    firsts: np.ndarray
    min_characters: int

    def prune(self, text: str, document: int) -> str:
        """A document's text without the lines that an earlier one keeps. `document` is its number."""
        lines = text.split("\n")
        hashes = [_hash(line, self.min_characters) for line in lines]
        places = [place for place, key in enumerate(hashes) if key is not None]
        if not places or not len(self.lines):
            return text
        keys = np.array([hashes[place] for place in places], np.uint64)
        found = np.minimum(np.searchsorted(self.lines, keys), len(self.lines) - 1)
        elsewhere = (self.lines[found] == keys) & (self.firsts[found] != document)
        gone = set(np.array(places)[elsewhere].tolist())
        return "\n".join(line for place, line in enumerate(lines) if place not in gone)


def _hash(line: str, min_characters: int) -> int | None:
    """The hash of a line; None if it is too short."""
    if len(line) < min_characters:
        return None
    letters = _DIGIT.sub("0", _OUT.sub("", line.lower()))
    if len(letters) < min_characters:
        return None
    return int.from_bytes(hashlib.blake2b(letters.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _batches(documents: Iterable[np.ndarray], size: int = 4_000_000) -> Iterable[np.ndarray]:
    """Records of lines and their document's number, about `size` at a time."""
    records, count = [], 0
    for number, hashes in enumerate(documents):
        record = np.empty(len(hashes), _SEEN)
        record["line"], record["document"] = hashes, number
        records.append(record)
        count += len(record)
        if count >= size:
            yield np.concatenate(records)
            records, count = [], 0
    if records:
        yield np.concatenate(records)
