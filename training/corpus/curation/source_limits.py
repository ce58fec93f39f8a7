"""How much of a source is taken."""

import numpy as np

from training.corpus.sources import SourceConfig


class Limits:
    """Where `max_documents` and `max_bytes` of a source fall among the documents that passed the rules.

    Attributes:
        reached: whether there is nothing more to take.
        documents: within the limits so far.
        cut: bytes of the last of them that are; None for all.
    """

    def __init__(self, source: SourceConfig):
        self.max_documents = source.max_documents
        self.max_bytes = source.max_bytes
        self.reached, self.documents, self.cut, self._bytes = False, 0, None, 0

    def add(self, sizes: np.ndarray) -> None:
        """The next documents, by their bytes."""
        ends = self._bytes + np.cumsum(sizes)
        count = len(sizes)
        if self.max_bytes and count and ends[-1] >= self.max_bytes:
            self.reached, count = True, int(np.searchsorted(ends, self.max_bytes)) + 1
        if self.max_documents and self.documents + count >= self.max_documents:
            self.reached, count = True, self.max_documents - self.documents
        if count:
            self._bytes = int(ends[count - 1])
            if self.max_bytes and self._bytes > self.max_bytes:
                self.cut = int(sizes[count - 1]) - (self._bytes - self.max_bytes)
        self.documents += count
