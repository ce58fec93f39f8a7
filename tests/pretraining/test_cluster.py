"""Training in several processes, started by Accelerate's launcher from the files in recipes/accelerate.

Two processes on the CPUs of one machine, over gloo, stand for GPUs over NCCL. A start takes several seconds, so each
launch makes several runs (see launched.py), and the tests check their output. Expected losses come from one process
without a launcher.
"""

import dataclasses
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import DeepSpeedPlugin
from provenance import unfinish
from safetensors.torch import load_file
from terminal import ROOT
from tiny_stages import flags, forget_accelerate, write_data, write_tokenizer
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.run import get_args_parser as torchrun_parser
from transformers import AutoModelForCausalLM

from training import cli
from training.pretraining.config import PretrainConfig
from training.stages.flags import parse as recipe_of

LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
CPU = {"ACCELERATE_USE_CPU": "true"}
SHARDED = {**CPU, "SHARD_ON_CPU": "true"}
STEPS = 6
ADAMW = {"optimizer.name": "adamw", "optimizer.learning_rate": 0.001}
BF16 = ADAMW | {"bf16": "true"}
COMPILED = {"torch_compile": "true"}
EVEN = ADAMW | {"model.intermediate_size": 48}  # for tensor parallelism, which divides it evenly
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
    for name, options in {"adamw": ADAMW, "muon": {}, "bf16": BF16, "even": EVEN}.items():
        forget_accelerate()
        assert cli.main(pretrain(f"one-{name}", **options)) == 0
        found[name] = losses(pretrain.folder / f"one-{name}")
    forget_accelerate()
    return found


def launch(terminal, file: str, processes: int, runs: dict[str, list[str]], folder: Path, **environment: str) -> dict:
    """Make runs, one after the other, in the same processes; return the report of launched.py on each."""
    folder.mkdir()
    (folder / "runs.json").write_text(json.dumps(runs))
    config = ROOT / "recipes" / "accelerate" / f"{file}.yaml"
    if file == "fsdp2-tp":
        (folder / "four.yaml").write_text(config.read_text().replace("dp_shard_size: 4", "dp_shard_size: 2"))
        config = folder / "four.yaml"
    script = [ROOT / "tests" / "helpers" / "launched.py", folder / "runs.json"]
    command = [*LAUNCH, config, "--num_processes", processes, *script]
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
    """Turn a finished run into one killed after half of its steps. A copy of the whole run has the suffix `-whole`."""
    shutil.copytree(folder, folder.with_name(f"{folder.name}-whole"))
    work = folder.rename(folder.with_name(f"{folder.name}.partial"))
    unfinish(work)
    shutil.rmtree(work / "checkpoints" / f"step-{STEPS:08d}")
    lines = (work / "metrics.jsonl").read_text().splitlines(keepends=True)
    (work / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] <= STEPS // 2))


# --- FSDP2 ---


@pytest.fixture(scope="module")
def sharded(terminal, pretrain, inputs, tmp_path_factory):
    """Runs on one, two, four and again one process.

    `grows` resumes from one on two, `shrinks` from two on one; `widens` from one on two groups of two that divide the
    matrices, `divided` from these on one.
    """
    folder, runs = tmp_path_factory.mktemp("sharded"), pretrain.folder
    widens = {"widens": pretrain("widens", **EVEN)}
    divided = {"divided": pretrain("divided", activation_checkpointing="true", **EVEN)}
    grows, shrinks = {"grows": pretrain("grows", **ADAMW)}, {"shrinks": pretrain("shrinks")}
    launch(terminal, "fsdp2", 1, grows | widens, folder / "1", **SHARDED)
    interrupt(runs / "grows")
    interrupt(runs / "widens")
    two = {
        "adamw": pretrain("adamw", **ADAMW),
        "bf16": pretrain("bf16", **BF16),
        "recomputed": pretrain("recomputed", activation_checkpointing="true", **ADAMW),
    }
    if COMPILER:
        two["compiled"] = pretrain("compiled", activation_checkpointing="true", torch_compile="true", **ADAMW)
    done = launch(terminal, "fsdp2", 2, two | grows | shrinks, folder / "2", **SHARDED)
    refused = {"muon-parts": pretrain("muon-parts"), "compiled-parts": pretrain("compiled-parts", **EVEN, **COMPILED)}
    four = launch(terminal, "fsdp2-tp", 4, widens | divided | refused, folder / "4", **SHARDED)
    interrupt(runs / "shrinks")
    interrupt(runs / "divided")
    done |= launch(terminal, "fsdp2", 1, shrinks | divided, folder / "3", **SHARDED)
    done |= four
    for launched, resumed in {"2": 1, "3": 2, "4": 1}.items():
        assert (folder / launched / "log").read_text().count(f"resuming from step {STEPS // 2}") == resumed
    for key in ("optimizer.name", "torch_compile"):
        assert (folder / "4" / "log").read_text().count(f"error: '{key}': ") == 1
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


