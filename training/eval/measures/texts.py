"""Bits per byte with the parts of a text as items: of a prepared split, and of any text for models of any tokenizer."""

import math
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from training.common.errors import UserError
from training.common.estimates import mean_with_stderr
from training.corpus.sources import SourceConfig, SourceReader
from training.data.shards import TokenShards
from training.eval.measures.bits_per_byte import sum_nats, windows
from training.eval.measures.items import Outcome, identify

METRIC = "bits per byte"
PIECE = 2000  # characters after which the next line end closes an item


def measure_split(
    model: PreTrainedModel, shards: TokenShards, context: int, batch_size: int = 8, bf16: bool = False
) -> tuple[dict[str, Any], list[Outcome]]:
    """`bits_per_byte` of a whole split in windows without overlap, with its documents as items.

    Returns:
        `value`, `stderr` over documents, `n` of them, `nats_per_token`, `tokens`, `bytes`, `context`, `stride`; and the
        bits per byte of each document. Its bytes are taken by its share of the tokens, for the shards count bytes only
        as a whole.
    """
    tokens, ends = shards.tokens, np.asarray(shards.document_ends)
    end_of_text = int(tokens[-1])  # every document ends with it
    nats = sum_nats(model, tokens, windows(len(tokens), context, context), ends, end_of_text, batch_size, bf16)
    weights = np.diff(ends, prepend=0) * (shards.text_bytes / len(tokens))
    names = [identify(tokens[end - size : end].tolist()) for end, size in zip(ends, np.diff(ends, prepend=0))]
    figure, outcomes = _figure("validation", nats, weights, names)
    total = float(nats.sum())
    return {
        **figure,
        "value": total / math.log(2) / shards.text_bytes,
        "nats_per_token": total / len(tokens),
        "tokens": len(tokens),
        "bytes": shards.text_bytes,
        "context": context,
        "stride": context,
    }, outcomes


class _NothingLeftOut:
    """What `SourceReader` counts in: the figure would be of another text if anything were left out."""

    def __init__(self, key: str):
        self.key = key

    def drop(self, reason: str, size: int) -> None:
        if reason not in ("empty", "broken record", "damaged file"):  # the reader itself stops at those two
            raise UserError(f"'{self.key}': a record of {size:,} bytes cannot be measured ({reason})")


def read_texts(path: str, key: str) -> list[str]:
    """The documents of a file, in whatever form `scratch prepare` reads.

    Args:
        key: of the recipe that names it.

    Raises:
        UserError: not readable, a broken record, or no text in it.
    """
    reader = SourceReader(SourceConfig(path=path, max_broken=0.0), "", _NothingLeftOut(key), key=key)
    texts = [document.text for document in reader]
    if not texts:
        raise UserError(f"'{key}': {path} holds no text")
    return texts


def pieces(text: str) -> list[int]:
    """Where a document is cut into items, as ends in characters: at the first line end after every `PIECE` characters.

    Items are what the standard error and a comparison with another model count; a model reads on across the cuts.
    """
    ends, start = [], 0
    while (cut := text.find("\n", start + PIECE)) != -1 and cut + 1 < len(text):
        start = cut + 1
        ends.append(start)
    return [*ends, len(text)]


def measure_text(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    name: str,
    context: int,
    batch_size: int = 8,
    bf16: bool = False,
) -> tuple[dict[str, Any], list[Outcome]]:
    """Bits per byte of documents, each read by itself after the token that begins a text; its end is not scored.

    The windows are those of lm-eval's `loglikelihood_rolling`: `context` tokens, each token scored once, the last
    window of a document moved back so that it is full.

    Args:
        name: of the text in the recipe; its measure is called `text: NAME`.

    Returns:
        `value` (bits per byte), `stderr` over pieces of the text, `n` of them, `tokens`, `bytes`, `context`; and the
        bits per byte of each piece, weighted by its bytes.

    Raises:
        UserError: a tokenizer that cannot write the text, so that the figure would be of another one.
    """
    prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    stream, cuts, ends, sizes, names = [], [], [], [], []
    for text in texts:
        ids, starts = _encode(tokenizer, text, name)
        begin = len(stream) + 1  # behind the prefix
        stream += [prefix, *ids]
        for start, scored_from, end in windows(len(ids), context, context):
            start = max(0, end - context) if end == len(ids) else start
            cuts.append((begin + start, begin + scored_from, begin + end))
        last = 0
        for cut in pieces(text):
            ends.append(begin + int(np.searchsorted(starts, cut, side="left")))
            sizes.append(len(text[last:cut].encode()))
            names.append(identify(text[last:cut]))
            last = cut
    nats = sum_nats(model, np.array(stream), cuts, np.array(ends), prefix, batch_size, bf16)
    figure, outcomes = _figure(f"text: {name}", nats, np.array(sizes), names)
    tokens = len(stream) - len(texts)
    return {**figure, "tokens": tokens, "bytes": sum(sizes), "context": context}, outcomes


def _encode(tokenizer: PreTrainedTokenizerBase, text: str, name: str) -> tuple[list[int], np.ndarray]:
    """Token ids of a text, and the character at which each begins."""
    lossy = f"'texts.{name}': the tokenizer in {tokenizer.name_or_path} cannot write all of the text"
    try:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    except NotImplementedError:
        raise UserError(
            f"'texts.{name}': the tokenizer in {tokenizer.name_or_path} has no tokenizer.json, by which tokens are "
            "found in a text"
        ) from None
    except Exception as error:  # tokenizers raises nothing narrower
        raise UserError(f"{lossy} ({error})") from None
    ids = encoded["input_ids"]
    if tokenizer.unk_token_id in ids and tokenizer.unk_token not in text:
        lost = text[slice(*encoded["offset_mapping"][ids.index(tokenizer.unk_token_id)])]
        raise UserError(f"{lossy} (such as {lost!r:.20})")
    return ids, np.array([start for start, _ in encoded["offset_mapping"]], dtype=np.int64)


def _figure(
    measure: str, nats: np.ndarray, sizes: np.ndarray, names: list[str]
) -> tuple[dict[str, Any], list[Outcome]]:
    rates = (nats / math.log(2) / sizes).tolist()
    outcomes = [Outcome(measure, item, {METRIC: rate}, size) for item, rate, size in zip(names, rates, sizes.tolist())]
    return mean_with_stderr(rates, sizes.tolist()), outcomes
