"""Bits per byte of the validation split: how many bits a model needs for each byte of text it has not seen.

Unlike perplexity it does not depend on the tokenizer, so models with different vocabularies compare.
"""

import math

import numpy as np
from transformers import PreTrainedModel

from training.common.errors import UserError
from training.corpus.output.card import shown_path
from training.data.shards import TokenShards, open_shards
from training.eval.measures.figures import BITS, Figure, ItemOutcome, MeasureResult, MetricKey, figure_of, identify
from training.eval.measures.likelihood import sum_nats, windows
from training.eval.measures.measure import LoadedModel, Measure


class BitsPerByte(Measure):
    """Bits per byte of the validation split of `data`, whose tokenizer every model must have."""

    kind = "data"

    def prepare(self) -> None:
        self.shards = open_shards(self.config.data, "validation")
        if len(self.shards) == 0 or self.shards.text_bytes == 0:
            raise UserError(f"'data': the validation split in {self.config.data} is empty; bits per byte needs text")

    def inputs(self) -> dict[str, str]:
        return {"data": self.config.data}

    def conditions(self) -> dict[str, str]:
        return {
            "data": shown_path(self.config.data),
            BITS: "the whole validation split as one stream, in windows of the context without overlap; every token "
            "scored once, the first after <|endoftext|>; <|endoftext|> tokens cost bits and count no bytes",
        }

    def run(self, model: LoadedModel) -> MeasureResult:
        figure, outcomes = measure_split(model.model, self.shards, model.context, model.batch_size, model.bf16)
        return MeasureResult({MetricKey(self.kind, "validation", BITS): figure}, outcomes)


def measure_split(
    model: PreTrainedModel, shards: TokenShards, context: int, batch_size: int = 8, bf16: bool = False
) -> tuple[Figure, list[ItemOutcome]]:
    """Bits per byte of a whole split, every token scored exactly once, with documents as items.

    The split is one stream of documents separated by `<|endoftext|>`, as in pretraining. The first token is scored
    after an `<|endoftext|>`, so the sum is a complete code for the split. A token sees what precedes it in its window.
    `<|endoftext|>` tokens must be predicted and so cost bits, but count no bytes of text.

    Args:
        context: tokens per window, normally the length the model was trained on.
        batch_size: windows per forward pass.

    Returns:
        A figure with standard error over documents and the details `nats_per_token`, `tokens`, `bytes`, `context`; and
        the bits per byte of each document. Its bytes are estimated from its share of the tokens, because shards count
        bytes only as a whole.
    """
    tokens, ends = shards.tokens, np.asarray(shards.document_ends)
    nats = sum_nats(model, tokens, windows(len(tokens), context), ends, int(tokens[-1]), batch_size, bf16)
    sizes = np.diff(ends, prepend=0)  # (documents,) tokens
    names = [identify(tokens[end - size : end].tolist()) for end, size in zip(ends, sizes)]
    details = {
        "nats_per_token": float(nats.sum()) / len(tokens),
        "tokens": len(tokens),
        "bytes": shards.text_bytes,
        "context": context,
    }
    return bits_per_byte("data", "validation", nats, sizes * (shards.text_bytes / len(tokens)), names, details)


def bits_per_byte(
    kind: str, name: str, nats: np.ndarray, sizes: np.ndarray, items: list[str], details: dict[str, float]
) -> tuple[Figure, list[ItemOutcome]]:
    """Bits per byte of a text, from the nats and bytes of each of its items.

    Args:
        kind, name: of the measure, as in `MetricKey`.
        nats, sizes: (items,) negative log-likelihood, and bytes of UTF-8.
        items: identifiers.
    """
    rates, weights = (nats / math.log(2) / sizes).tolist(), sizes.tolist()
    outcomes = [ItemOutcome(kind, name, item, {BITS: rate}, size) for item, rate, size in zip(items, rates, weights)]
    return figure_of(rates, BITS, weights, details=details), outcomes