@pytest.mark.parametrize("name", ["divided-whole", "divided", "widens"])
def test_divided_matrices_equal_one_process(sharded, pretrain, expected, name):
    """Tensor parallelism beside FSDP2, two by two: losses, and the weights of the exported model."""
    run = sharded[name.removesuffix("-whole")]
    assert run["code"] == 0 and run["kind"] == "DistributedType.FSDP" and run["processes"] == 4
    torch.testing.assert_close(losses(pretrain.folder / name), expected["even"], atol=ATOL["adamw"], rtol=0)
    weights, wanted = (load_file(pretrain.folder / run / "model.safetensors") for run in (name, "one-even"))
    assert weights.keys() == wanted.keys()
    for key, weight in weights.items():
        torch.testing.assert_close(weight, wanted[key], atol=1e-4, rtol=0, msg=key)


@pytest.mark.parametrize("name", ["muon-parts", "compiled-parts"])
def test_what_tensor_parallelism_cannot_do_is_refused(sharded, pretrain, name):
    assert sharded[name]["code"] == 2
    assert not list(pretrain.folder.glob(f"{name}*"))


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


def test_a_checkpoint_of_another_kind_of_launch_is_refused(sharded, pretrain, capsys):
    unfinished = pretrain.folder / "other.partial"
    shutil.copytree(pretrain.folder / "adamw", unfinished)
    unfinish(unfinished)
    forget_accelerate()
    assert cli.main(pretrain("other", **ADAMW)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"step-{STEPS:08d} was written with FSDP, but this launch runs with " in line
    assert "resume with a launch file of the same kind" in line


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


def test_a_data_parallel_run_goes_on_in_one_process(parallel, pretrain, expected, capsys):
    interrupt(pretrain.folder / "ddp-adamw")
    forget_accelerate()
    assert cli.main(pretrain("ddp-adamw", **ADAMW)) == 0
    assert f"resuming from step {STEPS // 2}" in capsys.readouterr().out
    torch.testing.assert_close(losses(pretrain.folder / "ddp-adamw"), expected["adamw"], atol=ATOL["adamw"], rtol=0)


def test_a_mistake_is_told_once(terminal, pretrain, tmp_path):
    """A batch that two processes cannot divide evenly, though one process could take it."""
    command = [*LAUNCH, ROOT / "recipes/accelerate/cpu.yaml", "-m", "training", "pretrain"]
    command += pretrain("uneven", global_batch_size=6)[1:]
    wait_for(terminal.start(command, ROOT, tmp_path / "log", **CPU), tmp_path / "log", code=1)
    (line,) = (line for line in (tmp_path / "log").read_text().splitlines() if line.startswith("error"))
    assert line == (
        "error: 'global_batch_size': 6 is not a multiple of per_device_train_batch_size (2) x processes (2); "
        "set it to 8"
    )
    assert not list(pretrain.folder.glob("uneven*"))


# --- Two machines ---


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_two_machines_by_accelerate(terminal, pretrain, expected, tmp_path):
    """Two launchers with one process each and the launch file for several machines: sharded."""
    (tmp_path / "runs.json").write_text(json.dumps({"machines": pretrain("machines")}))
    config = [ROOT / "recipes" / "accelerate" / "multi-node.yaml", "--num_machines", 2, "--num_processes", 2]
    address = ["--main_process_ip", "127.0.0.1", "--main_process_port", free_port()]
    script = [ROOT / "tests" / "helpers" / "launched.py", tmp_path / "runs.json"]
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


@pytest.mark.release
def test_two_machines_by_torchrun(terminal, pretrain, expected, tmp_path):
    """Two launchers with one process each, without a launch file: every process holds the whole model."""
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--rdzv-id", 1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", 2, "--nproc-per-node", 1, *meeting]
    command += ["--local-addr", "127.0.0.1", "-m", "training", "pretrain", *pretrain("torchrun", **ADAMW)[1:]]
    both = [terminal.start(command, ROOT, tmp_path / f"{number}.log", **CPU) for number in range(2)]
    for number, machine in enumerate(both):
        wait_for(machine, tmp_path / f"{number}.log")
    printed = sorted((tmp_path / f"{number}.log").read_text() for number in range(2))
    assert "2 x cpu" in printed[0] + printed[1]
    assert sum("validation loss" in text for text in printed) == 1  # one process speaks
    torch.testing.assert_close(losses(pretrain.folder / "torchrun"), expected["adamw"], atol=ATOL["adamw"], rtol=0)


