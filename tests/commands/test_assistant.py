"""recipes/assistant from its script of data to its table, with other sizes, the stages in this process."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from tiny_stages import LINES, forget_accelerate

from training import cli
from training.commands import run

RECIPES = Path(__file__).parents[2] / "recipes" / "assistant"
SIZES = {
    "data.sources.stories.path": "stories.jsonl",
    "data.sources.books.path": "books.jsonl",
    "data.sources.books.text_column": "text",
    "tokenizer.vocab_size": 280,
    "model.hidden_size": 32,
    "model.num_hidden_layers": 2,
    "pretrain.max_steps": 2,
    "pretrain.sequence_length": 128,
    "pretrain.global_batch_size": 2,
    "pretrain.per_device_train_batch_size": 2,
    "pretrain.eval_sequences": 2,
    "pretrain.torch_compile": "false",
    "pretrain.sample_tokens": 2,
    "sft.max_steps": 2,
    "reward.max_steps": 2,
    "dpo.max_steps": 2,
    "max_length": 128,
    "max_new_tokens": 4,
    "tasks": "[]",  # of the Hub
}


def write(file: str, records: list[dict]) -> None:
    Path(file).write_text("".join(json.dumps(record) + "\n" for record in records))


def read(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place, patch = tmp_path_factory.mktemp("assistant"), pytest.MonkeyPatch()
    patch.chdir(place)
    write("stories.jsonl", [{"text": line} for line in LINES])
    write("books.jsonl", [{"text": f"Chapter {number}. {line}"} for number, line in enumerate(LINES)])
    asked = [{"instruction": f"Say {number} politely.", "input": "Now."} for number in range(16)]
    answers = {"output": "It is here.", "chosen": "It is here, please.", "rejected": "Here, you fool."}
    write("book.jsonl", [question | answers for question in asked])
    dolly = [
        {
            "instruction": f"What is {n}?",
            "context": "",
            "response": "A number that you have met if you ever counted to it.",
        }
        for n in range(60)
    ]
    write("dolly.jsonl", [*dolly, dolly[0] | {"context": "Read this."}, dolly[0] | {"response": "Well, " * 200}])
    patch.setattr(sys, "argv", ["data.py", "--book", "book.jsonl", "--dolly", "dolly.jsonl"])
    runpy.run_path(str(RECIPES / "data.py"), run_name="__main__")
    yield place
    patch.undo()


def test_what_is_held_out_is_held_out_of_instructions_and_pairs(place):
    files = {str(file.relative_to(place / "runs/assistant/tuning")): read(file) for file in place.rglob("tuning/**/*l")}
    questions = {name: {record["prompt"][0]["content"] for record in records} for name, records in files.items()}
    assert {name: len(records) for name, records in files.items()} == {
        "instructions.jsonl": 9 + 56,
        "book_test.jsonl": 7,
        "dolly_test.jsonl": 4,
        "pairs/train.jsonl": 9,
        "pairs/test.jsonl": 7,
    }
    assert questions["book_test.jsonl"] == questions["pairs/test.jsonl"]
    assert not questions["book_test.jsonl"] & (questions["instructions.jsonl"] | questions["pairs/train.jsonl"])
    assert not questions["dolly_test.jsonl"] & questions["instructions.jsonl"]
    assert files["book_test.jsonl"][0] == {
        "prompt": [{"role": "user", "content": "Say 1 politely.\n\nNow."}],
        "completion": [{"role": "assistant", "content": "It is here."}],
    }
    assert files["pairs/test.jsonl"][0]["rejected"] == [{"role": "assistant", "content": "Here, you fool."}]


def test_the_whole_ladder(place, monkeypatch):
    def stage(name: str, path: Path, rest: list[str]) -> int:
        forget_accelerate()
        return cli.main([name, "--config", str(path), *rest])

    monkeypatch.setattr(run, "run_stage", stage)
    assert cli.main(["run", str(RECIPES), *(f"--{key}={value}" for key, value in SIZES.items())]) == 0
    output = place / "runs" / "assistant"
    results = json.loads((output / "evaluate" / "results.json").read_text())["models"]
    assert list(results) == ["base", "sft", "dpo"]
    for figures in results.values():
        figures = figures["figures"]
        chats = figures["chats"]
        assert set(chats["book"]) == {"ends", "reward", "bits per byte"} and chats["book"]["reward"]["n"] == 7
        assert set(chats["dolly"]) == {"ends", "bits per byte"}
        assert figures["pairs"]["polite"]["accuracy"]["n"] == 7
        assert figures["data"]["validation"]["bits per byte"]["value"] > 0
    judged = json.loads((output / "reward" / "provenance.json").read_text())["metrics"]["accuracy"]
    assert judged["n"] == 7  # the held-out pairs, and no others
    assert (output / "export" / "README.md").is_file() and (output / "summary.md").is_file()
