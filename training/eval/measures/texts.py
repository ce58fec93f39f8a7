"""Bits per byte of any text, for models with any tokenizer."""

from pathlib import Path

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from training.common.errors import UserError
from training.corpus.sources import SourceConfig, SourceReader
from training.eval.measures.bits_per_byte import bits_per_byte
from training.eval.measures.figures import BITS, Figure, ItemOutcome, MeasureResult, MetricKey, identify
from training.eval.measures.likelihood import sum_nats, windows
from training.eval.measures.measure import LoadedModel, Measure

PIECE = 2000  # characters after which the next line end closes an item


class Texts(Measure):
    """Bits per byte of each file in `texts`, document by document."""

    kind = "texts"

    def prepare(self) -> None:
        self.texts: dict[str, list[str]] = {}
        for name, file in self.config.texts.items():
            if not Path(file).exists():
                raise UserError(f"'texts.{name}': no such file or folder: {file}")
            self.texts[name] = texts = read_texts(file, f"texts.{name}")
            size = sum(len(text.encode()) for text in texts)
            print(f"evaluate: texts.{name}: {len(texts):,} documents, {size / 1e6:,.2f} MB")

    def inputs(self) -> dict[str, str]:
        return {f"texts.{name}": file for name, file in self.config.texts.items()}

    def conditions(self) -> dict[str, str]:
        return {"texts": "bits per byte of each document alone, in windows of the context without overlap"}

    def run(self, model: LoadedModel) -> MeasureResult:
        result = MeasureResult()
        for name, texts in self.texts.items():
            figure, outcomes = measure_text(
                model.model, model.tokenizer, texts, name, model.context, model.batch_size, model.bf16
            )
            result.add(MeasureResult({MetricKey(self.kind, name, BITS): figure}, outcomes))
        return result


class _NothingLeftOut:
    """The counter for `SourceReader`: raises if a record is left out, since the figure would be of another text."""

    def __init__(self, key: str):
        self.key = key

    def drop(self, reason: str, size: int) -> None:
        if reason not in ("empty", "broken record", "damaged file"):  # the reader itself stops at the last two
            raise UserError(f"'{self.key}': a record of {size:,} bytes cannot be measured ({reason}); remove it")


def read_texts(path: str, key: str) -> list[str]:
    """The documents of a file, in any format that `scratch prepare` reads.

    Args:
        key: of the recipe that names it.

    Raises:
        UserError: not readable, a broken record, or no text in it.
    """
    reader = SourceReader(SourceConfig(path=path, max_broken=0.0), "", _NothingLeftOut(key), key=key)
    texts = [document.text for document in reader]
    if not texts:
        raise UserError(f"'{key}': {path} holds no text; give a file with text")
    return texts


def pieces(text: str) -> list[int]:
    """The items of a document, as end positions in characters: one at the first line end after each `PIECE` characters.

    The standard error and comparisons count these items. Models read across the cuts.
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
) -> tuple[Figure, list[ItemOutcome]]:
    """Bits per byte of documents, each read alone after the token that begins a text; its end is not scored.

    The windows are those of lm-eval's `loglikelihood_rolling`: `context` tokens, each token scored once, the last
    window of a document moved back so that it is full.

    Args:
        name: of the text in the recipe.

    Returns:
        A figure with standard error over pieces of the text and the details `tokens`, `bytes`, `context`; and the bits
        per byte of each piece, weighted by its bytes.

    Raises:
        UserError: the tokenizer cannot encode the text without loss, so the figure would be of another text.
    """
    prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    stream, cuts, ends, sizes, items = [], [], [], [], []
    for text in texts:
        ids, starts = _encode(tokenizer, text, name)
        begin = len(stream) + 1  # after the prefix
        stream += [prefix, *ids]
        for start, scored_from, end in windows(len(ids), context):
            start = max(0, end - context) if end == len(ids) else start
            cuts.append((begin + start, begin + scored_from, begin + end))
        last = 0
        for cut in pieces(text):
            ends.append(begin + int(np.searchsorted(starts, cut, side="left")))
            sizes.append(len(text[last:cut].encode()))
            items.append(identify(text[last:cut]))
            last = cut
    nats = sum_nats(model, np.array(stream), cuts, np.array(ends), prefix, batch_size, bf16)
    details = {"tokens": len(stream) - len(texts), "bytes": sum(sizes), "context": context}
    return bits_per_byte("texts", name, nats, np.array(sizes), items, details)


def _encode(tokenizer: PreTrainedTokenizerBase, text: str, name: str) -> tuple[list[int], np.ndarray]:
    """Token ids of a text, and the character position at which each begins."""
    lossy = f"'texts.{name}': the tokenizer in {tokenizer.name_or_path} cannot encode all of the text"
    try:
        encoded = tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
        )
    except NotImplementedError:
        raise UserError(
            f"'texts.{name}': the tokenizer in {tokenizer.name_or_path} has no tokenizer.json, which gives the "
            "positions of tokens in a text; remove the text or the model"
        ) from None
    except Exception as error:  # tokenizers raises no narrower class
        raise UserError(f"{lossy} ({error}); remove the text or the model") from None
    ids = encoded["input_ids"]
    if tokenizer.unk_token_id in ids and tokenizer.unk_token not in text:
        lost = text[slice(*encoded["offset_mapping"][ids.index(tokenizer.unk_token_id)])]
        raise UserError(f"{lossy} (such as {lost!r:.20}); remove the text or the model")
    return ids, np.array([start for start, _ in encoded["offset_mapping"]], dtype=np.int64)
