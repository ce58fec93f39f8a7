"""Training in several processes, started by Accelerate's launcher from the files in recipes/accelerate.

Two processes on one machine's processors, over gloo, in the place of GPUs over NCCL. A start takes several seconds, so
each launch makes several runs (see launched.py), and the tests look at what they left. Expected losses come from one
process, without a launcher.
"""

import json
import shutil
import socket
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
STEPS = 6
ADAMW = {"optimizer.name": "adamw", "optimizer.learning_rate": 0.001}
BF16 = ADAMW | {"bf16": "true"}
# Rounding in other orders; Muon's polar factors turn a last bit of a gradient into one of bf16, where they are bf16.
ATOL = {"adamw": 2e-5, "muon": 1e-3}
COMPILER = shutil.which("g++") or shutil.which("clang++")


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
            # Rows, and matrices of a shape, that two processes cannot share out evenly; accumulation; clipping.
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
            "eval_steps": STEPS // 2,
            "eval_sequences": 2,
            "save_steps": STEPS // 2,
            **options,
        }
        return ["pretrain", *flags(settings)]

    arguments.folder = folder
    return arguments


def losses(folder: Path) -> torch.Tensor:
    """Training and validation losses of all steps."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = [record.get("loss", record.get("validation_loss")) for record in records]
    assert len(found) == STEPS + 2
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


def wait_for(process, log: Path, code: int = 0, seconds: float = 400) -> None:
    try:
        found = process.wait(seconds)
    finally:
        process.terminate()  # the launcher ends its processes then
        process.wait()
    assert found == code, log.read_text()[-4000:]


def interrupt(folder: Path) -> None:
    """Make a finished run one that was killed after half of its steps. What it had is kept with the suffix `-whole`."""
    shutil.copytree(folder, folder.with_name(f"{folder.name}-whole"))
    work = folder.rename(folder.with_name(f"{folder.name}.partial"))
    shutil.rmtree(work / "checkpoints" / f"step-{STEPS:08d}")
    lines = (work / "metrics.jsonl").read_text().splitlines(keepends=True)
    (work / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] <= STEPS // 2))


# --- FSDP2 ---


@pytest.fixture(scope="module")
def sharded(terminal, pretrain, inputs, tmp_path_factory):
    """Runs on one, two and again one process: `grows` goes on from one to two, `shrinks` from two to one."""
    folder, runs = tmp_path_factory.mktemp("sharded"), pretrain.folder
    grows, shrinks = {"grows": pretrain("grows", **ADAMW)}, {"shrinks": pretrain("shrinks")}
    launch(terminal, "fsdp2", 1, grows, folder / "1", **SHARDED)
    interrupt(runs / "grows")
    two = {
        "adamw": pretrain("adamw", **ADAMW),
        "bf16": pretrain("bf16", **BF16),
        "recomputed": pretrain("recomputed", activation_checkpointing="true", **ADAMW),
    }
    if COMPILER:
        two["compiled"] = pretrain("compiled", activation_checkpointing="true", torch_compile="true", **ADAMW)
    done = launch(terminal, "fsdp2", 2, two | grows | shrinks, folder / "2", **SHARDED)
    interrupt(runs / "shrinks")
    done |= launch(terminal, "fsdp2", 1, shrinks, folder / "3", **SHARDED)
    for launched in ("2", "3"):
        assert (folder / launched / "log").read_text().count(f"going on from step {STEPS // 2}") == 1
    return done


@pytest.mark.parametrize("name", ["adamw", "recomputed", "grows", "shrinks", "shrinks-whole"])
def test_sharded_runs_equal_one_process(sharded, pretrain, expected, name):
    if name in sharded:
        assert sharded[name]["code"] == 0 and sharded[name]["kind"] == "DistributedType.FSDP"
        assert sharded[name]["processes"] == (1 if name == "shrinks" else 2)
    optimizer = "muon" if name.startswith("shrinks") else "adamw"
    found = losses(pretrain.folder / name)
    torch.testing.assert_close(found, expected[optimizer], atol=ATOL[optimizer], rtol=0)
    assert found[-2] < found[0] - 0.2


@pytest.mark.skipif(not COMPILER, reason="no C++ compiler")
def test_compiled_layers_of_a_sharded_model(sharded, pretrain, expected):
    assert sharded["compiled"]["kind"] == "DistributedType.FSDP" and sharded["compiled"]["graphs"] > 0
    torch.testing.assert_close(losses(pretrain.folder / "compiled"), expected["adamw"], atol=ATOL["adamw"], rtol=0)


def test_a_sharded_loss_in_bf16_keeps_its_digits(sharded, pretrain, expected):
    assert sharded["bf16"]["kind"] == "DistributedType.FSDP"
    found = losses(pretrain.folder / "bf16")
    torch.testing.assert_close(found, expected["bf16"], atol=0.01, rtol=0)
    assert not torch.any(found == found.bfloat16())  # between 4 and 8, bf16 has multiples of 1/32


@pytest.mark.parametrize("name", ["adamw", "grows", "shrinks", "shrinks-whole"])
def test_a_sharded_checkpoint_is_also_a_model_directory(sharded, pretrain, expected, tmp_path, name):
    checkpoint = pretrain.folder / name / "checkpoints" / f"step-{STEPS:08d}"
    dcp_to_torch_save(checkpoint / "state" / "pytorch_model_fsdp_0", tmp_path / "whole.pt")
    whole = torch.load(tmp_path / "whole.pt")["model"]
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    assert model.state_dict().keys() == whole.keys()
    assert all(torch.equal(weight, whole[name]) for name, weight in model.state_dict().items())

    input_ids = torch.arange(24).view(2, 12)
    optimizer, atol = ("muon", 0.05) if name.startswith("shrinks") else ("adamw", 1e-4)
    other = AutoModelForCausalLM.from_pretrained(pretrain.folder / f"one-{optimizer}")
    with torch.no_grad():
        logits, wanted = model(input_ids).logits, other(input_ids).logits
    torch.testing.assert_close(logits, wanted, atol=atol, rtol=0)


# --- Plain data parallel ---


@pytest.fixture(scope="module")
def parallel(terminal, pretrain, tmp_path_factory):
    runs = {"ddp-adamw": pretrain("ddp-adamw", **ADAMW), "ddp-muon": pretrain("ddp-muon")}
    return launch(terminal, "cpu", 2, runs, tmp_path_factory.mktemp("parallel") / "1", **CPU)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_data_parallel_runs_equal_one_process(parallel, pretrain, expected, optimizer):
    run = parallel[f"ddp-{optimizer}"]
    assert run == {"code": 0, "kind": "DistributedType.MULTI_CPU", "processes": 2, "graphs": 0}
    found = losses(pretrain.folder / f"ddp-{optimizer}")
    torch.testing.assert_close(found, expected[optimizer], atol=ATOL[optimizer], rtol=0)


def test_a_mistake_is_told_once(terminal, pretrain, tmp_path):
    """A batch that two processes cannot share out, though one process could take it."""
    command = [*LAUNCH, ROOT / "recipes/accelerate/cpu.yaml", "-m", "training.pretrain"]
    command += pretrain("uneven", global_batch_size=6)[1:]
    wait_for(terminal.start(command, ROOT, tmp_path / "log", **CPU), tmp_path / "log", code=1)
    (line,) = (line for line in (tmp_path / "log").read_text().splitlines() if line.startswith("error"))
    assert line == (
        "error: 'global_batch_size': 6 is not a multiple of per_device_train_batch_size (2) x processes (2)"
    )
    assert not list(pretrain.folder.glob("uneven*"))


# --- Two machines ---


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_two_machines_by_accelerate(terminal, pretrain, expected, tmp_path):
    """Two launchers of one process each, with the file for several machines: sharded."""
    (tmp_path / "runs.json").write_text(json.dumps({"machines": pretrain("machines")}))
    config = [ROOT / "recipes" / "accelerate" / "multi-node.yaml", "--num_machines", 2, "--num_processes", 2]
    address = ["--main_process_ip", "127.0.0.1", "--main_process_port", free_port()]
    script = [ROOT / "tests" / "launched.py", tmp_path / "runs.json"]
    both = [
        terminal.start(
            [*LAUNCH, *config, *address, "--machine_rank", rank, *script], tmp_path, tmp_path / f"{rank}.log", **SHARDED
        )
        for rank in range(2)
    ]
    for rank, machine in enumerate(both):
        wait_for(machine, tmp_path / f"{rank}.log")
    done = json.loads((tmp_path / "runs.done").read_text())["machines"]
    assert done["kind"] == "DistributedType.FSDP" and done["processes"] == 2
    torch.testing.assert_close(losses(pretrain.folder / "machines"), expected["muon"], atol=ATOL["muon"], rtol=0)


def test_two_machines_by_torchrun(terminal, pretrain, expected, tmp_path):
    """Two launchers of one process each, without a launch file: every process holds the whole model."""
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--rdzv-id", 1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", 2, "--nproc-per-node", 1, *meeting]
    command += ["--local-addr", "127.0.0.1", "-m", "training.pretrain", *pretrain("torchrun", **ADAMW)[1:]]
    both = [terminal.start(command, ROOT, tmp_path / f"{number}.log", **CPU) for number in range(2)]
    for number, machine in enumerate(both):
        wait_for(machine, tmp_path / f"{number}.log")
    printed = sorted((tmp_path / f"{number}.log").read_text() for number in range(2))
    assert "2 x cpu" in printed[0] + printed[1]
    assert sum("validation loss" in text for text in printed) == 1  # one process speaks
    torch.testing.assert_close(losses(pretrain.folder / "torchrun"), expected["adamw"], atol=ATOL["adamw"], rtol=0)
