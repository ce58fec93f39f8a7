"""Pretraining on a mixture of packed and masked documents, and on data that cannot be trained on."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import torch
from tiny_stages import LINES, MODEL, VOCAB_SIZE, flags, forget_accelerate, write_data, write_tokenizer

from modeling_scratch.tokenization_scratch import ScratchTokenizer
from training.cli import main
from training.data.packing import PACKINGS
from training.data.shards import MANIFEST, sha256, write_manifest, write_shard
from training.pretraining.config import PretrainConfig

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "tokenizer": "tokenizer",
    "packing": "best_fit",
    "document_mask": "true",
    "bf16": "false",
    "sequence_length": 24,
    "global_batch_size": 8,
    "max_steps": 12,
    "logging_steps": 1,
    "eval_steps": 6,
    "eval_sequences": 16,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 3e-3,
    **{f"model.{key}": value for key, value in MODEL.items()},
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """Two folders of shards: one as other tests have it, and a small one of longer documents with other words."""
    place = tmp_path_factory.mktemp("shards")
    tokenizer = write_tokenizer(place / "tokenizer")
    write_data(place / "lines", tokenizer)
    write_pages(place / "pages", tokenizer, pages=40)
    write_pages(place / "few", tokenizer, pages=1)
    return place


def write_pages(folder: Path, tokenizer: Path, pages: int) -> None:
    encoder, splits = ScratchTokenizer.load(tokenizer), {}
    folder.mkdir()
    texts = [" ".join(LINES[page : page + 1 + page % 3])[::-1] for page in range(2 * pages)]
    for split, documents in (("train", texts[:pages]), ("validation", texts[pages:])):
        ids = [[*encoder.encode(text), 0] for text in documents]
        splits[split] = write_shard(folder, split, ids, VOCAB_SIZE, "tokenizer") | {"bytes": len("".join(documents))}
    write_manifest(folder, splits, tokenizer, VOCAB_SIZE, {})


@pytest.fixture
def place(shards, tmp_path, monkeypatch):
    """A copy to work in and to spoil. One thread, as in the processes that a launcher starts."""
    shutil.copytree(shards, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    forget_accelerate()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)
    forget_accelerate()


def records(folder: str) -> list[dict]:
    return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]


def losses(folder: str) -> torch.Tensor:
    return torch.tensor([record["loss"] for record in records(folder) if "loss" in record])


def pretrain(**changes: object) -> int:
    forget_accelerate()
    return main(["pretrain", *flags(SETTINGS | changes)])


def test_a_mixture_packed_and_masked(place, capfd):
    weights = "{lines: 3, pages: 1}"
    assert pretrain(data=weights, output_dir="whole", per_device_train_batch_size=8) == 0
    printed = capfd.readouterr().out
    assert "in the shards (best_fit, 9" in printed and "of the positions scored)" in printed
    assert "    lines: 75.00% of the sequences requested, 75.00% in this run, " in printed
    assert "    pages: 25.00% of the sequences requested, 25.00% in this run, " in printed
    curve = losses("whole")
    assert len(curve) == 12 and curve[-1] < curve[0] - 1
    validations = [record for record in records("whole") if "validation_loss" in record]
    assert [record["step"] for record in validations] == [6, 12]
    for record in validations:
        lines, pages = record["validation_loss/lines"], record["validation_loss/pages"]
        assert record["validation_loss"] == pytest.approx(0.75 * lines + 0.25 * pages)
        assert lines < pages  # three times as much of it is seen
    inputs = json.loads(Path("whole/provenance.json").read_text())["inputs"]
    assert inputs.keys() == {"data.lines", "data.pages", "tokenizer"}

    assert pretrain(data="{pages: 1, lines: 3}", output_dir="whole", per_device_train_batch_size=8) == 0
    assert "whole is up to date, skipped" in capfd.readouterr().out  # the same mixture

    # Two processes, each with two micro-batches: rows with unequal numbers of scored tokens in all of them.
    settings = SETTINGS | {"data": weights, "output_dir": place / "parts", "per_device_train_batch_size": 2}
    launch = ["accelerate.commands.launch", "--config_file", str(ROOT / "recipes/accelerate/cpu.yaml")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", *launch, "-m", "training", "pretrain", *flags(settings)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 x cpu" in done.stdout and "2 accumulation steps" in done.stdout
    torch.testing.assert_close(losses("parts"), curve, atol=2e-5, rtol=0)


def test_weights_that_change_in_the_course_of_a_run(place, capfd):
    """A folder that comes last only is an input like the others, and what it adds to the losses is told."""
    changing = {"data": "lines", "curriculum": "{0.5: {lines: 1, pages: 3}}", "per_device_train_batch_size": 8}
    assert pretrain(**changing, output_dir="whole") == 0
    printed = capfd.readouterr().out
    assert "    pages: 37.50% of the sequences requested, 37.50% in this run, " in printed
    assert "    from step 0: 100.00% lines, 0.00% pages\n    from step 6: 25.00% lines, 75.00% pages\n" in printed
    inputs = json.loads(Path("whole/provenance.json").read_text())["inputs"]
    assert inputs.keys() == {"data.lines", "data.pages", "tokenizer"}
    first, last = (record for record in records("whole") if "validation_loss" in record)
    gain = {
        folder: first[f"validation_loss/{folder}"] - last[f"validation_loss/{folder}"] for folder in ("lines", "pages")
    }
    assert gain["pages"] > gain["lines"]

    assert pretrain(**changing | {"curriculum": "{0.99: pages}"}, output_dir="other") == 2
    assert "'curriculum': 0.99 of 12 steps leaves a phase without a step" in capfd.readouterr().err
    assert not Path("other").exists()


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def other_tokenizer(file: Path) -> None:
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps(manifest | {"tokenizer_sha256": "0" * 64}))


def lacking_a_key(file: Path) -> None:
    manifest = json.loads(file.read_text())
    del manifest["splits"]["train"]["tokens"]
    file.write_text(json.dumps(manifest))


def empty(file: Path) -> None:
    manifest = json.loads(file.read_text())
    manifest["splits"]["train"]["tokens"] = manifest["splits"]["train"]["documents"] = 0
    file.write_text(json.dumps(manifest))


def falling(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[8:16] + content[:8] + content[16:])
    manifest = file.with_name(MANIFEST)  # that of a faulty tool, which was written after the fault
    content = json.loads(manifest.read_text())
    content["splits"]["train"]["sha256"][file.name] = sha256(file)
    manifest.write_text(json.dumps(content))


def test_the_recipe_names_every_packing():
    packing = next(field for field in dataclasses.fields(PretrainConfig) if field.name == "packing")
    assert typing.get_args(packing.type) == tuple(PACKINGS)


def test_attention_that_would_let_documents_see_each_other_is_refused(place, capfd):
    """transformers tells packed documents apart for flash attention in batches of one row alone."""
    settings = {"data": "lines", "output_dir": "new", "attn_implementation": "flash_attention_2"}
    assert pretrain(per_device_train_batch_size=2, **settings) == 2
    line = capfd.readouterr().err.strip()
    assert "'document_mask': flash_attention_2 separates documents only in batches of one sequence" in line
    assert "\n" not in line


BOTH = "{lines: 3, pages: 1}"
BAD_DATA = [
    # the key, a file and what happens to it, what the line says
    ("{lines: 3, pages: 0}", None, "command line: 'data': the weight of pages must be a number above 0, not 0"),
    ("{lines: -1, pages: 1}", None, "'data': the weight of lines must be a number above 0, not -1"),
    ("{lines: .nan, pages: 1}", None, "'data': the weight of lines must be a number above 0, not nan"),
    ("{lines: much, pages: 1}", None, "'data': the weight of lines must be a number above 0, not 'much'"),
    ("{lines: 1.234567, pages: 1}", None, "'data': these weights repeat only after 2,234,567 sequences"),
    ("{}", None, "'data' names no folder of shards"),
    ("5", None, "'data': 5: no such folder; run `scratch prepare` first"),  # a flag's text is text
    ("{lines: 1, gone: 1}", None, "'data': gone: no such folder; run `scratch prepare` first"),
    ("{lines: 1, tokenizer: 1}", None, "'data': tokenizer holds the output of 'tokenizer'; expected the output of"),
    ("{lines: 1, few: 3}", None, "'data': few: the split holds 75 tokens, fewer than its share of one batch, 6 x 24"),
    ("few", None, "'data': few: the split holds 75 tokens, fewer than one batch of 8 x 24"),
    (BOTH, ("pages", MANIFEST, other_tokenizer), "'tokenizer': tokenizer is not the tokenizer that made the shards in"),
    (BOTH, ("pages", MANIFEST, Path.unlink), "'data': pages holds no token shards"),
    (BOTH, ("pages", MANIFEST, lacking_a_key), "'data': pages/manifest.json is damaged"),
    (BOTH, ("pages", MANIFEST, empty), "'data': pages: the split 'train' is empty"),
    (BOTH, ("pages", "train-00000.ds", flip), "'data': pages/train-00000.ds is damaged: its hash differs from man"),
    (BOTH, ("pages", "validation-00000.ds", Path.unlink), "'data': pages/validation-00000.ds is missing"),
    (BOTH, ("pages", "train-00000.ds.index", falling), "'data': pages/train-00000.ds.index is damaged: "),
    ("lines", ("lines", "validation-00000.ds", flip), "'data': lines/validation-00000.ds is damaged: its hash diff"),
]


@pytest.mark.parametrize("data, damage, message", BAD_DATA, ids=[message[:60] for *_, message in BAD_DATA])
def test_bad_data_is_told_in_one_line_before_the_first_step(place, capfd, data, damage, message):
    if damage:
        folder, file, spoil = damage
        spoil(place / folder / file)
    assert pretrain(data=data, output_dir="new", per_device_train_batch_size=8) == 2
    captured = capfd.readouterr()
    lines = captured.err.strip().splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    assert message in lines[-1] and len(lines[-1]) < 300
    assert "Traceback" not in captured.err
    assert not Path("new").exists() and not list(Path().glob("new.partial/metrics.jsonl"))
