"""Every reader of files on damaged ones: one line, never a traceback, a hang, or memory without bound."""

import contextlib
import gzip
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from damage import OTHERS, damaged, put_odd_files, remove
from guarded import LANE, at_most_one_line
from hypothesis import given
from hypothesis import strategies as st
from tiny_stages import LINES, MODEL, write_data, write_model, write_tokenizer

from training.commands import plot, run
from training.commands.evaluate import EvaluateConfig
from training.commands.prepare import PrepareConfig
from training.common.recipe import parse
from training.common.stage import Stage, check_stage, digest
from training.corpus.dedup.evaluation_items import read_items, task_files
from training.corpus.examples.labelled import LabelledConfig, read_labelled
from training.corpus.rules.profanity import Profanity
from training.corpus.sources.config import SourceConfig
from training.corpus.sources.reader import SourceReader
from training.corpus.sources.records import read_records
from training.data.shards import check_hashes, check_tokenizer, open_shards
from training.eval.harness.local_data import LocalData
from training.eval.harness.task_files import check_task_data, copy_tasks, local_tasks
from training.eval.measures.records import read_pairs, read_questions
from training.eval.results.comparison import compare_folders
from training.eval.results.summary import write_summary
from training.pretraining.config import PretrainConfig
from training.tuning.dataset_formats import INSTRUCTIONS, PREFERENCES, PROMPTS, UNPAIRED, convert_record, detect_format
from training.tuning.keys.trl_options import read_values

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


@dataclass(frozen=True)
class Reader:
    """A reader: how to write what it reads into the current folder, which of these files to damage, how to read."""

    make: Callable[[], object]
    files: tuple[str, ...]
    read: Callable[[], object]


def put(file: str, content: Any) -> None:
    """Write records, a value, text or bytes, as the name of the file says."""
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    if file.endswith(".gz") and not isinstance(content, bytes):
        put(file.removesuffix(".gz"), content)
        content = gzip.compress(Path(file.removesuffix(".gz")).read_bytes())
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content)
    elif file.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    else:
        path.write_text(json.dumps(content, indent=1))


def putting(files: dict[str, Any]) -> Callable[[], None]:
    return lambda: [put(file, content) for file, content in files.items()] and None


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


def put_stages() -> None:
    write_tokenizer(Path("tokenizer"))
    write_data(Path("data"), Path("tokenizer"))


def open_data() -> None:
    for split in ("train", "validation"):
        open_shards("data", split)
    check_hashes("data")
    check_tokenizer("data", "tokenizer")
    recipe = {"output_dir": "new", "tokenizer": "tokenizer", "data": "data", "sequence_length": 16}
    del recipe


def put_model() -> None:
    write_tokenizer(Path("tokenizer"))
    write_model(Path("model"), Path("tokenizer"))


def open_model() -> None:
    from training.chat.model import ChatModel

    model = ChatModel.open("model")
    model.check("Where is the cat?", "Be brief.")


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

METRICS = [
    {"step": step, "tokens": 100 * step, "seconds": 1.5 * step, "loss": 5.0 / step, "bits_per_byte": 2.0 / step}
    | {"tokens_per_second": 1000, "mfu": 0.1, "learning_rate": 1e-3, "grad_norm": 0.3}
    for step in range(1, 6)
]
METRICS.append({"step": 5, "tokens": 500, "seconds": 8.0, "validation_loss": 4.0, "validation_bits_per_byte": 1.5})


def read_plot() -> None:
    runs = {"run": plot._read(Path("run"))}
    plot.remarks(list(runs.values()), "loss")
    plot._table({name: run.records for name, run in runs.items()})


def draw_plot() -> None:
    plot.main(["run", "--output", "plot.svg"])


FIGURE = {"value": 0.5, "stderr": 0.1, "n": 4, "chance": 0.25, "unit": "share"}
RESULTS = {
    "conditions": {"chats": "greedy"},
    "models": {
        name: {
            "folder": name,
            "parameters": 1000,
            "seconds": {"chats": 1.0},
            "figures": {
                "chats": {"sums": {"ends": FIGURE}},
                "texts": {"news": {"bits_per_byte": FIGURE | {"unit": "bits"}}},
            },
            "subtasks": {"all": {"sums": {"ends": FIGURE}}},
            "samples": {"sums": [{"prompt": "Who?", "answer": "It."}]},
        }
        for name in ("base", "chat")
    },
}
OUTCOMES = [{"kind": "chats", "name": "sums", "item": f"{n}", "scores": {"ends": n % 2}} for n in range(4)]


