"""Limits of a source: how many documents and bytes are taken, in all and of each group."""

from collections import Counter

import numpy as np

from training.corpus.sources import Document, SourceConfig

SMALLEST_GROUP_LIMIT = 10_000  # bytes that any group may fill: in a tiny corpus, a share is smaller than one file


class SourceLimits:
    """The points at which `max_documents` and `max_bytes` fall among the documents that passed the rules.

    Attributes:
        reached: whether there is nothing more to take.
        documents: within the limits so far.
        cut: bytes of the last of them that are within; None for all.
    """

    def __init__(self, source: SourceConfig):
        self.max_documents = source.max_documents
        self.max_bytes = source.max_bytes
        self.reached, self.documents, self.cut, self._bytes = False, 0, None, 0

    def add(self, sizes: np.ndarray) -> None:
        """Count the next documents, by their bytes."""
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


class GroupLimit:
    """`max_group_share`: skips documents of a group that has filled its share of `max_bytes`.

    Documents count as they are read, before the rules: so the decision needs no worker's answer, and rejected
    documents of a large group cost little.
    """

    def __init__(self, source: SourceConfig):
        share = source.group_share
        self.limit = None if share is None else max(share * source.max_bytes, SMALLEST_GROUP_LIMIT)
        self._of_group: Counter[str] = Counter()
        self._since: Counter[str] = Counter()

    def admits(self, document: Document) -> bool:
        """Whether the document still fits into its group's share; if so, count it."""
        if self.limit is None:
            return True
        if self._of_group[document.group] + document.size > self.limit:
            return False
        self._of_group[document.group] += document.size
        self._since[document.group] += document.size
        return True

    def take(self) -> dict[str, int]:
        """Bytes admitted of each group since the last call; `restore` takes them back."""
        since, self._since = self._since, Counter()
        return dict(since)

    def restore(self, since: dict[str, int]) -> None:
        """Count what an interrupted run had admitted."""
        self._of_group.update(since)
