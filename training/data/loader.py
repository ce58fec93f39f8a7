"""The token loader: batches as a pure function of (seed, step).

The documents of a split are packed into sequences of `sequence_length` predictions. An epoch visits the sequences in a
seeded random order, and a mixture alternates between its members. The seed and the step alone decide which sequences a
step has, so resuming is exact and free, and the order does not depend on the number of processes.

    step        optimizer steps, from 0; each has `global_batch_size` sequences over all processes
    place       number of a sequence in the run: step n has the places from n * global_batch_size on
    member      one folder of shards of the mixture, by its number in `mixture.folders`
    sequence    number of a sequence over all members, those of the first member first: a *sequence id*
    document    number of a document in its split
    slot        position in a sequence, from 0 to sequence_length - 1; a slot reads one token and predicts the next
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
    """Sequences in the form that the model takes."""

    input_ids: torch.LongTensor  # (sequences, seq)
    labels: torch.LongTensor  # (sequences, seq), already shifted: the token after each input; -100 is not scored
    position_ids: torch.LongTensor | None  # (sequences, seq), from 0 in each document; None if attention crosses them

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(None if tensor is None else tensor.to(device) for tensor in self))


class TokenLoader:
    """Sequences by step.

    Args:
        mixture: decides the member of each sequence of the run.
        packings: the packed split of each member, in the order of `mixture.folders`.
        global_batch_size: sequences per optimizer step, over all processes and accumulation steps.
        seed: seed of the order.
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
        for folder, packing, sequences in zip(mixture.folders, packings, mixture.most(global_batch_size), strict=True):
            if packing.num_sequences < sequences:
                single = len(packings) == 1
                batch = "one batch of" if single else "its share of one batch,"
                remedy = "lower" if single else "lower its weight,"
                raise UserError(
                    f"'data': {folder}: the split holds {len(packing.tokens):,} tokens, fewer than {batch} "
                    f"{sequences} x {packing.sequence_length}; give more text or {remedy} "
                    "global_batch_size or sequence_length"
                )
        num_sequences = [packing.num_sequences for packing in packings]
        self._first_sequence = np.cumsum(num_sequences) - num_sequences  # (members,)
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
        """Open a split of every member. Raises UserError: shards missing or damaged, or too few tokens."""
        packings = [PACKINGS[packing](open_shards(folder, split), sequence_length) for folder in mixture.folders]
        return cls(mixture, packings, global_batch_size, seed, document_mask)

    @property
    def num_tokens(self) -> int:
        """Stored tokens of all members."""
        return sum(len(packing.tokens) for packing in self.packings)

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text per token, on average over a run."""
        ratios = [packing.text_bytes / len(packing.tokens) for packing in self.packings]
        return float(self.mixture.shares @ ratios)

    @property
    def utilisation(self) -> float:
        """Share of the slots of a run that are scored."""
        return float(self.mixture.shares @ [packing.utilisation for packing in self.packings])

    def sequence_ids(self, step: int) -> np.ndarray:
        """Ids of the sequences of one step, (global_batch_size,)."""
        members, numbers = self.mixture.locate(
            np.arange(step * self.global_batch_size, (step + 1) * self.global_batch_size)
        )
        sequences = np.empty_like(numbers)
        for member in np.unique(members):
            epochs, offsets = np.divmod(numbers, self.packings[member].num_sequences)
            for epoch in np.unique(epochs[members == member]):
                now = (members == member) & (epochs == epoch)
                sequences[now] = self._first_sequence[member] + self._order(int(member), int(epoch))[offsets[now]]
        return sequences

    def num_predictions(self, sequences: np.ndarray) -> int:
        """Number of scored labels of these sequences."""
        members = self._by_member(sequences)
        return sum(int(self.packings[member].predictions(sequences).sum()) for member, _, sequences in members)

    def read(self, sequences: np.ndarray) -> Batch:
        """Read the sequences with these ids."""
        columns = np.empty((3, len(sequences), self.packings[0].sequence_length), dtype=np.int64)
        for member, places, own_sequences in self._by_member(sequences):
            columns[:, places] = self.packings[member].read(own_sequences)
        input_ids, labels, position_ids = torch.from_numpy(columns)
        return Batch(input_ids, labels, position_ids if self.document_mask else None)

    def documents(self, sequences: np.ndarray) -> dict[str, list[int]]:
        """Numbers of the documents in these sequences, by folder."""
        return {
            self.mixture.folders[member]: self.packings[member].documents(own_sequences)
            for member, _, own_sequences in self._by_member(sequences)
        }

    def evenly_spaced(self, count: int) -> list[np.ndarray]:
        """About `count` sequence ids by share, evenly spaced over each member's split, at least one per member.

        Returns:
            For each member: (sequences,) ids.
        """
        chosen = []
        requested = np.maximum(np.rint(count * self.mixture.shares).astype(np.int64), 1)
        for first, packing, sequences in zip(self._first_sequence, self.packings, requested, strict=True):
            sequences = min(sequences, packing.num_sequences)
            chosen.append(first + np.arange(sequences) * (packing.num_sequences - 1) // max(sequences - 1, 1))
        return chosen

    def describe(self, steps: int) -> str:
        """A line for each member: its requested and its actual share of a run of `steps` steps, and its epochs."""
        total = steps * self.global_batch_size
        counts = self.mixture.counts(total)
        return "\n".join(
            f"    {folder}: {share:.2%} of the sequences requested, {count / total:.2%} in this run, "
            f"{count / packing.num_sequences:.2f} epochs of {len(packing.tokens) / 1e6:.1f}M tokens"
            for folder, share, count, packing in zip(
                self.mixture.folders, self.mixture.shares, counts, self.packings, strict=True
            )
        )

    def _by_member(self, sequences: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Members, a mask of their sequences among those given, and the numbers of these in the member's own split."""
        members = np.searchsorted(self._first_sequence, sequences, side="right") - 1
        return [
            (int(member), members == member, sequences[members == member] - self._first_sequence[member])
            for member in np.unique(members)
        ]

    def _order_of_epoch(self, member: int, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch, member)).permutation(self.packings[member].num_sequences)
