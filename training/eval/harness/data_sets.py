"""Known evaluation sets: what their files are called, and their records in the columns of the Hub.

lm-eval's task definitions read the columns of the Hub's data sets. Files in other shapes are put into those columns,
so that the tasks themselves stay lm-eval's: the shapes of llm-foundry's local evaluation data (Mosaic: `query`,
`choices`, `gold`, and two more), and of the sets' own repositories, which mostly have the Hub's columns already.
"""

import os.path
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Record = dict[str, Any]
Columns = dict[str, type | tuple[type, ...]]

# llm-foundry's shapes: multiple choice, one continuation after each of several contexts, and one continuation.
CHOICES: Columns = {"query": str, "choices": list, "gold": int}
SCHEMA: Columns = {"context_options": list, "continuation": str, "gold": int}
CONTINUATION: Columns = {"context": str, "continuation": str}


@dataclass(frozen=True)
class DataSet:
    """A data set of the Hub, or one configuration of it.

    Attributes:
        files: what its local files may be called, without their ending; the first is the one to name in an error.
        columns: those that lm-eval's task reads, with their types.
        by: for a set that comes in one file and is many configurations, the column that tells them apart.
        shape: columns of the other shape that is understood.
        convert: a record of that shape into the Hub's columns; raises ValueError where it cannot be.
    """

    files: tuple[str, ...]
    columns: Columns
    by: str | None = None
    shape: Columns = field(default_factory=dict)
    convert: Callable[[Record], Record] | None = None

    def to_hub(self, record: Record) -> Record:
        """A record in the Hub's columns; further columns that it has are kept if it has them already.

        Raises:
            ValueError: neither shape, or values that make no item; says what it is.
        """
        if not _lacking(record, self.columns):
            return record
        if self.convert and not _lacking(record, self.shape):
            return self.convert(record)
        shapes = [self.columns, self.shape] if self.convert else [self.columns]
        known = " or ".join(", ".join(columns) for columns in shapes)
        nearest = min((_lacking(record, columns) for columns in shapes), key=len)
        raise ValueError(f"has the columns {', '.join(record)}; known are {known} (lacking or mistyped: {nearest[0]})")


def _lacking(record: Record, columns: Columns) -> list[str]:
    return [name for name, kind in columns.items() if not isinstance(record.get(name), kind)]


def _answer(record: Record) -> str:
    """The right choice.

    Raises:
        ValueError: `gold` is none of them.
    """
    if not 0 <= record["gold"] < len(record["choices"]):
        raise ValueError(f"'gold' is {record['gold']}, of {len(record['choices'])} choices")
    return record["choices"][record["gold"]]


def _arc(record: Record) -> Record:
    # Items of three choices are padded to four with a repeated one there: the repetition is no choice of ARC's.
    choices = list(dict.fromkeys(record["choices"]))
    labels = [chr(ord("A") + place) for place in range(len(choices))]
    return {
        "question": record["query"].removeprefix("Question: ").removesuffix("\n"),
        "choices": {"text": choices, "label": labels},
        "answerKey": labels[choices.index(_answer(record))],
    }


def _piqa(record: Record) -> Record:
    _answer(record)
    first, second = _two(record["choices"])
    goal = record["query"].removeprefix("Question: ").removesuffix("\n")
    return {"goal": goal, "sol1": first, "sol2": second, "label": record["gold"]}


def _hellaswag(record: Record) -> Record:
    _answer(record)
    activity, separator, context = record["query"].partition(": ")
    if not separator:
        raise ValueError("'query' is not 'ACTIVITY: CONTEXT'")
    return {
        "activity_label": activity,
        "ctx_a": context,
        "ctx_b": "",
        "endings": record["choices"],
        "label": str(record["gold"]),
    }


_CONNECTORS = {", therefore": "effect", ", because": "cause"}


def _copa(record: Record) -> Record:
    _answer(record)
    first, second = _two(record["choices"])
    for ending, question in _CONNECTORS.items():
        if record["query"].endswith(ending):
            premise = record["query"].removesuffix(ending) + "."
            return {
                "premise": premise,
                "choice1": first,
                "choice2": second,
                "question": question,
                "label": record["gold"],
            }
    raise ValueError("'query' ends with neither ', therefore' nor ', because'")


