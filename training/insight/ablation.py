"""Ablation of heads: loss, bits per byte and copying of a model with heads knocked out, one by one or together.

A head is knocked out by zeroing its output before the output projection, as in Michel, Levy and Neubig, 2019,
https://arxiv.org/abs/1905.10650. That equals zeroing the columns of the projection that read the head. Its mean output
is lost as well, so a head that adds the same vector everywhere counts as more important than it is; Wang et al., 2022,
https://arxiv.org/abs/2211.00593, replace the output by its mean instead.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from modeling_scratch.loss_scratch import IGNORE_INDEX
from training.common.estimates import Difference, Estimate, mean_with_stderr, paired_difference
from training.common.progress import progress_bar
from training.data.loader import Batch, TokenLoader
from training.insight.attention import attention_modules, replaced_attention, written_out
from training.insight.capture import with_labels
from training.insight.heads import Head, head_name
from training.insight.sequences import LONGEST, Repeated, draw_repeated

BLOCKS = 64  # tokens of a repeated sequence
SEQUENCES = 16  # of each kind that are measured
_TOKENS_AT_ONCE = 4096  # in a forward pass


@dataclass(frozen=True)
class Texts:
    """The sequences on which ablations are measured.

    Attributes:
        repeated: random blocks, each given twice.
        held_out: sequences of the validation split; None for a model without one.
        bytes_per_token: of the validation split.
    """

    repeated: Repeated
    held_out: Batch | None = None
    bytes_per_token: float | None = None

    @property
    def scored(self) -> list[float]:
        """Tokens of each held-out sequence that are scored."""
        return (self.held_out.labels != IGNORE_INDEX).sum(1).tolist()


def choose_texts(tokenizer: PreTrainedTokenizerBase, loader: TokenLoader | None, context: int, seed: int) -> Texts:
    """The sequences of a run, always the same.

    Args:
        loader: of the validation split; None without one.
        context: tokens that the model can read.
    """
    repeated = draw_repeated(tokenizer, min(context, BLOCKS), SEQUENCES, seed)
    if loader is None:
        return Texts(repeated)
    batch = loader.read(np.concatenate(loader.evenly_spaced(SEQUENCES)))
    held_out = Batch(*(None if tensor is None else tensor[:, :LONGEST] for tensor in batch))
    return Texts(repeated, held_out, loader.bytes_per_token)


@dataclass(frozen=True)
class SequenceScores:
    """Figures of a model, one for each sequence.

    Attributes:
        loss: (held-out sequences,) nats per token; None without held-out text.
        copying: (repeated sequences,) share of the tokens that repetition predicts which the model predicts (greedy).
    """

    loss: list[float] | None
    copying: list[float]


@dataclass(frozen=True)
class Ablation:
    """The effect of knocking out heads together: figures without them minus figures with them.

    Attributes:
        loss: nats per token; None without held-out text.
        bits_per_byte: of held-out text.
        copying: share of correct predictions in repeated sequences.
    """

    heads: tuple[Head, ...]
    loss: Difference | None
    bits_per_byte: float | None
    copying: Difference

    @property
    def name(self) -> str:
        """The heads, such as `1.3 2.0`."""
        return " ".join(map(head_name, self.heads))


@dataclass(frozen=True)
class Ablations:
    """Figures of the whole model, and the effect of each ablation.

    Attributes:
        loss: nats per token; None without held-out text.
        bits_per_byte: of held-out text.
    """

    loss: Estimate | None
    bits_per_byte: float | None
    copying: Estimate
    effects: list[Ablation]

    def ranked(self) -> list[Ablation]:
        """The ablations, the most harmful first: by loss, or by copying without held-out text."""
        return sorted(self.effects, key=lambda effect: -effect.loss.value if effect.loss else effect.copying.value)

    def to_json(self) -> dict[str, Any]:
        """All figures, as JSON."""
        return asdict(self)


def ablate(model: PreTrainedModel, texts: Texts, groups: Sequence[tuple[Head, ...]]) -> Ablations:
    """Measure a model, and again without each group of heads.

    Args:
        groups: the heads that are knocked out together.
    """
    modules = attention_modules(model)
    before = measure(model, texts)
    weights = texts.scored if texts.held_out else []
    effects = []
    for group in progress_bar(groups, desc="ablation", unit="head", leave=False):
        with without_heads(model, modules, group):
            after = measure(model, texts)
        loss = paired_difference(before.loss, after.loss, weights) if before.loss else None
        copying = paired_difference(before.copying, after.copying)
        effects.append(Ablation(group, loss, _bits(loss, texts), copying))
    loss = mean_with_stderr(before.loss, weights) if before.loss else None
    return Ablations(loss, _bits(loss, texts), mean_with_stderr(before.copying), effects)


@contextmanager
def without_heads(model: PreTrainedModel, modules: list[nn.Module], heads: Sequence[Head]) -> Iterator[None]:
    """Knock heads out inside a `with` block.

    Args:
        modules: the attention of each layer, see `attention_modules`.
    """
    places: dict[nn.Module, list[int]] = {}
    for layer, head in heads:
        places.setdefault(modules[layer], []).append(head)

    def function(module, *arguments, **options):
        output, weights = written_out(module, *arguments, **options)  # (batch, seq, heads, head_dim)
        output[:, :, places.get(module, [])] = 0
        return output, weights

    with replaced_attention(model, function):
        yield


@torch.no_grad()
def measure(model: PreTrainedModel, texts: Texts) -> SequenceScores:
    """The figures of a model as it is, for each sequence."""
    copying = []
    for some in _batches(with_labels(texts.repeated.input_ids), model):
        correct = model(some.input_ids, use_cache=False).logits.argmax(-1) == some.labels  # (sequences, seq)
        copying += correct[:, texts.repeated.predictable].cpu().double().mean(1).tolist()
    if texts.held_out is None:
        return SequenceScores(None, copying)
    losses = []
    for some in _batches(texts.held_out, model):
        positions = {} if some.position_ids is None else {"position_ids": some.position_ids}
        logits = model(some.input_ids, use_cache=False, **positions).logits  # (sequences, seq, vocab)
        losses += [
            nn.functional.cross_entropy(row.float(), labels, ignore_index=IGNORE_INDEX).item()
            for row, labels in zip(logits, some.labels, strict=True)
        ]
    return SequenceScores(losses, copying)


def _batches(batch: Batch, model: PreTrainedModel) -> Iterator[Batch]:
    """Some sequences at a time, on the device of the model."""
    at_once = max(1, _TOKENS_AT_ONCE // batch.input_ids.shape[1])
    for first in range(0, len(batch.input_ids), at_once):
        rows = slice(first, first + at_once)
        yield Batch(*(None if tensor is None else tensor[rows] for tensor in batch)).to(model.device)


def _bits(loss: Estimate | Difference | None, texts: Texts) -> float | None:
    """Bits per byte of a loss, or of a change of it."""
    return loss.value / math.log(2) / texts.bytes_per_token if loss else None
