"""The shapes of tuning data: told by their columns, turned into what TRL's trainers take."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from training.common.errors import UserError

Record = dict[str, Any]

# `datasets` keeps what was converted in its cache, by this number among others: raise it when a conversion changes.
VERSION = 2

NUMBER = "number_of_the_record"  # a column of ours, beside those of the data

ROLES = {"human": "user", "gpt": "assistant"} | {role: role for role in ("user", "assistant", "system", "tool")}


@dataclass(frozen=True)
class Shape:
    """A set of columns, and what becomes of a record that has them.

    Args:
        name: what people call it.
        columns: all of them must be there.
        optional: taken along where they are there; all other columns are left behind.
        convert: a record with these columns to one that the trainer takes. Raises ValueError, which says what is wrong
            with the record.
        others: whether all other columns are taken along too, and with them `NUMBER`, that of each record from 1.
    """

    name: str
    columns: tuple[str, ...]
    optional: tuple[str, ...] = ()
    convert: Callable[[Record], Record] = dict
    others: bool = False

    def __str__(self) -> str:
        return "+".join(self.columns) + (f" ({self.name})" if self.name not in self.columns else "")

    def takes(self, column: str) -> bool:
        return self.others or column in self.columns + self.optional


def take_shape(data: Any, shapes: tuple[Shape, ...], where: str) -> tuple[Any, str]:
    """The data as the trainer takes them, and a line that says what they were taken for.

    Args:
        data: a split, a `Dataset` or an `IterableDataset`.
        shapes: those that the trainer knows; the first that fits is taken.
        where: what to call the recipe in an error.

    Raises:
        UserError: none fits, or a record is not as its shape has it. In a stream that shows when it is read.
    """
    found = columns_of(data)
    where = f"{where}: 'datasets'"
    shape = find_shape(found, shapes, where)
    taken = list(filter(shape.takes, found))
    ignored = [column for column in found if column not in taken]

    def convert(record: Record, number: int, version: int) -> Record:
        converted = convert_record(record, number + 1, shape, where)
        return converted | {NUMBER: number + 1} if shape.others else converted

    data = data.select_columns(taken)
    data = data.map(convert, with_indices=True, fn_kwargs={"version": VERSION}, remove_columns=taken)
    line = f"{shape.name} ({', '.join(taken)})" if shape.name not in taken else ", ".join(taken)
    return data, line + (f"; ignored: {', '.join(ignored)}" if ignored else "")


def columns_of(data: Any) -> list[str]:
    """The names of a split's columns; a stream that does not know them beforehand shows them in its first record."""
    return data.column_names or list(next(iter(data), {}))


def find_shape(columns: list[str], shapes: tuple[Shape, ...], where: str) -> Shape:
    """The first shape that fits.

    Args:
        where: what to call the data in an error.

    Raises:
        UserError: none fits.
    """
    shape = next((shape for shape in shapes if set(shape.columns) <= set(columns)), None)
    if shape is None:
        known = ", or ".join(map(str, shapes))
        raise UserError(f"{where} have the columns {', '.join(columns)}; it takes {known}")
    return shape


def convert_record(record: Record, number: int, shape: Shape, where: str) -> Record:
    """What a record becomes.

    Args:
        record: its columns that the shape takes.
        number: of the record, from 1.
        where: what to call the data in an error.

    Raises:
        UserError: it is not as its shape has it.
    """
    try:
        return shape.convert(dict(record))
    except ValueError as error:
        raise UserError(f"{where}, record {number}: {error}") from None


def check_messages(value: Any, column: str) -> list[Record]:
    """A conversation: messages with a role, and with words or calls of tools.

    Raises:
        ValueError: what is wrong with it.
    """
    if not isinstance(value, list) or not value:
        raise ValueError(f"'{column}' is no list of messages")
    for number, message in enumerate(value, start=1):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ValueError(f"message {number} of '{column}' has no role")
        if not isinstance(message.get("content"), (str, list)) and not message.get("tool_calls"):
            raise ValueError(f"message {number} of '{column}' has no content")
    return value


def check_text(record: Record, *columns: str) -> None:
    """Raises ValueError: a column that holds no text."""
    for column in columns:
        if not isinstance(record[column], str):
            raise ValueError(f"'{column}' is no text")


def conversation(record: Record) -> Record:
    return record | {"messages": check_messages(record["messages"], "messages")}


