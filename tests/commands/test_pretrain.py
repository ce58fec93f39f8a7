"""The pretraining loop: it learns, and gives the same numbers however a batch is divided.

Exactness after any interruption is tested in tests/pretraining/test_kill.py.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from messages import refused
from timings import TIMINGS
from transformers import AutoModelForCausalLM, AutoTokenizer

from modeling_scratch.tokenization_scratch import ScratchTokenizer
from training.commands import pretrain
from training.data.shards import write_manifest, write_shard

ROOT = Path(__file__).parents[2]
VOCAB_SIZE = 300
STEPS = 9


@pytest.fixture(scope="module")
def text_data(tmp_path_factory) -> dict[str, str]:
    """A tokenizer and shards of the text of this repository's own modules."""
    folder = tmp_path_factory.mktemp("text")
    texts = [file.read_text() for file in sorted((ROOT / "training").rglob("*.py")) if file.stat().st_size]
    tokenizer = ScratchTokenizer.train(texts, VOCAB_SIZE)
    tokenizer.save(folder / "tokenizer")
    (folder / "data").mkdir()
    splits = {}
    for split, documents in {"train": texts[:-3], "validation": texts[-3:]}.items():
        ids = [[*tokenizer.encode(text), 0] for text in documents]
        splits[split] = write_shard(folder / "data", split, ids, VOCAB_SIZE, "tokenizer")
        splits[split]["bytes"] = sum(len(text.encode()) for text in documents)
    write_manifest(folder / "data", splits, folder / "tokenizer", VOCAB_SIZE, {})
    return {"data": str(folder / "data"), "tokenizer": str(folder / "tokenizer")}


def arguments(text_data: dict[str, str], output_dir: Path, **options: object) -> list[str]:
    settings = {
        **text_data,
        "output_dir": output_dir,
        "model.hidden_size": 32,
        "model.num_hidden_layers": 2,
        "model.num_attention_heads": 2,
        "model.hidden_dropout": 0.1,  # so that random draws that differ would show
        "max_steps": STEPS,
        "sequence_length": 32,
        "global_batch_size": 8,
        "per_device_train_batch_size": 4,
        "bf16": "false",
        "logging_steps": 1,
        "eval_steps": 4,
        "eval_sequences": 4,
        "save_steps": 3,
        **options,
    }
    return [part for key, value in settings.items() for part in (f"--{key}", str(value))]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As in the processes of a launcher: another number of threads adds up in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(text_data: dict[str, str], output_dir: Path, **options: object) -> list[dict]:
    """Pretrain in this process; the records of metrics.jsonl without those of speed."""
    AcceleratorState._reset_state(reset_partial_state=True)
    pretrain.main(arguments(text_data, output_dir, **options))
    return metrics(output_dir)


def metrics(output_dir: Path) -> list[dict]:
    records = [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key not in TIMINGS} for record in records]


def losses(records: list[dict]) -> torch.Tensor:
    return torch.tensor([record["loss"] for record in records if "loss" in record])


@pytest.fixture(scope="module")
def untouched(text_data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("untouched") / "model"
    run(text_data, folder)
    return folder


def test_it_learns_and_leaves_a_model_directory(untouched):
    records = metrics(untouched)
    curve = losses(records)
    assert len(curve) == STEPS
    assert curve[0] == pytest.approx(math.log(VOCAB_SIZE), rel=0.05)
    assert curve[-1] < curve[0] - 0.3
    assert [record["step"] for record in records if "validation_loss" in record] == [4, 8, 9]
    assert (untouched / "loss.png").stat().st_size > 1000
    model = AutoModelForCausalLM.from_pretrained(untouched)
    assert model.config.max_position_embeddings == 32 and model.config.pad_token_id == 1
    assert len(AutoTokenizer.from_pretrained(untouched)) == VOCAB_SIZE
    checkpoints = sorted(folder.name for folder in (untouched / "checkpoints").iterdir())
    assert checkpoints == ["step-00000006", "step-00000009"]
    checkpoint = untouched / "checkpoints" / "step-00000006"
    AutoModelForCausalLM.from_pretrained(checkpoint)
    assert {AutoTokenizer.from_pretrained(folder).model_max_length for folder in (untouched, checkpoint)} == {32}


def test_a_finished_run_is_skipped_without_torch(text_data, untouched):
    """Nor is transformers imported, so that the answer comes at once."""
    check = (
        "import sys; from training.cli import main; code = main(sys.argv[1:]); "
        "raise SystemExit(code or ', '.join({'torch', 'transformers'} & sys.modules.keys()) or None)"
    )
    command = [sys.executable, "-c", check, "pretrain", *arguments(text_data, untouched)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "is up to date, skipped" in done.stdout


def test_a_folder_without_shards_is_refused_unread(text_data, tmp_path, monkeypatch):
    """Hashing a whole disk would take hours."""
    monkeypatch.setattr("training.commands.pretrain.digest", lambda *_: pytest.fail("hashed"))
    with refused("data", tmp_path, "no token shards"):
        pretrain.main(arguments(text_data | {"data": str(tmp_path)}, tmp_path / "new"))


def test_accumulation_equals_one_large_batch(text_data, tmp_path):
    # AdamW: Muon's products in bf16 magnify the last bits by which the order of a sum matters.
    options = {"model.hidden_dropout": 0.0, "max_steps": 4, "optimizer.name": "adamw", "optimizer.learning_rate": 1e-3}
    whole = run(text_data, tmp_path / "whole", per_device_train_batch_size=8, **options)
    parts = run(text_data, tmp_path / "parts", per_device_train_batch_size=2, **options)
    torch.testing.assert_close(losses(parts), losses(whole), atol=2e-5, rtol=0)


def test_activation_checkpointing_changes_nothing(text_data, tmp_path):
    options = {"max_steps": 4, "activation_checkpointing": "true"}
    saved = run(text_data, tmp_path / "saved", **options)
    plain = run(text_data, tmp_path / "plain", max_steps=4)
    torch.testing.assert_close(losses(saved), losses(plain), atol=1e-6, rtol=0)


def test_two_processes_equal_one(text_data, tmp_path):
    options = {"model.hidden_dropout": 0.0, "max_steps": 4, "per_device_train_batch_size": 2}
    options |= {"optimizer.name": "adamw", "optimizer.learning_rate": 1e-3}
    one = run(text_data, tmp_path / "one", **options)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "recipes/accelerate/cpu.yaml"]
    command = [*launch, "-m", "training", "pretrain", *arguments(text_data, tmp_path / "two", **options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 x cpu" in done.stdout and "2 accumulation steps" in done.stdout
    torch.testing.assert_close(losses(metrics(tmp_path / "two")), losses(one), atol=2e-5, rtol=0)


def test_samples_are_printed_and_leave_the_training_alone(text_data, untouched, tmp_path, capsys):
    run(text_data, tmp_path / "model", sample_prompts="[def, import]", sample_tokens=8)
    printed = capsys.readouterr().out
    assert "    | def" in printed and "    | import" in printed
    assert metrics(tmp_path / "model") == metrics(untouched)


def test_bf16_stays_close_to_fp32(text_data, tmp_path):
    options = {"model.hidden_dropout": 0.0, "max_steps": 4}
    plain = run(text_data, tmp_path / "plain", **options)
    mixed = run(text_data, tmp_path / "mixed", **{**options, "bf16": "true"})
    torch.testing.assert_close(losses(mixed), losses(plain), atol=0.02, rtol=0)