def put_run() -> None:
    put_pretrained("runs/mine/pretrain")
    stage = Stage("evaluate", "runs/mine/evaluate", {}, {}, [])
    put(f"{stage.begin()}/results.json", RESULTS)
    stage.finish({}, wrote="results")


def put_pretrained(folder: str) -> None:
    inputs = {"data": "1", "tokenizer": "2"}
    stage = Stage("pretrain", folder, {"data": "data", "max_steps": 5, "optimizer": {"name": "muon"}}, inputs, [])
    put(f"{stage.begin()}/metrics.jsonl", METRICS)
    stage.finish({"loss": 1.0}, wrote="model")


def read_stage() -> None:
    check_stage("run", "pretrain", key="model")
    digest("run", "model")
    recipe = {"data": "data", "max_steps": 5, "optimizer": {"name": "muon"}}
    Stage("pretrain", "run", recipe, {"data": "1", "tokenizer": "2"}, []).is_current()


PREPARE = {
    "output_dir": "new",
    "tokenizer": "tokenizer",
    "workers": 1,
    "data": {"sources": {"a": {"path": "rows.jsonl", "weight": 1.0, "max_documents": 10}}, "seed": 3},
    "instructions": {"train": 10, "validation": 5},
}
PRETRAIN = {
    "output_dir": "new",
    "tokenizer": "tokenizer",
    "data": {"data": 1.0},
    "model": MODEL,
    "optimizer": {"name": "muon", "learning_rate": 1e-3},
    "max_steps": 4,
    "eval_sequences": 8,
    "report_to": ["tensorboard"],
}
EVALUATE = {
    "output_dir": "new",
    "models": {"base": "model"},
    "data": "data",
    "chats": {"sums": {"file": "items.jsonl", "rewards": ["ends"]}},
    "tasks": ["sums"],
    "limits": {"chats": 4},
}
SFT = {
    "model_name_or_path": "model",
    "output_dir": "new",
    "datasets": [{"path": "json", "data_files": {"train": "records.jsonl"}, "split": "train"}],
    "learning_rate": 1e-3,
    "max_steps": 2,
    "lr_scheduler_kwargs": {"a": 1},
    "report_to": "none",
}


def open_folder() -> None:
    run.open_run(Path("recipes"), ["--minutes=5"])


def put_folder() -> None:
    putting({"recipes/prepare.yaml": PREPARE, "recipes/pretrain.yaml": PRETRAIN, "recipes/sft.yaml": SFT})()
    putting({"recipes/run.yaml": {"minutes": 3}, "recipes/evaluate.yaml": EVALUATE, "tasks/sums.yaml": TASK})()
    putting({"items.jsonl": [{"question": "Who?"}]})()


def put_checkpoint() -> None:
    from training.pretraining.checkpoint import Checkpoints

    put_model()
    put("metrics.jsonl", METRICS)
    progress = {"step": 3, "validation_loss": 1.0, "seconds": 2.0}
    Checkpoints(Path("checkpoints"), 9, 0, -1, False, [Path("metrics.jsonl")]).save(progress, lambda: state().capture())


def state() -> Any:
    from modeling_scratch import ScratchForCausalLM
    from training.optim.config import OptimizerConfig
    from training.optim.optimizer import build_optimizer
    from training.pretraining.state import TrainingState

    model = ScratchForCausalLM.from_pretrained("model")
    optimizer = build_optimizer(model, OptimizerConfig())
    model(torch.ones(1, 3, dtype=torch.long), labels=torch.ones(1, 3, dtype=torch.long)).loss.backward()
    optimizer.step()
    return TrainingState(model, optimizer, "model", True)


def labelled(ending: str) -> Callable[[], object]:
    file = f"rows{ending}"
    return lambda: read_labelled(LabelledConfig(train=file, validation=file, test=file))


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