# --- DeepSpeed ---


@pytest.mark.skipif(not importlib.util.find_spec("deepspeed"), reason="DeepSpeed is not installed")
@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed(terminal, pretrain, expected, tmp_path, stage):
    runs = {"flat": pretrain("flat"), f"zero{stage}": pretrain(f"zero{stage}", **ADAMW)}
    done = launch(terminal, f"zero{stage}", 2, runs, tmp_path / "launch", **SHARDED)
    assert done["flat"]["code"] == 2
    assert "error: 'optimizer.name': muon needs whole matrices" in (tmp_path / "launch" / "log").read_text()
    assert not list(pretrain.folder.glob("flat*"))
    run = done[f"zero{stage}"]
    assert run["code"] == 0 and run["kind"] == "DistributedType.DEEPSPEED" and run["processes"] == 2
    found = losses(pretrain.folder / f"zero{stage}")
    torch.testing.assert_close(found, expected["adamw"], atol=ATOL["adamw"], rtol=0)
    interrupt(pretrain.folder / f"zero{stage}")
    launch(terminal, f"zero{stage}", 2, runs, tmp_path / "again", **SHARDED)
    assert f"resuming from step {STEPS // 2}" in (tmp_path / "again" / "log").read_text()
    found = losses(pretrain.folder / f"zero{stage}")
    torch.testing.assert_close(found, expected["adamw"], atol=ATOL["adamw"], rtol=0)
    weights, wanted = (
        load_file(pretrain.folder / name / "model.safetensors") for name in (f"zero{stage}", "one-adamw")
    )
    assert weights.keys() == wanted.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, wanted[name], atol=1e-4, rtol=0, msg=name)

    shutil.copytree(pretrain.folder / f"zero{stage}-whole", pretrain.folder / f"fewer{stage}.partial")
    unfinish(pretrain.folder / f"fewer{stage}.partial")
    fewer = {f"fewer{stage}": pretrain(f"fewer{stage}", **ADAMW)}
    assert launch(terminal, f"zero{stage}", 1, fewer, tmp_path / "fewer", **SHARDED)[f"fewer{stage}"]["code"] == 2
    assert "written by 2 processes of DeepSpeed, which cannot resume with 1" in (tmp_path / "fewer" / "log").read_text()


@pytest.mark.skipif(not importlib.util.find_spec("deepspeed"), reason="DeepSpeed is not installed")
@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_reads_its_file(stage):
    from deepspeed.runtime.config import DeepSpeedConfig

    file = load_config_from_file(str(ROOT / "recipes" / "accelerate" / f"zero{stage}.yaml"))
    plugin = DeepSpeedPlugin(
        zero_stage=file.deepspeed_config["zero_stage"],
        offload_optimizer_device=file.deepspeed_config["offload_optimizer_device"],
        offload_param_device=file.deepspeed_config["offload_param_device"],
        zero3_save_16bit_model=file.deepspeed_config.get("zero3_save_16bit_model"),
        gradient_accumulation_steps=2,
        gradient_clipping=1.0,
    )
    config = DeepSpeedConfig(plugin.deepspeed_config | {"train_micro_batch_size_per_gpu": 4, "train_batch_size": 8})
    assert (config.zero_config.stage, config.gradient_accumulation_steps, config.gradient_clipping) == (stage, 2, 1.0)
    assert config.zero_config.gather_16bit_weights_on_model_save == (stage == 3)


# --- docs/cluster.md ---

