"""Formats of tuning data: detected by their columns, and converted to the columns that TRL's trainers read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from training.common.errors import UserError
from training.model_io.messages import ROLES, Message, check_messages, check_tools

Record = dict[str, Any]

# `datasets` caches converted and encoded records under a key that includes this number: raise it when they change.
VERSION = 5

NUMBER = "record_number"  # a column that we add to the data


@dataclass(frozen=True)
class DataFormat:
    """A set of columns, and how a record with these columns is converted.

    Args:
        name: what the field calls it.
        columns: required, all of them.
        optional: kept if present; all other columns are dropped.
        convert: from a record with these columns to one that the trainer reads. Raises ValueError, which says what is
            wrong with the record.
        others: keep all other columns too, and add `NUMBER`, the number of each record from 1.
    """

    name: str
    columns: tuple[str, ...]
    optional: tuple[str, ...] = ()
    convert: Callable[[Record], Record] = dict
    others: bool = False

    def __str__(self) -> str:
        return "+".join(self.columns) + (f" ({self.name})" if self.name not in self.columns else "")

    def takes(self, column: str) -> bool:
        """Whether records of this format keep that column."""
        return self.others or column in self.columns + self.optional


def convert_dataset(data: Any, formats: tuple[DataFormat, ...], where: str) -> tuple[Any, str]:
    """Detect the format of a split, and convert it.

    Args:
        data: a split, a `Dataset` or an `IterableDataset`.
        formats: those that the trainer reads; the first that fits is used.
        where: what to call the recipe in an error.

    Returns:
        The converted split, and a description such as `alpaca (instruction, output); ignored: id`.

    Raises:
        UserError: no format fits, or a record does not have the format. A stream raises it when it is read.
    """
    found = columns_of(data)
    where = f"{where}: 'datasets'"
    format = detect_format(found, formats, where)
    taken = list(filter(format.takes, found))
    ignored = [column for column in found if column not in taken]

    def convert(record: Record, number: int, version: int) -> Record:
        converted = convert_record(record, number + 1, format, where)
        return converted | {NUMBER: number + 1} if format.others else converted

    data = data.select_columns(taken)
    data = data.map(convert, with_indices=True, fn_kwargs={"version": VERSION}, remove_columns=taken)
    line = f"{format.name} ({', '.join(taken)})" if format.name not in taken else ", ".join(taken)
    return data, line + (f"; ignored: {', '.join(ignored)}" if ignored else "")


def columns_of(data: Any) -> list[str]:
    """The names of a split's columns; for a stream that does not declare them, those of its first record."""
    return data.column_names or list(next(iter(data), {}))


def detect_format(columns: list[str], formats: tuple[DataFormat, ...], where: str) -> DataFormat:
    """The first format that fits.

    Args:
        where: what to call the data in an error.

    Raises:
        UserError: no format fits.
    """
    format = next((format for format in formats if set(format.columns) <= set(columns)), None)
    if format is None:
        known = ", or ".join(map(str, formats))
        raise UserError(f"{where} have the columns {', '.join(columns)}; use {known}")
    return format


def convert_record(record: Record, number: int, format: DataFormat, where: str) -> Record:
    """One record, converted.

    Args:
        record: the columns that the format keeps.
        number: of the record, from 1.
        where: what to call the data in an error.

    Raises:
        UserError: it does not have the format.
    """
    try:
        return format.convert(dict(record))
    except ValueError as error:
        raise UserError(f"{where}, record {number}: {error}") from None


def check_text(record: Record, *columns: str) -> None:
    """Raise ValueError for a column that does not hold text."""
    for column in columns:
        if not isinstance(record[column], str):
            raise ValueError(f"'{column}' is not text")


def with_tools(record: Record) -> Record:
    """The record with `tools`, if it has any, as JSON text."""
    return record | {"tools": check_tools(record["tools"])} if "tools" in record else record


def conversation(record: Record) -> Record:
    """`messages`, checked."""
    return with_tools(record) | {"messages": check_messages(record["messages"], "messages")}


