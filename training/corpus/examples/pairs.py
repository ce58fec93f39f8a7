"""Instruction and preference pairs from functions, in the formats that TRL reads."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from training.common.progress import progress_bar
from training.corpus.examples.distractors import DistractorPicker
from training.corpus.examples.functions import Function, defines

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

# Largest relative difference in tokens between the rejected and the chosen answer, so that length gives nothing away.
LENGTH_TOLERANCE = 0.15

_BATCH = 512


def question(function: Function) -> str:
    return f"Write this Python function.\n\n{function.signature}"


def instruction(function: Function) -> dict[str, Any]:
    """One record for supervised fine-tuning: signature and summary as question, the whole function as answer."""
    messages = [
        {"role": "user", "content": question(function)},
        {"role": "assistant", "content": function.source},
    ]
    return {"messages": messages, "name": function.name, "group": function.group}


def fitting(functions: Iterable[Function], tokenizer: "PreTrainedTokenizerFast", max_tokens: int) -> Iterator[Function]:
    """The functions whose instruction, rendered by the chat template, has at most `max_tokens` tokens."""
    batch = []
    for function in functions:
        batch.append(function)
        if len(batch) == _BATCH:
            yield from _fitting_batch(batch, tokenizer, max_tokens)
            batch = []
    if batch:
        yield from _fitting_batch(batch, tokenizer, max_tokens)


def _fitting_batch(batch: list[Function], tokenizer: "PreTrainedTokenizerFast", max_tokens: int) -> Iterator[Function]:
    from training.model_io.tokenizers import naming_unknown

    rendered = [tokenizer.apply_chat_template(instruction(function)["messages"], tokenize=False) for function in batch]
    with naming_unknown(tokenizer, rendered):
        lengths = count_tokens(rendered, tokenizer.backend_tokenizer)
    return (function for function, length in zip(batch, lengths) if length <= max_tokens)


def count_tokens(texts: Sequence[str], tokenizer: "Tokenizer") -> list[int]:
    """Tokens of each text, none added, and none truncated or padded as a tokenizer.json may ask for."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


def preferences(functions: Sequence[Function], tokenizer: "Tokenizer", seed: int) -> list[dict[str, Any]]:
    """One record per function: its own source preferred over the same signature with another function's body.

    The wrong bodies are those of the other functions given, each used about once: a body taken alone is as often
    right as wrong, so only its fit to the signature tells. Functions without a partner of similar length are skipped.
    """
    lengths = count_tokens([function.source for function in functions], tokenizer)
    bodies = count_tokens([function.body for function in functions], tokenizer)
    picker = DistractorPicker(bodies, [function.group for function in functions], seed)
    records = []
    for index, function in enumerate(progress_bar(functions, desc="pairing", unit=" pairs")):
        rejected = _wrong_source(index, functions, lengths[index], picker, tokenizer)
        if rejected is None:
            continue
        records.append(
            {
                "prompt": [{"role": "user", "content": question(function)}],
                "chosen": [{"role": "assistant", "content": function.source}],
                "rejected": [{"role": "assistant", "content": rejected}],
                "name": function.name,
                "group": function.group,
            }
        )
    return records


def _wrong_source(
    index: int, functions: Sequence[Function], length: int, picker: DistractorPicker, tokenizer: "Tokenizer"
) -> str | None:
    function, tolerance = functions[index], LENGTH_TOLERANCE * length
    for other in picker.candidates(index, tolerance):
        rejected = function.with_body(functions[other].body)
        if not defines(rejected, function.name):  # the two indent differently
            continue
        if abs(count_tokens([rejected], tokenizer)[0] - length) <= tolerance:
            picker.use(other)
            return rejected
    return None
