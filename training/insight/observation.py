"""Forward passes over sequences: the measures of all heads, the loss of every token, and what is drawn."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from modeling_scratch.loss_scratch import IGNORE_INDEX
from training.data.loader import Batch
from training.insight.attention import Attention, seen_attention
from training.insight.measures import head_sums
from training.insight.record import as_stored

TOKENS_AT_ONCE = 1024  # in a forward pass, so that the logits of a large vocabulary fit into memory


@dataclass(frozen=True)
class Observation:
    """Measures, losses and maps of a model on some sequences.

    Attributes:
        measures: means over all sequences, (measures, layers, heads), in the order of `OF_ATTENTION`; NaN for a measure
            that no place has.
        losses: of the token after each one, (sequences, seq) in nats; NaN where it is not scored.
        correct: whether it is the most probable one, (sequences, seq).
        drawn: for each drawn sequence its attention, queries, keys and values, as in `Snapshot`.
        modules: the attention of each layer.
    """

    measures: np.ndarray
    losses: np.ndarray
    correct: np.ndarray
    drawn: list[tuple[np.ndarray, ...]]
    modules: list[nn.Module]


@torch.no_grad()
def observe(
    model: PreTrainedModel, batch: Batch, lengths: list[int], vectors: list[tuple[int, int]]
) -> Observation:
    """Run sequences through a model, a few at once.

    Args:
        lengths: tokens to draw of each of the first sequences.
        vectors: (layer, head) of which queries, keys and values are kept.
    """
    sums, counts, losses, correct, drawn = 0, 0, [], [], []
    at_once = max(1, TOKENS_AT_ONCE // batch.input_ids.shape[1])
    for first in range(0, len(batch.input_ids), at_once):
        rows = slice(first, first + at_once)
        some = Batch(*(None if tensor is None else tensor[rows] for tensor in batch)).to(model.device)
        reader = _Reader(some.input_ids, lengths[rows], vectors)
        positions = {} if some.position_ids is None else {"position_ids": some.position_ids}
        with seen_attention(model, reader.read):
            logits = model(some.input_ids, use_cache=False, **positions).logits  # (rows, seq, vocab)
        sums, counts = sums + torch.stack(reader.sums, 1), counts + reader.counts
        for row, labels in zip(logits, some.labels, strict=True):
            losses.append(nn.functional.cross_entropy(row.float(), labels, reduction="none"))
        correct += list(logits.argmax(-1) == some.labels)
        drawn += reader.drawn()
    scored = (batch.labels != IGNORE_INDEX).numpy()
    return Observation(
        measures=(sums / counts[:, None, None]).cpu().numpy(),
        losses=np.where(scored, torch.stack(losses).cpu().double().numpy(), np.nan),
        correct=torch.stack(correct).cpu().numpy(),
        drawn=drawn,
        modules=reader.modules,
    )


class _Reader:
    """Reads the attention of one forward pass, layer by layer, so that no more than one layer's maps are in memory."""

    def __init__(self, input_ids: torch.LongTensor, lengths: list[int], vectors: list[tuple[int, int]]):
        self.input_ids, self.lengths, self.vectors = input_ids, lengths, vectors
        self.sums: list[torch.Tensor] = []  # (measures, heads) of each layer
        self.modules: list[nn.Module] = []
        self.maps: list[list[np.ndarray]] = [[] for _ in lengths]  # (heads, tokens, tokens) of each row and layer
        self.kept: list[dict[tuple[int, int], list[np.ndarray]]] = [{} for _ in lengths]  # of each row and vector

    def read(self, attention: Attention) -> None:
        """Add a layer."""
        sums, self.counts = head_sums(attention.probabilities, self.input_ids)
        self.sums.append(sums)
        self.modules.append(attention.module)
        groups = attention.query.shape[1] // attention.key.shape[1]
        for row, length in enumerate(self.lengths):
            self.maps[row].append(as_stored(attention.probabilities[row, :, :length, :length].cpu().numpy()))
            for layer, head in self.vectors:
                if layer == attention.layer:
                    group = head // groups
                    own = attention.query[row, head], attention.key[row, group], attention.value[row, group]
                    self.kept[row][layer, head] = [vectors[:length].half().cpu().numpy() for vectors in own]

    def drawn(self) -> list[tuple[np.ndarray, ...]]:
        """Attention, queries, keys and values of each drawn sequence."""
        return [
            (np.stack(maps), *(np.stack(kind) for kind in zip(*(kept[vector] for vector in self.vectors), strict=True)))
            for maps, kept in zip(self.maps, self.kept, strict=True)
        ]
