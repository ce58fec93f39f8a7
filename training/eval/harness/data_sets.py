"""Known evaluation sets: the names of their files, and conversion of their records to the Hub's columns.

lm-eval's task definitions read the columns of the Hub's datasets. Records in llm-foundry's formats (`query`,
`choices`, `gold`, and two more) are converted to those columns, so that the tasks themselves stay lm-eval's. Files from
the sets' own repositories mostly have the Hub's columns already.
"""

import os.path
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Record = dict[str, Any]
Columns = dict[str, type | tuple[type, ...]]

# llm-foundry's formats: multiple choice, one continuation after each of several contexts, and one continuation.
CHOICES: Columns = {"query": str, "choices": list, "gold": int}
SCHEMA: Columns = {"context_options": list, "continuation": str, "gold": int}
CONTINUATION: Columns = {"context": str, "continuation": str}


@dataclass(frozen=True)
class DataSet:
    """A dataset of the Hub, or one configuration of it.

    Attributes:
        files: possible names of its local files, without suffix; errors name the first.
        columns: the columns that lm-eval's task reads, with their types.
        by: for a set with many configurations in one file, the column that holds the configuration.
        other_columns: the columns of the other format that is understood.
        convert: converts a record of that format to the Hub's columns; raises ValueError if it cannot.
    """

    files: tuple[str, ...]
    columns: Columns
    by: str | None = None
    other_columns: Columns = field(default_factory=dict)
    convert: Callable[[Record], Record] | None = None

    def to_hub(self, record: Record) -> Record:
        """A record in the Hub's columns. A record that has them already is returned unchanged.

        Raises:
            ValueError: neither format, or values that do not form an item.
        """
        if not _lacking(record, self.columns):
            return record
        if self.convert and not _lacking(record, self.other_columns):
            return self.convert(record)
        formats = [self.columns, self.other_columns] if self.convert else [self.columns]
        known = " or ".join(", ".join(columns) for columns in formats)
        nearest = min((_lacking(record, columns) for columns in formats), key=len)
        raise ValueError(
            f"the record has the columns {', '.join(record)}; give {known} (missing or of another type: {nearest[0]})"
        )


def _lacking(record: Record, columns: Columns) -> list[str]:
    return [name for name, kind in columns.items() if not isinstance(record.get(name), kind)]


def _answer(record: Record) -> str:
    """The correct choice.

    Raises:
        ValueError: `gold` is out of range.
    """
    if not 0 <= record["gold"] < len(record["choices"]):
        raise ValueError(f"'gold' is {record['gold']}, but there are {len(record['choices'])} choices")
    return record["choices"][record["gold"]]


def _arc(record: Record) -> Record:
    # That format pads items of three choices to four by repeating one; ARC does not have the repetition.
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
    """A schema as a sentence with a gap: the text before and after the gap, and the two options."""
    first, second = _two(record["context_options"])
    if record["gold"] not in (0, 1):
        raise ValueError(f"'gold' is {record['gold']}, but there are 2 contexts")
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
        raise ValueError(f"the record has {len(choices)} choices instead of 2")
    return choices[0], choices[1]


_ARC: Columns = {"question": str, "choices": dict, "answerKey": str}

# By the Hub's name of the dataset, and the configuration if each has its own file.
DATA_SETS: dict[tuple[str, str | None], DataSet] = {
    ("allenai/ai2_arc", "ARC-Easy"): DataSet(("arc_easy",), _ARC, other_columns=CHOICES, convert=_arc),
    ("allenai/ai2_arc", "ARC-Challenge"): DataSet(("arc_challenge",), _ARC, other_columns=CHOICES, convert=_arc),
    ("Rowan/hellaswag", None): DataSet(
        ("hellaswag",),
        {"activity_label": str, "ctx_a": str, "ctx_b": str, "endings": list, "label": (str, int)},
        other_columns=CHOICES,
        convert=_hellaswag,
    ),
    ("baber/piqa", None): DataSet(
        ("piqa",), {"goal": str, "sol1": str, "sol2": str, "label": int}, other_columns=CHOICES, convert=_piqa
    ),
    ("nyu-mll/blimp", None): DataSet(("blimp",), {"sentence_good": str, "sentence_bad": str, "UID": str}, by="UID"),
    ("cais/mmlu", None): DataSet(
        ("mmlu",), {"question": str, "choices": list, "answer": int, "subject": str}, by="subject"
    ),
    ("EleutherAI/lambada_openai", None): DataSet(
        ("lambada_openai", "lambada"), {"text": str}, other_columns=CONTINUATION, convert=_lambada
    ),
    ("openai/gsm8k", None): DataSet(("gsm8k",), {"question": str, "answer": str}),
    ("openai/openai_humaneval", None): DataSet(
        ("humaneval",),
        {"task_id": str, "prompt": str, "canonical_solution": str, "test": str, "entry_point": str},
    ),
    ("aps/super_glue", "copa"): DataSet(
        ("copa",),
        {"premise": str, "choice1": str, "choice2": str, "question": str, "label": int},
        other_columns=CHOICES,
        convert=_copa,
    ),
    ("lighteval/winograd_wsc", None): DataSet(
        ("wsc273", "winograd_wsc", "winograd"),
        {"text": str, "pronoun": str, "pronoun_loc": int, "options": list, "label": int},
        other_columns=SCHEMA,
        convert=_winograd,
    ),
    ("allenai/winogrande", None): DataSet(
        ("winogrande",),
        {"sentence": str, "option1": str, "option2": str, "answer": str},
        other_columns=SCHEMA,
        convert=_winogrande,
    ),
}


def known_set(path: str, name: str | None) -> DataSet | None:
    """The dataset that a task reads, by its `dataset_path` and `dataset_name`; None if it is not known."""
    return DATA_SETS.get((path, name)) or DATA_SETS.get((path, None))