READERS = {
    "records.jsonl": Reader(putting({"a.jsonl": ROWS}), ("a.jsonl",), lambda: list(read_records(Path("a.jsonl")))),
    "records.json": Reader(putting({"a.json": ROWS}), ("a.json",), lambda: list(read_records(Path("a.json")))),
    "records.jsonl.gz": Reader(
        putting({"a.jsonl.gz": ROWS}), ("a.jsonl.gz",), lambda: list(read_records(Path("a.jsonl.gz")))
    ),
    "recipe prepare": Reader(
        putting({"a.yaml": PREPARE}), ("a.yaml",), lambda: parse(PrepareConfig, ["--config", "a.yaml"], "")
    ),
    "recipe pretrain": Reader(
        putting({"a.yaml": PRETRAIN}), ("a.yaml",), lambda: parse(PretrainConfig, ["--config", "a.yaml"], "")
    ),
    "recipe evaluate": Reader(
        putting({"a.yaml": EVALUATE}), ("a.yaml",), lambda: parse(EvaluateConfig, ["--config", "a.yaml"], "")
    ),
    "recipe sft": Reader(putting({"a.yaml": SFT}), ("a.yaml",), lambda: read_values("sft", ["--config", "a.yaml"])),
    "recipe folder": Reader(
        put_folder,
        (
            "recipes/prepare.yaml",
            "recipes/pretrain.yaml",
            "recipes/run.yaml",
            "recipes/evaluate.yaml",
            "tasks/sums.yaml",
        ),
        open_folder,
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
    "shards": Reader(
        put_stages,
        ("data/manifest.json", "data/train-00000.ds", "data/train-00000.ds.index", "data/provenance.json"),
        open_data,
    ),
    "model": Reader(
        put_model,
        (
            *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json"),
            *("tokenizer_config.json", "chat_template.jinja", "provenance.json"),
        ),
        open_model,
    ),
    **{
        f"record of {name}": Reader(putting({"records.jsonl": [row, row]}), ("records.jsonl",), read_format(name))
        for name, (row, _) in RECORDS.items()
    },
    "questions": Reader(
        putting({"a.jsonl": [RECORDS["messages"][0], {"messages": [*QUESTION, ANSWER]}]}),
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
    "provenance": Reader(lambda: put_pretrained("run"), ("run/provenance.json", "run/metrics.jsonl"), read_stage),
    "metrics": Reader(lambda: put_pretrained("run"), ("run/metrics.jsonl", "run/provenance.json"), read_plot),
    "plot": Reader(lambda: put_pretrained("run"), ("run/metrics.jsonl", "run/provenance.json"), draw_plot),
    "report": Reader(
        put_run,
        tuple(
            f"runs/mine/{file}"
            for file in ("pretrain/metrics.jsonl", "pretrain/provenance.json", "evaluate/results.json")
        ),
        lambda: write_summary(Path("runs/mine")),
    ),
    "results": Reader(
        putting({"a/results.json": RESULTS, "a/items/base.jsonl": OUTCOMES, "a/items/chat.jsonl": OUTCOMES}),
        ("a/results.json", "a/items/base.jsonl"),
        lambda: compare_folders([Path("a")]),
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_one_line_for_a_damaged_file(name, tmp_path_factory, monkeypatch):
    reader, folder = READERS[name], tmp_path_factory.mktemp("files")
    monkeypatch.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        reader.make()
    if name not in ("corpus folder"):
        put_odd_files(folder)
    valid = {file: Path(file).read_bytes() for file in map(reader_path(name), reader.files)}
    with contextlib.redirect_stdout(io.StringIO()):
        reader.read()  # the valid files pass
    contents = {file: damaged(file, content) for file, content in valid.items()}

    @LANE
    @given(st.data())
    def check(data: st.DataObject) -> None:
        file = Path(data.draw(st.sampled_from(sorted(valid))))
        other = data.draw(st.sampled_from((None,) * 40 + tuple(OTHERS)))
        content = None if other else data.draw(contents[str(file)])
        remove(file)
        try:
            OTHERS[other](file) if other else file.write_bytes(content)
            with (
                at_most_one_line(),
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                reader.read()
        finally:
            remove(file)
            file.write_bytes(valid[str(file)])

    check()


def reader_path(name: str) -> Callable[[str], str]:
    return lambda file: f"model/{file}" if name == "model" else file