def _lambada(record: Record) -> Record:
    return {"text": f"{record['context']} {record['continuation'].strip()}"}


def _cloze(record: Record) -> tuple[str, str, list[str]]:
    """A schema as a sentence with a gap: the text before the gap, after it, and what may fill it."""
    first, second = _two(record["context_options"])
    if record["gold"] not in (0, 1):
        raise ValueError(f"'gold' is {record['gold']}, of 2 contexts")
    common = os.path.commonprefix([first, second])
    before = common[: common.rfind(" ") + 1]
    continuation = record["continuation"].strip()
    if not continuation:
        raise ValueError("'continuation' is empty")
    after = continuation if continuation[0] in ".,;:!?'" else f" {continuation}"
    return before, after, [first[len(before) :], second[len(before) :]]


def _winograd(record: Record) -> Record:
    before, after, options = _cloze(record)
    return {
        "text": f"{before}_{after}",
        "pronoun": "_",
        "pronoun_loc": len(before),
        "options": options,
        "label": record["gold"],
    }


def _winogrande(record: Record) -> Record:
    before, after, (first, second) = _cloze(record)
    answer = str(record["gold"] + 1)
    return {"sentence": f"{before}_{after}", "option1": first, "option2": second, "answer": answer}


def _two(choices: list[str]) -> tuple[str, str]:
    if len(choices) != 2:
        raise ValueError(f"has {len(choices)} choices instead of 2")
    return choices[0], choices[1]


_ARC: Columns = {"question": str, "choices": dict, "answerKey": str}

# By the Hub's name of the data set, and the configuration if there are several of which each has its own file.
DATA_SETS: dict[tuple[str, str | None], DataSet] = {
    ("allenai/ai2_arc", "ARC-Easy"): DataSet(("arc_easy",), _ARC, shape=CHOICES, convert=_arc),
    ("allenai/ai2_arc", "ARC-Challenge"): DataSet(("arc_challenge",), _ARC, shape=CHOICES, convert=_arc),
    ("Rowan/hellaswag", None): DataSet(
        ("hellaswag",),
        {"activity_label": str, "ctx_a": str, "ctx_b": str, "endings": list, "label": (str, int)},
        shape=CHOICES,
        convert=_hellaswag,
    ),
    ("baber/piqa", None): DataSet(
        ("piqa",), {"goal": str, "sol1": str, "sol2": str, "label": int}, shape=CHOICES, convert=_piqa
    ),
    ("nyu-mll/blimp", None): DataSet(("blimp",), {"sentence_good": str, "sentence_bad": str, "UID": str}, by="UID"),
    ("cais/mmlu", None): DataSet(
        ("mmlu",), {"question": str, "choices": list, "answer": int, "subject": str}, by="subject"
    ),
    ("EleutherAI/lambada_openai", None): DataSet(
        ("lambada_openai", "lambada"), {"text": str}, shape=CONTINUATION, convert=_lambada
    ),
    ("openai/gsm8k", None): DataSet(("gsm8k",), {"question": str, "answer": str}),
    ("openai/openai_humaneval", None): DataSet(
        ("humaneval",),
        {"task_id": str, "prompt": str, "canonical_solution": str, "test": str, "entry_point": str},
    ),
    ("aps/super_glue", "copa"): DataSet(
        ("copa",),
        {"premise": str, "choice1": str, "choice2": str, "question": str, "label": int},
        shape=CHOICES,
        convert=_copa,
    ),
    ("lighteval/winograd_wsc", None): DataSet(
        ("wsc273", "winograd_wsc", "winograd"),
        {"text": str, "pronoun": str, "pronoun_loc": int, "options": list, "label": int},
        shape=SCHEMA,
        convert=_winograd,
    ),
    ("allenai/winogrande", None): DataSet(
        ("winogrande",),
        {"sentence": str, "option1": str, "option2": str, "answer": str},
        shape=SCHEMA,
        convert=_winogrande,
    ),
}


def known_set(path: str, name: str | None) -> DataSet | None:
    """The data set that a task reads, by its `dataset_path` and `dataset_name`."""
    return DATA_SETS.get((path, name)) or DATA_SETS.get((path, None))
