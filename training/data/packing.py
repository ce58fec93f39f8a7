"""Packing: documents into sequences of equal length, and which stored tokens each sequence predicts.

A sequence has `sequence_length` slots. A slot reads the stored token before the one that it predicts, so a document of
m tokens, its end-of-text token included, takes m slots. The first of them reads the end of the document before. For the
very first document, that is the last end-of-text token of the split. Nothing is copied: a packing is a plan of a few
numbers a document, and reading a sequence from the shards is arithmetic.
"""

from abc import ABC, abstractmethod
from bisect import bisect_left, insort
from typing import NamedTuple

import numpy as np

from modeling_scratch.loss_scratch import IGNORE_INDEX
from training.data.shards import TokenShards

PADDING = -1  # instead of a document's number


class Pieces(NamedTuple):
    """The pieces of documents in some sequences, in order of sequences and slots. Pieces fill each sequence exactly."""

    document: np.ndarray  # (pieces,) number in the split, or PADDING
    start: np.ndarray  # (pieces,) the first stored token that the piece predicts; any number for padding
    length: np.ndarray  # (pieces,) slots


class Packing(ABC):
    """A split packed into sequences.

    Attributes:
        num_sequences: sequences per epoch.
        num_predictions: scored labels per epoch.
    """

    num_sequences: int
    num_predictions: int

    def __init__(self, shards: TokenShards, sequence_length: int):
        self.tokens = shards.tokens
        self.document_ends = shards.document_ends
        self.text_bytes = shards.text_bytes
        self.sequence_length = sequence_length

    @abstractmethod
    def pieces(self, sequences: np.ndarray) -> Pieces:
        """Pieces of documents in the sequences with these numbers, (sequences,)."""

    @abstractmethod
    def predictions(self, sequences: np.ndarray) -> np.ndarray:
        """Numbers of scored slots of each sequence, (sequences,)."""

    @property
    def utilisation(self) -> float:
        """Share of the slots that are scored."""
        return self.num_predictions / (self.num_sequences * self.sequence_length)

    def read(self, sequences: np.ndarray) -> np.ndarray:
        """Inputs, labels and positions of the sequences, (3, sequences, sequence_length) int64.

        Padding reads an end of text and has IGNORE_INDEX as labels. Positions count from 0 in each piece of a document,
        and in the padding.
        """
        document, start, length = self.pieces(sequences)
        first = np.cumsum(length) - length  # slot, counted over all the sequences, at which a piece begins
        position = np.arange(len(sequences) * self.sequence_length) - np.repeat(first, length)
        at = np.repeat(start, length) + position
        padding = np.repeat(document == PADDING, length)
        at[padding] = 0
        labels = self.tokens[at].astype(np.int64)
        labels[padding] = IGNORE_INDEX
        input_ids = self.tokens[at - 1]  # index -1, before the first token, is the last one: an end of text
        return np.stack([input_ids, labels, position]).reshape(3, len(sequences), self.sequence_length)

    def documents(self, sequences: np.ndarray) -> list[int]:
        """Numbers of the documents in the sequences, each once, in order."""
        found = np.unique(self.pieces(sequences).document)
        return found[found != PADDING].tolist()


class StreamPacking(Packing):
    """The split as one stream, cut wherever a sequence is full.

    The first token and a rest that does not fill a sequence, together at most one sequence, are not predicted.
    """

    def __init__(self, shards: TokenShards, sequence_length: int):
        super().__init__(shards, sequence_length)
        self.num_sequences = (len(self.tokens) - 1) // sequence_length
        self.num_predictions = self.num_sequences * sequence_length

    def pieces(self, sequences: np.ndarray) -> Pieces:
        start = sequences * self.sequence_length + 1
        stop = start + self.sequence_length
        first = np.searchsorted(self.document_ends, start, side="right")
        last = np.searchsorted(self.document_ends, stop - 1, side="right")
        sequence, document = _ranges(first, last - first + 1)
        start = np.maximum(start[sequence], _before(self.document_ends, document))
        return Pieces(document, start, np.minimum(stop[sequence], self.document_ends[document]) - start)

    def predictions(self, sequences: np.ndarray) -> np.ndarray:
        return np.full(len(sequences), self.sequence_length)


