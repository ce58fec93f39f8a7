"""Batches as a pure function of (seed, step).

The documents of a split are packed in rows of `sequence_length` predictions. An epoch visits the rows in a seeded
random order, and a mixture takes turns between its members; which rows make up step n follows from the seed and n
alone. Resuming is therefore exact and costs nothing, and the order does not depend on how many processes share the
batch.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from training.common.errors import UserError
from training.data.curriculum import Curriculum
from training.data.mixture import Mixture
from training.data.packing import PACKINGS, Packing
from training.data.shards import open_shards


class Batch(NamedTuple):
    """Rows as the model takes them."""

    input_ids: torch.LongTensor  # (rows, seq)
    labels: torch.LongTensor  # (rows, seq), shifted already: the token after each input; -100 is not scored
    position_ids: torch.LongTensor | None  # (rows, seq), from 0 in each document; None where attention crosses them

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(None if tensor is None else tensor.to(device) for tensor in self))


class TokenLoader:
    """Rows by step.

    A row has a number of its own over all members of the mixture: those of the first member come first.

    Args:
        mixture: of the members.
        packings: the packed split of each member, in the order of `mixture.folders`.
        global_batch_size: rows per optimizer step, over all processes and accumulation steps.
        seed: of the order.
        document_mask: whether batches carry positions that restart at each document; a model that gets them without an
            attention mask and without a cache keeps attention inside documents.

    Raises:
        UserError: a member holds fewer tokens than its share of one batch.
    """

    def __init__(
        self,
        mixture: Mixture | Curriculum,
        packings: list[Packing],
        global_batch_size: int,
        seed: int,
        document_mask: bool = False,
    ):
        self.mixture, self.packings = mixture, packings
        self.global_batch_size, self.seed, self.document_mask = global_batch_size, seed, document_mask
        for folder, packing, rows in zip(mixture.folders, packings, mixture.most(global_batch_size), strict=True):
            if packing.num_rows < rows:
                single = len(packings) == 1
                batch = "one batch of" if single else "its share of one batch,"
                raise UserError(
                    f"'data': {folder}: the split holds {len(packing.tokens):,} tokens, less than {batch} {rows} x "
                    f"{packing.sequence_length}; give more text or lower {'' if single else 'its weight, '}"
                    "global_batch_size or sequence_length"
                )
        num_rows = [packing.num_rows for packing in packings]
        self._first_row = np.cumsum(num_rows) - num_rows  # (members,)
        self._order = lru_cache(maxsize=2 * len(packings))(self._order_of_epoch)

    @classmethod
    def open(
        cls,
        mixture: Mixture | Curriculum,
        split: str,
        packing: str,
        sequence_length: int,
        global_batch_size: int,
        seed: int,
        document_mask: bool,
    ) -> "TokenLoader":
        """The loader of a split of every member. Raises UserError: shards missing or damaged, or too few tokens."""
        packings = [PACKINGS[packing](open_shards(folder, split), sequence_length) for folder in mixture.folders]
        return cls(mixture, packings, global_batch_size, seed, document_mask)

    @property
    def num_tokens(self) -> int:
        """Stored tokens of all members."""
        return sum(len(packing.tokens) for packing in self.packings)

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text behind a token, on average over a run."""
        ratios = [packing.text_bytes / len(packing.tokens) for packing in self.packings]
        return float(self.mixture.shares @ ratios)

    @property
    def utilisation(self) -> float:
        """Share of the slots of a run that are scored."""
        return float(self.mixture.shares @ [packing.utilisation for packing in self.packings])

    def windows(self, step: int) -> np.ndarray:
        """The numbers of the rows of one step, (global_batch_size,)."""
        members, numbers = self.mixture.locate(
            np.arange(step * self.global_batch_size, (step + 1) * self.global_batch_size)
        )
        rows = np.empty_like(numbers)
        for member in np.unique(members):
            epochs, offsets = np.divmod(numbers, self.packings[member].num_rows)
            for epoch in np.unique(epochs[members == member]):
                now = (members == member) & (epochs == epoch)
                rows[now] = self._first_row[member] + self._order(int(member), int(epoch))[offsets[now]]
        return rows

    def num_predictions(self, rows: np.ndarray) -> int:
        """How many labels of these rows are scored."""
        members = self._by_member(rows)
        return sum(int(self.packings[member].predictions(rows).sum()) for member, _, rows in members)

    def read(self, rows: np.ndarray) -> Batch:
        """The rows of the given numbers."""
        columns = np.empty((3, len(rows), self.packings[0].sequence_length), dtype=np.int64)
        for member, places, own_rows in self._by_member(rows):
            columns[:, places] = self.packings[member].read(own_rows)
        input_ids, labels, position_ids = torch.from_numpy(columns)
        return Batch(input_ids, labels, position_ids if self.document_mask else None)

    def documents(self, rows: np.ndarray) -> dict[str, list[int]]:
        """The documents in these rows, by folder: their numbers in the split."""
        return {
            self.mixture.folders[member]: self.packings[member].documents(own_rows)
            for member, _, own_rows in self._by_member(rows)
        }

    def spread(self, count: int) -> list[np.ndarray]:
        """About `count` rows, each member's evenly over its split and in its share, at least one: (rows,) a member."""
        chosen = []
        wished = np.rint(count * self.mixture.shares).astype(np.int64)
        for first, packing, rows in zip(self._first_row, self.packings, np.maximum(wished, 1), strict=True):
            rows = min(rows, packing.num_rows)
            chosen.append(first + np.arange(rows) * (packing.num_rows - 1) // max(rows - 1, 1))
        return chosen

    def describe(self, steps: int) -> str:
        """A line for each member: its share of a run of so many steps as wished and as it comes out, and its epochs."""
        total = steps * self.global_batch_size
        counts = self.mixture.counts(total)
        return "\n".join(
            f"    {folder}: {share:.2%} of the sequences wished, {count / total:.2%} in this run, "
            f"{count / packing.num_rows:.2f} epochs of {len(packing.tokens) / 1e6:.1f}M tokens"
            for folder, share, count, packing in zip(
                self.mixture.folders, self.mixture.shares, counts, self.packings, strict=True
            )
        )

    def _by_member(self, rows: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Members, their places among the rows given, and these rows in their own numbers."""
        members = np.searchsorted(self._first_row, rows, side="right") - 1
        return [
            (int(member), members == member, rows[members == member] - self._first_row[member])
            for member in np.unique(members)
        ]

    def _order_of_epoch(self, member: int, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch, member)).permutation(self.packings[member].num_rows)
