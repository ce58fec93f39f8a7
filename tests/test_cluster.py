"""Training in several processes, started by Accelerate's launcher from the files in recipes/accelerate.

Two processes on one machine's processors, over gloo, in the place of GPUs over NCCL. A start takes several seconds, so
each launch makes several runs (see launched.py), and the tests look at what they left. Expected losses come from one
process, without a launcher.
"""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from terminal import ROOT
from tiny_stages import flags, forget_accelerate, write_data, write_tokenizer
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from transformers import AutoModelForCausalLM

from training import cli

LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
CPU = {"ACCELERATE_USE_CPU": "true"}
SHARDED = {**CPU, "SHARD_ON_CPU": "true"}
STEPS = 4
ADAMW = {"optimizer.name": "adamw", "optimizer.learning_rate": 0.001}
BF16 = ADAMW | {"bf16": "true"}
# Rounding in other orders; Muon's polar factors turn a last bit of a gradient into one of bf16, where they are bf16.
ATOL = {"adamw": 2e-5, "muon": 1e-3}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    tokenizer = write_tokenizer(folder / "tokenizer")
    return {"tokenizer": tokenizer, "data": write_data(folder / "data", tokenizer)}


@pytest.fixture(scope="module")
def pretrain(inputs, tmp_path_factory):
    """A function that gives the arguments of a small `scratch pretrain` into a folder of this name."""
    folder = tmp_path_factory.mktemp("runs")

    def arguments(name: str, **options: object) -> list[str]:
        settings = {
            **inputs,
            "output_dir": folder / name,
            # Rows, matrices of a shape and steps' batches that two processes cannot share out evenly, and accumulation.
            "model.hidden_size": 36,
            "model.intermediate_size": 49,
            "model.num_hidden_layers": 3,
            "model.num_attention_heads": 2,
            "max_steps": STEPS,
            "sequence_length": 32,
            "global_batch_size": 8,
            "per_device_train_batch_size": 2,
            "max_grad_norm": 0.2,
            "bf16": "false",
            "logging_steps": 1,
            "eval_steps": 2,
            "eval_sequences": 2,
            "save_steps": 2,
            **options,
        }
        return ["pretrain", *flags(settings)]

    arguments.folder = folder
    return arguments


def losses(folder: Path) -> torch.Tensor:
    """Training and validation losses of all steps."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = [record.get("loss", record.get("validation_loss")) for record in records]
    assert len(found) == STEPS + STEPS // 2
    return torch.tensor(found)


@pytest.fixture(scope="module")
def expected(pretrain) -> dict[str, torch.Tensor]:
    """The losses of one process."""
    found = {}
    for name, options in {"adamw": ADAMW, "muon": {}, "bf16": BF16}.items():
        forget_accelerate()
        assert cli.main(pretrain(f"one-{name}", **options)) == 0
        found[name] = losses(pretrain.folder / f"one-{name}")
    forget_accelerate()
    return found


def launch(terminal, file: str, processes: int, runs: dict[str, list[str]], folder: Path, **environment: str) -> dict:
    """Make runs, one after the other, in the same processes. Returns what launched.py says of each."""
    folder.mkdir()
    (folder / "runs.json").write_text(json.dumps(runs))
    config = ROOT / "recipes" / "accelerate" / f"{file}.yaml"
    command = [*LAUNCH, config, "--num_processes", processes, ROOT / "tests" / "launched.py", folder / "runs.json"]
    wait_for(terminal.start(command, folder, folder / "log", **environment), folder / "log")
    done = json.loads((folder / "runs.done").read_text())
    assert done.keys() == runs.keys()
    return done


def wait_for(process, log: Path, code: int = 0, seconds: float = 200) -> None:
    try:
        found = process.wait(seconds)
    finally:
        process.terminate()  # the launcher ends its processes then
        process.wait()
    assert found == code, log.read_text()[-4000:]


def interrupt(folder: Path, copy: Path) -> None:
    """Copy a finished run as if it had been killed after half of its steps."""
    work = copy.with_name(copy.name + ".partial")
    shutil.copytree(folder, work)
    shutil.rmtree(work / "checkpoints" / f"step-{STEPS:08d}")
    lines = (work / "metrics.jsonl").read_text().splitlines(keepends=True)
    (work / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] <= STEPS // 2))


# --- FSDP2 ---


@pytest.fixture(scope="module")
def sharded(terminal, pretrain, inputs, tmp_path_factory):
    """Runs on one, two and again one process, the latter two also going on from a checkpoint of the one before."""
    folder, runs = tmp_path_factory.mktemp("sharded"), pretrain.folder
    one = {"from-one": pretrain("from-one", **ADAMW)}
    done = {"from-one": launch(terminal, "fsdp2", 1, one, folder / "1", **SHARDED)["from-one"]}
    interrupt(runs / "from-one", runs / "one-to-two")
    two = {
        "adamw": pretrain("adamw", **ADAMW),
        "muon": pretrain("muon"),
        "bf16": pretrain("bf16", **BF16),
        "recomputed": pretrain("recomputed", activation_checkpointing="true", **ADAMW),
        "one-to-two": pretrain("one-to-two", **ADAMW),
    }
    done |= launch(terminal, "fsdp2", 2, two, folder / "2", **SHARDED)
    interrupt(runs / "muon", runs / "two-to-one")
    again = {"two-to-one": pretrain("two-to-one")}
    done |= launch(terminal, "fsdp2", 1, again, folder / "3", **SHARDED)
    return done


@pytest.mark.parametrize("name", ["adamw", "muon", "recomputed", "from-one", "one-to-two", "two-to-one"])
def test_sharded_runs_equal_one_process(sharded, pretrain, expected, name):
    assert sharded[name]["code"] == 0 and sharded[name]["kind"] == "DistributedType.FSDP"
    assert sharded[name]["processes"] == (1 if name in ("from-one", "two-to-one") else 2)
    optimizer = "muon" if name in ("muon", "two-to-one") else "adamw"
    found = losses(pretrain.folder / name)
    torch.testing.assert_close(found, expected[optimizer], atol=ATOL[optimizer], rtol=0)
    assert found[-2] < found[0] - 0.2


def test_a_sharded_loss_in_bf16_keeps_its_digits(sharded, pretrain, expected):
    assert sharded["bf16"]["kind"] == "DistributedType.FSDP"
    found = losses(pretrain.folder / "bf16")
    torch.testing.assert_close(found, expected["bf16"], atol=0.01, rtol=0)
    assert not torch.any(found == found.bfloat16())  # between 4 and 8, bf16 has multiples of 1/32


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_sharded_checkpoint_is_also_a_model_directory(sharded, pretrain, tmp_path, name):
    checkpoint = pretrain.folder / name / "checkpoints" / f"step-{STEPS:08d}"
    dcp_to_torch_save(checkpoint / "state" / "pytorch_model_fsdp_0", tmp_path / "whole.pt")
    whole = torch.load(tmp_path / "whole.pt")["model"]
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    assert model.state_dict().keys() == whole.keys()
    assert all(torch.equal(weight, whole[name]) for name, weight in model.state_dict().items())

    input_ids = torch.arange(24).view(2, 12)
    other = AutoModelForCausalLM.from_pretrained(pretrain.folder / f"one-{name}")
    with torch.no_grad():
        logits, expected = model(input_ids).logits, other(input_ids).logits
    torch.testing.assert_close(logits, expected, atol=0.01 if name == "muon" else 1e-4, rtol=0)
