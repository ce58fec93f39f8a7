"""Readers of data: corpora, records for training, evaluation items, labelled texts."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from damage import put_odd_files
from reader import Reader, put, putting
from tiny_stages import LINES

from training.arena.exchange import import_votes
from training.arena.store import Store
from training.corpus.dedup.evaluation_items import read_items, task_files
from training.corpus.examples.labelled import LabelledConfig, read_labelled
from training.corpus.rules.profanity import Profanity
from training.corpus.sources.config import SourceConfig
from training.corpus.sources.reader import SourceReader
from training.corpus.sources.records import read_records
from training.eval.harness.local_data import LocalData
from training.eval.harness.task_files import check_task_data, copy_tasks, local_tasks
from training.eval.measures.records import read_pairs, read_questions
from training.tuning.dataset_formats import INSTRUCTIONS, PREFERENCES, PROMPTS, UNPAIRED, convert_record, detect_format

ANSWER = {"role": "assistant", "content": "It sat there.", "reasoning_content": "Where?"}


CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"at": "cat"}'}}


QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Who?"}]}]


CALLING = [*QUESTION, {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "A cat."}]


TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


RECORDS = {
    "messages": ({"messages": [*CALLING, ANSWER], "tools": [TOOL]}, INSTRUCTIONS),
    "completion": ({"prompt": QUESTION, "completion": [ANSWER]}, INSTRUCTIONS),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "It."}]},
        INSTRUCTIONS,
    ),
    "alpaca": ({"instruction": "Who?", "input": "cats", "output": "It."}, INSTRUCTIONS),
    "tokens": ({"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}, INSTRUCTIONS),
    "preferences": ({"prompt": "Who?", "chosen": [*QUESTION, ANSWER], "rejected": [*QUESTION, ANSWER]}, PREFERENCES),
    "unpaired": ({"prompt": "Who?", "completion": "It.", "label": True}, UNPAIRED),
    "prompts": ({"prompt": QUESTION, "answer": 4}, PROMPTS),
}


ROWS = [{"text": line, "label": "even" if number % 2 else "odd", "id": number} for number, line in enumerate(LINES[:6])]


CSV = '"text",label,id\n' + "".join(f'"{row["text"]}, ""x""",{row["label"]},{row["id"]}\n' for row in ROWS)


def put_tables() -> None:
    import pyarrow
    import pyarrow.feather
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist(ROWS)
    pyarrow.parquet.write_table(table, "rows.parquet", row_group_size=3)
    pyarrow.feather.write_feather(table, "rows.arrow", compression="uncompressed")


class Counts:
    def drop(self, reason: str, size: int) -> None:
        assert size >= 0


def read_source(path: str, **options: Any) -> Callable[[], object]:
    return lambda: list(SourceReader(SourceConfig(path=path, **options), "", Counts()))


def put_data_set() -> None:
    import datasets

    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk("set")


def put_clone() -> None:
    put_tables()
    put("clone/README.md", "---\nconfigs:\n- config_name: default\n  data_files: data/train-*\n---\nA set.\n")
    Path("clone/data").mkdir()
    os.rename("rows.parquet", "clone/data/train-00000-of-00001.parquet")


def read_format(name: str) -> Callable[[], None]:
    formats = RECORDS[name][1]

    def read() -> None:
        rows = list(read_records(Path("records.jsonl")))
        columns = list(dict.fromkeys(column for _, row in rows for column in row))
        format = detect_format(columns, formats, "'datasets'")
        taken = [column for column in columns if format.takes(column)]
        for number, row in rows:
            convert_record({column: row.get(column) for column in taken}, number, format, "'datasets'")

    return read


TASK = {
    "task": "sums",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "items.jsonl"}},
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
}


def read_tasks() -> None:
    for path in local_tasks(Path("tasks")).values():
        check_task_data(path, Path("."))
        copy_tasks([path], Path("."), Path("copied"))
        task_files(path)
        list(read_items(path, ["question"]))


