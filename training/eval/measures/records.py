"""Held-out records of any file, in the formats that the trainers take: see `training.tuning.dataset_formats`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.common.errors import UserError
from training.corpus.sources.records import read_records
from training.model_io.template_features import features
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
from training.tuning.reward_functions import Answer, content


@dataclass(frozen=True)
class Question:
    """A question to be answered.

    Attributes:
        prompt, reference: the question, and the file's own answer (None if it has none).
        columns: of the record, for reward functions, with its number as `NUMBER`.
    """

    prompt: Answer
    reference: Answer | None
    columns: Record


def read_questions(file: str, key: str) -> list[Question]:
    """The questions of a file. The last answer of a conversation is its reference; everything before is the prompt.

    Args:
        key: of the recipe that names the file.

    Raises:
        UserError: no such file, an unknown format, or a record without a question.
    """
    questions = []
    for number, record, taken in _read(file, key, (*CONVERSATIONS, *PROMPTS)):
        prompt, reference = taken.get("prompt"), taken.get("completion")
        if "messages" in taken:
            prompt, reference = taken["messages"], None
            if prompt[-1]["role"] == "assistant":
                prompt, reference = prompt[:-1], prompt[-1:]
        where = f"'{key}': {file}, record {number}"
        _check_text(where, prompt, reference or "")
        if isinstance(reference, list) and (more := features(reference)):
            raise UserError(f"{where}: the answer has {' and '.join(sorted(more))}; only text can be measured")
        columns = {column: value for column, value in record.items() if column not in ("prompt", "completion")}
        questions.append(
            Question(prompt, reference if reference and content(reference) else None, columns | {NUMBER: number})
        )
    _check_one_kind([question.prompt for question in questions], file, key)
    return questions


def read_pairs(file: str, key: str) -> list[Record]:
    """The pairs of a file: `prompt`, `chosen` and `rejected`, all text or all messages. Raises as `read_questions`."""
    pairs = []
    for number, _, taken in _read(file, key, PREFERENCES):
        where = f"'{key}': {file}, record {number}"
        prompt, chosen, rejected = taken.get("prompt"), taken["chosen"], taken["rejected"]
        if prompt is None:  # text
            shared = next((place for place, (one, other) in enumerate(zip(chosen, rejected)) if one != other), None)
            if shared is None:
                raise UserError(f"{where}: 'chosen' and 'rejected' do not differ after a common prompt; remove it")
            if chosen[:shared].endswith(" "):  # it belongs to the next word, as in TRL
                shared -= 1
            prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
        _check_text(where, prompt, chosen, rejected)
        pairs.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    _check_one_kind([pair["prompt"] for pair in pairs], file, key)
    return pairs


def _read(file: str, key: str, formats: tuple[DataFormat, ...]) -> Iterator[tuple[int, Record, Record]]:
    """Yield the number of each record, all its columns, and the record converted to TRL's columns."""
    if not Path(file).is_file():
        raise UserError(f"'{key}': no such file: {file}")
    try:
        records = list(read_records(Path(file)))
    except UserError as error:
        raise UserError(f"'{key}': {error}") from None
    if not records:
        raise UserError(f"'{key}': {file} is empty; give a file with records")
    columns = list(dict.fromkeys(column for _, record in records for column in record))
    format = detect_format(columns, formats, f"'{key}': the records of {file}")
    for number, found in records:
        record = {column: found.get(column) for column in columns}
        taken = {column: value for column, value in record.items() if format.takes(column)}
        taken = convert_record(taken, number, format, f"'{key}': {file}")
        if taken.get("tools") or taken.get("chat_template_kwargs"):
            raise UserError(
                f"'{key}': {file}, record {number}: 'tools' and 'chat_template_kwargs' are not supported; remove them"
            )
        yield number, record, taken


def _check_text(where: str, prompt: Answer, *answers: Answer) -> None:
    if not prompt:
        raise UserError(f"{where}: the prompt is empty; remove the record")
    for text in (prompt, *answers):
        if not isinstance(text, str) and not all(isinstance(message.get("content"), str) for message in text):
            raise UserError(f"{where}: a message is not text; only text can be measured")


def _check_one_kind(prompts: list[Answer], file: str, key: str) -> None:
    if len({isinstance(prompt, str) for prompt in prompts}) > 1:
        raise UserError(f"'{key}': {file}: some records are text and some are messages; put them into two files")