PAGE = (ROOT / "docs" / "cluster.md").read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
(SCRIPT,) = (block for block in BLOCKS if block.startswith("#!"))
COMMANDS = [line for block in BLOCKS if block != SCRIPT for line in block.splitlines()]
COMMANDS += re.findall(r"bash -c 'exec (.*?)'", SCRIPT.replace("\\\n", ""), flags=re.DOTALL)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command):
    words = shlex.split(re.sub(r'"\$.*?"(?= )', "1", command))  # what Slurm fills in
    environment, program = ([], *words[:1]) if "=" not in words[0] else (words[:1], words[1])
    rest = words[len(environment) + 1 :]
    assert environment in ([], ["ACCELERATE_USE_CPU=true"])
    if program == "accelerate":
        assert rest.pop(0) == "launch"
        parsed = launch_command_parser().parse_args(rest)
        assert load_config_from_file(str(ROOT / parsed.config_file)).num_processes
    else:
        assert program == "torchrun"
        parsed = torchrun_parser().parse_args(rest)
    assert parsed.module and parsed.training_script == "training"
    command, key, recipe = parsed.training_script_args
    assert (command, key) == ("pretrain", "--config")
    assert recipe_of(PretrainConfig, [key, str(ROOT / recipe)], "").max_steps


def test_the_page_names_what_there_is():
    for file in re.findall(r"`(\w+\.yaml)`", PAGE):
        assert (ROOT / "recipes" / "accelerate" / file).is_file(), file
    for path in re.findall(r"\b(?:recipes|training|tests|docs)/[\w./-]*\w", PAGE):
        assert (ROOT / path).exists(), path
    keys = {field.name for field in dataclasses.fields(PretrainConfig)}
    named = set(re.findall(r"`([a-z]+_[a-z_]+)\b", PAGE))
    assert named <= keys, named - keys


STAND_INS = {
    # Both machines are this one: every command once on each, but signals only once.
    "srun": """while [[ $1 == --* ]]; do shift; done
        [ "$1" = pkill ] && exec "$@"
        for SLURM_NODEID in 0 1; do SLURM_NODEID=$SLURM_NODEID "$@" & done
        wait -n; code=$?; wait; exit $code""",
    "scontrol": """[ "$1" = show ] && echo 127.0.0.1 && echo 127.0.0.2
        [ "$1" = requeue ] && echo "$2" >> requeued""",
    # Of all training on this machine, only that of this test.
    "pkill": """exec {pkill} "${{@:1:$#-1}}" "${{@: -1}}.*$PWD" """,
    "accelerate": """exec {python} -m accelerate.commands.accelerate_cli "$@" """,
}


@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("pkill")), reason="no bash or no pkill")
def test_slurm_script_saves_and_requeues(terminal, pretrain, tmp_path):
    (tmp_path / "bin").mkdir()
    for name, body in STAND_INS.items():
        if name in ("pkill", "accelerate"):
            body = body.format(pkill=shutil.which("pkill"), python=sys.executable)
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    options = pretrain("slurm", output_dir=tmp_path / "model", max_steps=10_000, save_steps=3, eval_steps=10_000)
    script = SCRIPT.replace("GPUS=8 OMP_NUM_THREADS=8", "GPUS=1").replace("29500", str(free_port()))
    script = script.replace("--config recipes/1b/pretrain.yaml", shlex.join(options[1:]))
    (tmp_path / "job").write_text(script)
    subprocess.run(["bash", "-n", tmp_path / "job"], check=True)

    slurm = {"SLURM_NNODES": "2", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]"}
    slurm["PATH"] = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    stops = []
    for attempt in range(2):
        log = tmp_path / f"{attempt}.log"
        job = terminal.start(["bash", tmp_path / "job"], tmp_path, log, **CPU, **slurm)
        deadline = time.monotonic() + 200
        already = max(stops, default=0)
        while not any(
            int(folder.name[-8:]) > already for folder in (tmp_path / "model.partial/checkpoints").glob("step-*[0-9]")
        ):
            assert job.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.1)
        job.send_signal(signal.SIGTERM)
        wait_for(job, log, code=1)
        (stop,) = re.findall(r"stopped after step (\d+), saved", log.read_text())
        stops.append(int(stop))
        assert (tmp_path / "model.partial" / "checkpoints" / f"step-{stops[-1]:08d}" / "complete.json").is_file()
    assert f"resuming from step {stops[0]}" in log.read_text()
    assert (tmp_path / "requeued").read_text() == "7\n7\n"