ARC = {"question": "Who?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "A", "id": "1"}


ARC_TASK = {"dataset_path": "allenai/ai2_arc", "dataset_name": "ARC-Easy", "test_split": "test"}


SFT = {
    "model_name_or_path": "model",
    "output_dir": "new",
    "datasets": [{"path": "json", "data_files": {"train": "records.jsonl"}, "split": "train"}],
    "learning_rate": 1e-3,
    "max_steps": 2,
    "warmup_steps": 1,
    "report_to": "none",
}


def put_tuning() -> None:
    put("records.jsonl", [RECORDS["messages"][0], {"messages": [*QUESTION, ANSWER]}])


def load_tuning() -> None:
    import datasets

    from training.tuning.pipeline.datasets import load_splits

    datasets.config.HF_DATASETS_CACHE = Path("cache")
    load_splits(tuning_recipe(), INSTRUCTIONS)


@functools.cache
def tuning_recipe() -> Any:
    from training.tuning.pipeline.recipe import parse_recipe

    return parse_recipe("sft", SFT, "recipe")


def labelled(ending: str) -> Callable[[], object]:
    file = f"rows{ending}"
    return lambda: read_labelled(LabelledConfig(train=file, validation=file, test=file), 0)


def sources() -> dict[str, Reader]:
    """A reader of corpora for each kind of file."""
    import bz2
    import lzma

    text = "\n\n".join(LINES[:9]) + "<|endoftext|>" + LINES[0]
    page = "<html><head><title>Cats</title></head><body><p>" + "</p><p>".join(LINES[:5]) + "</p></body></html>"
    contents = {
        "text.txt": text,
        "text.txt.gz": text,
        "text.txt.xz": lzma.compress(text.encode()),
        "text.txt.bz2": bz2.compress(text.encode()),
        "page.html": page,
        "rows.jsonl": ROWS,
        "rows.jsonl.gz": ROWS,
        "list.json": ROWS,
        "rows.csv": CSV,
        "rows.tsv": CSV.replace(",", "\t"),
    }
    return {
        f"corpus {file}": Reader(putting({file: content}), (file,), read_source(file))
        for file, content in contents.items()
    }


VOTE = {
    **{"question_id": "1", "model_a": "a", "model_b": "b", "winner": "model_a", "judge": "me", "tstamp": 1.5},
    **{f"conversation_{model}": [{"role": "user", "content": "Who?"}, ANSWER] for model in "ab"},
    **{"kind": "human", "swapped": False, "leaked": False, "sampling": '{"temperature": 1.0}', "seed_a": 1},
}


def add_votes() -> None:
    with Store.open(Path("store.sqlite"), writes=True) as store:
        import_votes(store, Path("votes.jsonl"))


READERS = {
    "votes": Reader(
        putting({"votes.jsonl": [VOTE, VOTE | {"question_id": "2"}]}),
        ("votes.jsonl",),
        add_votes,
    ),
    "records.jsonl": Reader(putting({"a.jsonl": ROWS}), ("a.jsonl",), lambda: list(read_records(Path("a.jsonl")))),
    "records.json": Reader(putting({"a.json": ROWS}), ("a.json",), lambda: list(read_records(Path("a.json")))),
    "records.jsonl.gz": Reader(
        putting({"a.jsonl.gz": ROWS}), ("a.jsonl.gz",), lambda: list(read_records(Path("a.jsonl.gz")))
    ),
    **sources(),
    "corpus rows.parquet": Reader(put_tables, ("rows.parquet",), read_source("rows.parquet")),
    "corpus rows.arrow": Reader(put_tables, ("rows.arrow",), read_source("rows.arrow")),
    "corpus folder": Reader(
        lambda: (putting({"in/a.txt": "a\nb", "in/b/c.jsonl": ROWS})(), put_odd_files(Path("in"))),
        ("in/a.txt", "in/b/c.jsonl"),
        read_source("in"),
    ),
    "corpus data set": Reader(
        put_data_set,
        ("set/dataset_dict.json", "set/train/state.json", "set/train/dataset_info.json"),
        read_source("set"),
    ),
    "corpus clone": Reader(put_clone, ("clone/README.md",), read_source("clone")),
    "tuning data": Reader(put_tuning, ("records.jsonl",), load_tuning, slow=20),
    **{
        f"record of {name}": Reader(putting({"records.jsonl": [row, row]}), ("records.jsonl",), read_format(name))
        for name, (row, _) in RECORDS.items()
    },
    "questions": Reader(
        putting({"a.jsonl": [{"messages": [*QUESTION, {"role": "assistant", "content": "It."}]}] * 2}),
        ("a.jsonl",),
        lambda: read_questions("a.jsonl", "chats.a"),
    ),
    "pairs": Reader(
        putting({"a.jsonl": [RECORDS["preferences"][0]] * 2}), ("a.jsonl",), lambda: read_pairs("a.jsonl", "pairs.a")
    ),
    "evaluation items": Reader(
        putting({"a.jsonl": [ARC, ARC]}), ("a.jsonl",), lambda: list(read_items(Path("a.jsonl")))
    ),
    "tasks": Reader(
        putting({"tasks/sums.yaml": TASK, "items.jsonl": [{"question": "Who?"}]}),
        ("tasks/sums.yaml", "items.jsonl"),
        read_tasks,
    ),
    "local data": Reader(
        putting({"sets/arc_easy.jsonl": [ARC, ARC]}),
        ("sets/arc_easy.jsonl",),
        lambda: LocalData(Path("sets")).task("arc_easy", Path("arc_easy.yaml"), ARC_TASK, 0),
    ),
    "labelled.jsonl": Reader(putting({"rows.jsonl": ROWS}), ("rows.jsonl",), labelled(".jsonl")),
    "labelled.csv": Reader(putting({"rows.csv": CSV}), ("rows.csv",), labelled(".csv")),
    "word list": Reader(
        putting({"words.txt": "bad\nworse word"}), ("words.txt",), lambda: Profanity(Path("words.txt"))
    ),
}