def sharegpt(record: Record) -> Record:
    """`conversations`, whose messages have from and value (or role and content already), as `messages`."""
    turns = record["conversations"]
    if not isinstance(turns, list):
        raise ValueError("'conversations' is not a list of messages")
    messages = []
    for number, turn in enumerate(turns, start=1):
        turn = turn if isinstance(turn, dict) else {}
        role = turn.get("from") or turn.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise ValueError(f"message {number} of 'conversations' is from {role!r}; known: {', '.join(ROLES)}")
        value = turn.get("value")
        others = {key: turn[key] for key in turn if key not in ("from", "value")}
        messages.append(others | {"role": role, "content": turn.get("content") if value is None else value})
    others = {column: record[column] for column in record if column != "conversations"}
    return with_tools(others) | {"messages": check_messages(messages, "conversations")}


def prompt_and_completion(record: Record) -> Record:
    """`prompt` and `completion`, checked: both text, or both messages; the prompt of messages may be text too."""
    if isinstance(record["completion"], list) and isinstance(record["prompt"], str):
        record = record | {"prompt": as_question(record["prompt"])}
    if isinstance(record["prompt"], str):
        check_text(record, "completion")
        return record
    return with_tools(record) | {column: check_messages(record[column], column) for column in ("prompt", "completion")}


def as_question(text: str) -> list[Message]:
    """The user's message with this text."""
    return [{"role": "user", "content": text}]


def pair(question: str, answer: str, context: str | None = None) -> Callable[[Record], Record]:
    """A conversion of records with these columns to a prompt and a completion of one message each.

    Args:
        context: column with material for the question, which follows the question after a blank line.
    """

    def convert(record: Record) -> Record:
        check_text(record, question, answer)
        completion = [{"role": "assistant", "content": record[answer]}]
        return {"prompt": ask(record, question, context), "completion": completion}

    return convert


def ask(record: Record, question: str, context: str | None) -> list[Record]:
    """The user's message: the question, and after a blank line the context, if there is one."""
    found = context and record.get(context)
    if found:
        check_text(record, context)
    return as_question(f"{record[question]}\n\n{found}" if found else record[question])


def tokenized(record: Record) -> Record:
    """`input_ids`, checked, and what belongs to each of them."""
    ids = record["input_ids"]
    if not isinstance(ids, list) or not ids:
        raise ValueError("'input_ids' is empty" if not ids else "'input_ids' is not a list of token ids")
    for column in record:
        numbers = record[column]
        if numbers is not None and (not isinstance(numbers, list) or not all(type(n) is int for n in numbers)):
            raise ValueError(f"'{column}' is not a list of integers")
        if numbers is not None and len(numbers) != len(ids):
            raise ValueError(f"'{column}' has {len(numbers)} numbers for {len(ids)} tokens")
    if min(ids) < 0:
        raise ValueError(f"'input_ids' has the id {min(ids)}, which no token has")
    return record


_TEMPLATE_COLUMNS = ("tools", "chat_template_kwargs")  # columns that a chat template reads beside the messages

# Conversations, and questions with an answer. The first that fits is used: records of UltraChat have messages and a
# prompt.
CONVERSATIONS = (
    DataFormat("messages", ("messages",), _TEMPLATE_COLUMNS, conversation),
    DataFormat("prompt-completion", ("prompt", "completion"), _TEMPLATE_COLUMNS, prompt_and_completion),
    DataFormat("ShareGPT", ("conversations",), _TEMPLATE_COLUMNS, sharegpt),
    DataFormat("alpaca", ("instruction", "output"), ("input",), pair("instruction", "output", "input")),
    DataFormat("Dolly", ("instruction", "response"), ("context",), pair("instruction", "response", "context")),
    DataFormat("questions", ("question", "answer"), (), pair("question", "answer")),
)
# For supervised fine-tuning.
INSTRUCTIONS = (
    DataFormat("tokens", ("input_ids",), ("labels", "completion_mask", "assistant_masks"), tokenized),
    *CONVERSATIONS,
)


def preference(record: Record) -> Record:
    """Alpaca's instruction, with input if there is one, and two answers, as messages."""
    check_text(record, "instruction", "chosen", "rejected")
    answers = {key: [{"role": "assistant", "content": record[key]}] for key in ("chosen", "rejected")}
    return {"prompt": ask(record, "instruction", "input")} | answers