def sharegpt(record: Record) -> Record:
    """`conversations`, whose messages have from and value, or role and content already, to `messages`."""
    turns = record["conversations"]
    if not isinstance(turns, list):
        raise ValueError("'conversations' is no list of messages")
    messages = []
    for number, turn in enumerate(turns, start=1):
        turn = turn if isinstance(turn, dict) else {}
        role = turn.get("from") or turn.get("role")
        if role not in ROLES:
            raise ValueError(f"message {number} of 'conversations' is from {role!r}; known: {', '.join(ROLES)}")
        value = turn.get("value")
        messages.append({"role": ROLES[role], "content": turn.get("content") if value is None else value})
    others = {column: record[column] for column in record if column != "conversations"}
    return others | {"messages": check_messages(messages, "conversations")}


def prompt_and_completion(record: Record) -> Record:
    """Both as text, or both as messages."""
    if isinstance(record["prompt"], str):
        check_text(record, "completion")
    else:
        for column in ("prompt", "completion"):
            check_messages(record[column], column)
    return record


def pair(question: str, answer: str, context: str | None = None) -> Callable[[Record], Record]:
    """A conversion of records with these columns to a prompt and a completion of one message each.

    Args:
        context: of the column with what the question is about, which follows it after a blank line.
    """

    def convert(record: Record) -> Record:
        check_text(record, question, answer)
        completion = [{"role": "assistant", "content": record[answer]}]
        return {"prompt": ask(record, question, context), "completion": completion}

    return convert


def ask(record: Record, question: str, context: str | None) -> list[Record]:
    """What a user says who asks the question, with the context after a blank line where there is one."""
    found = context and record.get(context)
    if found:
        check_text(record, context)
    return [{"role": "user", "content": f"{record[question]}\n\n{found}" if found else record[question]}]


def tokenized(record: Record) -> Record:
    if not record["input_ids"]:
        raise ValueError("'input_ids' is empty")
    return record


_TEMPLATE_COLUMNS = ("tools", "chat_template_kwargs")  # which a chat template takes beside the messages

# Conversations, and questions with an answer. Of several that fit the first: records of UltraChat have messages and a
# prompt.
CONVERSATIONS = (
    Shape("messages", ("messages",), _TEMPLATE_COLUMNS, conversation),
    Shape("pairs", ("prompt", "completion"), _TEMPLATE_COLUMNS, prompt_and_completion),
    Shape("ShareGPT", ("conversations",), _TEMPLATE_COLUMNS, sharegpt),
    Shape("alpaca", ("instruction", "output"), ("input",), pair("instruction", "output", "input")),
    Shape("Dolly", ("instruction", "response"), ("context",), pair("instruction", "response", "context")),
    Shape("questions", ("question", "answer"), (), pair("question", "answer")),
)
# What supervised fine-tuning takes.
INSTRUCTIONS = (
    Shape("tokens", ("input_ids",), ("labels", "completion_mask", "assistant_masks"), tokenized),
    *CONVERSATIONS,
)


def preference(record: Record) -> Record:
    """Alpaca's instruction, perhaps with input, and two answers."""
    check_text(record, "instruction", "chosen", "rejected")
    answers = {key: [{"role": "assistant", "content": record[key]}] for key in ("chosen", "rejected")}
    return {"prompt": ask(record, "instruction", "input")} | answers


def two_answers(record: Record) -> Record:
    """All as text, or all as messages."""
    columns = [column for column in ("prompt", "chosen", "rejected") if column in record]
    if any(isinstance(record[column], str) for column in columns):
        check_text(record, *columns)
    else:
        for column in columns:
            check_messages(record[column], column)
    return record


PREFERENCES = (
    Shape("preferences", ("prompt", "chosen", "rejected"), _TEMPLATE_COLUMNS, two_answers),
    Shape("alpaca preferences", ("instruction", "chosen", "rejected"), ("input",), preference),
    Shape("the prompt in both", ("chosen", "rejected"), _TEMPLATE_COLUMNS, two_answers),
)


def judged(record: Record) -> Record:
    if not isinstance(record["label"], bool):
        raise ValueError("'label' is neither true nor false")
    return prompt_and_completion(record)


# Answers judged one by one: `label` is true for a good one.
JUDGED = (Shape("judged answers", ("prompt", "completion", "label"), _TEMPLATE_COLUMNS, judged),)


def prompt(record: Record) -> Record:
    """Text, or messages."""
    if not isinstance(record["prompt"], str):
        check_messages(record["prompt"], "prompt")
    return record


def question(record: Record) -> Record:
    check_text(record, "question")
    return record | {"prompt": [{"role": "user", "content": record["question"]}]}


# What is answered in training, and by what its answers are rewarded: all columns go to the rewards.
PROMPTS = (
    Shape("prompts", ("prompt",), convert=prompt, others=True),
    Shape("questions", ("question",), convert=question, others=True),
)


def text(column: str) -> Shape:
    """Plain text in a column of that name, all of it to be learned."""

    def convert(record: Record) -> Record:
        check_text(record, column)
        return record

    return Shape("text", (column,), (), convert)