class BestFitPacking(Packing):
    """Every document in as few sequences as its length allows, and no token left out.

    A document longer than a sequence is cut into whole sequences and a remainder; remainders and short documents share
    sequences by best-fit decreasing ("Fewer Truncations Improve Language Modeling", https://arxiv.org/abs/2404.10830).
    """

    def __init__(self, shards: TokenShards, sequence_length: int):
        super().__init__(shards, sequence_length)
        whole, remainder = np.divmod(np.diff(self.document_ends, prepend=0), sequence_length)
        self._whole_ends = np.cumsum(whole)  # (documents,) whole sequences up to the end of each document
        # Numbers up to 16 bits wide are sorted in linear time.
        remainder = remainder.astype(np.min_scalar_type(sequence_length))
        self._by_remainder = np.argsort(remainder, kind="stable")  # (documents,)
        histogram = np.bincount(remainder, minlength=sequence_length + 1)
        unused = (np.cumsum(histogram) - histogram).tolist()  # by remainder: the next place in _by_remainder

        # Group 0 are the whole sequences, the others groups of sequences with pieces of the same lengths. Piece p of
        # sequence r of a group is the remainder of document `_by_remainder[place[p] + stride[p] * r]`.
        sequences, padding, pieces, num_pieces = [int(whole.sum())], [0], [(sequence_length, 0, 0)], [1]
        for count, space, composition in best_fit_decreasing(histogram, sequence_length):
            before = len(pieces)
            for length, copies in composition.items():
                pieces += [(length, unused[length] + copy, copies) for copy in range(copies)]
                unused[length] += count * copies
            if space:
                pieces.append((space, PADDING, 0))
            sequences.append(count)
            padding.append(space)
            num_pieces.append(len(pieces) - before)
        self._length, self._place, self._stride = np.array(pieces).T
        self._num_pieces = np.array(num_pieces)
        self._first_piece = np.cumsum(num_pieces) - num_pieces
        self._first_sequence = np.cumsum(sequences) - sequences
        self._padding = np.array(padding)
        self.num_sequences = sum(sequences)
        self.num_predictions = len(self.tokens)

    def pieces(self, sequences: np.ndarray) -> Pieces:
        group = self._group(sequences)
        sequence, piece = _ranges(self._first_piece[group], self._num_pieces[group])
        number = (sequences - self._first_sequence[group])[sequence]  # of the sequence, within its group
        group = group[sequence]
        length, place = self._length[piece], self._place[piece]
        document = self._by_remainder[place + self._stride[piece] * number]
        start = self.document_ends[document] - length
        whole = group == 0
        long = np.searchsorted(self._whole_ends, number[whole], side="right")
        sequences_before = number[whole] - _before(self._whole_ends, long)
        document[whole] = long
        start[whole] = _before(self.document_ends, long) + sequences_before * self.sequence_length
        document[place == PADDING] = PADDING
        return Pieces(document, start, length)

    def predictions(self, sequences: np.ndarray) -> np.ndarray:
        return self.sequence_length - self._padding[self._group(sequences)]

    def _group(self, sequences: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._first_sequence, sequences, side="right") - 1


PACKINGS = {"stream": StreamPacking, "best_fit": BestFitPacking}


def best_fit_decreasing(histogram: np.ndarray, capacity: int) -> list[tuple[int, int, dict[int, int]]]:
    """Pieces into bins, the longest first, each into the fullest bin that has room for it.

    Bins with the same contents are one group with a count, so that the cost depends on the capacity and not on the
    number of pieces: "Efficient Sequence Packing without Cross-contamination", https://arxiv.org/abs/2107.02027.

    Args:
        histogram: (capacity + 1,) how many pieces there are of each length; those of length 0 need no bin.

    Returns:
        Groups of bins: how many bins, the room left in each, and how many pieces of each length are in it.
    """
    groups: dict[int, list[tuple[int, dict[int, int]]]] = {}  # by the room left
    spaces: list[int] = []  # the keys of `groups` in order

    def put(count: int, space: int, composition: dict[int, int]) -> None:
        if count and space not in groups:
            groups[space] = []
            insort(spaces, space)
        if count:
            groups[space].append((count, composition))

    for length in range(capacity, 0, -1):
        pieces = int(histogram[length])
        while pieces:
            fullest = bisect_left(spaces, length)
            if fullest < len(spaces):
                space = spaces[fullest]
                count, composition = groups[space].pop()
                if not groups[space]:
                    del groups[spaces.pop(fullest)]
            else:
                space, composition = capacity, {}
                count = -(-pieces // (capacity // length))
            # The fullest bin with room stays the fullest until it has none: bins are filled one after the other.
            copies = space // length
            filled = min(count, pieces // copies)
            put(filled, space - copies * length, composition | {length: copies})
            pieces -= filled * copies
            if filled < count:  # fewer pieces are left than one more bin would take
                last = min(pieces, 1)
                put(last, space - pieces * length, composition | {length: pieces})
                put(count - filled - last, space, composition)
                pieces = 0
    return [(count, space, composition) for space in spaces for count, composition in groups[space]]


def _before(ends: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Start positions of the items with these numbers, from the end positions of all items."""
    return np.where(numbers > 0, ends[numbers - 1], 0)


def _ranges(first: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The range that each number comes from, and the numbers of several ranges as one array."""
    owner = np.repeat(np.arange(len(first)), count)
    return owner, np.arange(len(owner)) + (first - np.cumsum(count) + count)[owner]