def two_answers(record: Record) -> Record:
    """`chosen`, `rejected` and perhaps `prompt`, checked: all text, or all messages, of which the prompt is apart.

    The prompt of messages may also stand at the beginning of both answers (and as text in `prompt`, as in
    UltraFeedback).
    """
    columns = [column for column in ("prompt", "chosen", "rejected") if column in record]
    if isinstance(record["chosen"], str) or isinstance(record["rejected"], str):
        check_text(record, *columns)
        return record
    answers = [check_messages(record[column], column) for column in ("chosen", "rejected")]
    prompt = record.get("prompt")
    shared = common_beginning(*answers)
    if isinstance(prompt, str) and all(answer[0]["role"] == "assistant" for answer in answers):
        prompt = as_question(prompt)
    elif isinstance(prompt, str):
        if prompt not in (message["content"] for message in answers[0][:shared]):
            raise ValueError("'prompt' is not in both 'chosen' and 'rejected'; remove it, or give it as messages")
        prompt = None
    if prompt is None:
        prompt = answers[0][: check_divergence(*answers, shared)]
    else:
        prompt = check_messages(prompt, "prompt")
    if all(answer[: len(prompt)] == prompt and len(answer) > len(prompt) for answer in answers):
        answers = [answer[len(prompt) :] for answer in answers]
    return with_tools(record) | {"prompt": prompt, "chosen": answers[0], "rejected": answers[1]}


def common_beginning(chosen: list[Message], rejected: list[Message]) -> int:
    """The number of messages with which both begin; the last one of either is never one of them, as in TRL."""
    length = min(len(chosen), len(rejected)) - 1
    return next((place for place in range(length) if chosen[place] != rejected[place]), length)


def check_divergence(chosen: list[Message], rejected: list[Message], shared: int) -> int:
    """The number of messages with which both begin, checked: a prompt, after which the assistant answers in both.

    Raises:
        ValueError: they do not answer the same prompt.
    """
    if not shared:
        raise ValueError("'chosen' and 'rejected' do not begin with the same prompt; give it in both, or as 'prompt'")
    for column, messages in (("chosen", chosen), ("rejected", rejected)):
        if messages[shared]["role"] != "assistant":
            raise ValueError(
                f"after the common beginning, message {shared + 1} of '{column}' is of the {messages[shared]['role']}, "
                "not an answer of the assistant"
            )
    return shared


# For DPO, ORPO and the reward model.
PREFERENCES = (
    DataFormat("preference", ("prompt", "chosen", "rejected"), _TEMPLATE_COLUMNS, two_answers),
    DataFormat("alpaca preference", ("instruction", "chosen", "rejected"), ("input",), preference),
    DataFormat("preference with implicit prompt", ("chosen", "rejected"), _TEMPLATE_COLUMNS, two_answers),
)


def unpaired(record: Record) -> Record:
    """`prompt`, `completion` and `label`, checked; the label may be text, as in a CSV."""
    label = {"true": True, "false": False}.get(str(record["label"]).lower())
    if label is None:
        raise ValueError("'label' is neither true nor false")
    return prompt_and_completion(record) | {"label": label}


# For KTO: single answers, whose `label` is true for a good one.
UNPAIRED = (DataFormat("unpaired preference", ("prompt", "completion", "label"), _TEMPLATE_COLUMNS, unpaired),)


def prompt(record: Record) -> Record:
    """`prompt`, checked: text, or messages."""
    if record.get("tools"):
        raise ValueError("'tools' cannot be called during training; remove the column")
    if isinstance(record["prompt"], str):
        return record
    return record | {"prompt": check_messages(record["prompt"], "prompt")}


def question(record: Record) -> Record:
    """`question` as a `prompt` of one message."""
    check_text(record, "question")
    return record | {"prompt": as_question(record["question"])}


# For GRPO and RLOO: the model answers during training, and the reward functions read all columns.
PROMPTS = (
    DataFormat("prompt-only", ("prompt",), convert=prompt, others=True),
    DataFormat("questions", ("question",), convert=question, others=True),
)


def text(column: str) -> DataFormat:
    """Plain text in the named column, every token of it scored."""

    def convert(record: Record) -> Record:
        check_text(record, column)
        return record

    return DataFormat("text", (column,), (), convert)
