"""Held-out records of any file, in the shapes that the trainers take: see `training.tuning.dataset_formats`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.common.errors import UserError
from training.common.jsonl import read_records
from training.eval.measures.prompts import Words
from training.tuning.dataset_formats import (
    CONVERSATIONS,
    NUMBER,
    PREFERENCES,
    PROMPTS,
    DataFormat,
    Record,
    convert_record,
    detect_format,
)
from training.tuning.reward_functions import content


@dataclass(frozen=True)
class Question:
    """One to be answered.

    Attributes:
        prompt, reference: what is asked, and how the file answers it (None if it does not).
        columns: of the record, for its rewards, with its number as `NUMBER`.
    """

    prompt: Words
    reference: Words | None
    columns: Record


def read_questions(file: str, key: str) -> list[Question]:
    """The questions of a file; the last answer of a conversation is its reference, all before it the prompt.

    Args:
        key: of the recipe that names the file.

    Raises:
        UserError: no such file, or records that are of no known shape or ask nothing.
    """
    questions = []
    for number, record, taken in _read(file, key, (*CONVERSATIONS, *PROMPTS)):
        prompt, reference = taken.get("prompt"), taken.get("completion")
        if "messages" in taken:
            prompt, reference = taken["messages"], None
            if prompt[-1]["role"] == "assistant":
                prompt, reference = prompt[:-1], prompt[-1:]
        _check_words(f"'{key}': {file}, record {number}", prompt, reference or "")
        columns = {column: value for column, value in record.items() if column not in ("prompt", "completion")}
        questions.append(
            Question(prompt, reference if reference and content(reference) else None, columns | {NUMBER: number})
        )
    _check_alike([question.prompt for question in questions], file, key)
    return questions


def read_pairs(file: str, key: str) -> list[Record]:
    """The pairs of a file: `prompt`, `chosen` and `rejected`, all text or all messages. Raises as `read_questions`."""
    pairs = []
    for number, _, taken in _read(file, key, PREFERENCES):
        where = f"'{key}': {file}, record {number}"
        prompt, chosen, rejected = taken.get("prompt"), taken["chosen"], taken["rejected"]
        if prompt is None:
            shared = next((place for place, (one, other) in enumerate(zip(chosen, rejected)) if one != other), None)
            if shared is None:
                raise UserError(f"{where}: 'chosen' and 'rejected' do not part after a prompt")
            if isinstance(chosen, str) and chosen[:shared].endswith(" "):  # which belongs to the next word, as in TRL
                shared -= 1
            prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
        _check_words(where, prompt, chosen, rejected)
        pairs.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    _check_alike([pair["prompt"] for pair in pairs], file, key)
    return pairs


def _read(file: str, key: str, formats: tuple[DataFormat, ...]) -> Iterator[tuple[int, Record, Record]]:
    """The number of each record, all its columns, and what it becomes."""
    if not Path(file).is_file():
        raise UserError(f"'{key}': no such file: {file}")
    records = list(read_records(Path(file)))
    if not records:
        raise UserError(f"'{key}': {file} is empty")
    columns = list(dict.fromkeys(column for _, record in records for column in record))
    format = detect_format(columns, formats, f"'{key}': the records of {file}")
    for number, found in records:
        record = {column: found.get(column) for column in columns}
        taken = {column: value for column, value in record.items() if format.takes(column)}
        taken = convert_record(taken, number, format, f"'{key}': {file}")
        if taken.get("tools") or taken.get("chat_template_kwargs"):
            raise UserError(f"'{key}': {file}, record {number}: nothing is measured with tools or chat_template_kwargs")
        yield number, record, taken


def _check_words(where: str, prompt: Words, *answers: Words) -> None:
    if not prompt:
        raise UserError(f"{where} asks nothing")
    for words in (prompt, *answers):
        if not isinstance(words, str) and not all(isinstance(message.get("content"), str) for message in words):
            raise UserError(f"{where} holds a message that is no text")


def _check_alike(prompts: list[Words], file: str, key: str) -> None:
    if len({isinstance(prompt, str) for prompt in prompts}) > 1:
        raise UserError(f"'{key}': {file}: some records are text and some are messages; put them into two files")
