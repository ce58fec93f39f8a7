"""A fine-tuning killed by SIGKILL and started again: weights and losses of the run that nobody touched, bit for bit.

The processes are real, forked from a server that has imported everything. The moments are drawn from a seed that a
failure prints: from the writing of the second checkpoint to somewhere before the next but one.
"""

import json
import os
import random
import signal
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from fork_server import fork_server
from forked import scratch
from safetensors.torch import load_file
from tiny_stages import flags, write_data, write_model, write_tokenizer

STEPS = 12
OPTIONS = {
    "max_steps": STEPS,
    "per_device_train_batch_size": 2,
    "learning_rate": "1e-2",
    "logging_steps": 1,
    "save_steps": 2,
    "max_length": 100,
    "use_cpu": "true",
    "bf16": "false",
    "assistant_only_loss": "true",
    "gradient_checkpointing": "false",
}
LORA = {"use_peft": "true", "lora_r": 4, "lora_dropout": 0.1, "lora_target_modules": "all-linear"}
RUNS = {
    # as the quickstart's recipe, over several epochs
    "full, by length": {"train_sampling_strategy": "group_by_length"},
    "full, split off, NEFTune": {"test_split_size": 0.25, "eval_strategy": "steps", "eval_steps": 3}
    | {"neftune_noise_alpha": 5},
    "LoRA, packed, accumulated": LORA
    | {"packing": "true", "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2},
}


@pytest.fixture(scope="module", autouse=True)
def server():
    with pytest.MonkeyPatch.context() as patch:
        # Another number of threads adds up in another order, and must not have started before a fork.
        for name, value in {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}.items():
            patch.setenv(name, value)
        modules = ("training.cli", "training.commands.sft", "training.tuning.sft", "training.tuning.pipeline.training")
        with fork_server(*modules, "peft"):
            yield


@pytest.fixture(scope="module")
def stages(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("stages")
    tokenizer = write_tokenizer(place / "tokenizer")
    write_data(place / "data", tokenizer)
    write_model(place / "pretrain", tokenizer, dials={"hidden_dropout": 0.1})  # a draw that differs would show
    return place


def start(stages: Path, output: Path, options: dict[str, object]):
    data = [{"path": "json", "data_files": {"train": str(stages / "data" / "instructions" / "train.jsonl")}}]
    required = {"model_name_or_path": stages / "pretrain", "output_dir": output, "datasets": json.dumps(data)}
    arguments = ["sft", *flags(required | OPTIONS | options)]
    process = get_context("forkserver").Process(target=scratch, args=(arguments, output.with_suffix(".log")))
    process.start()
    return process


def kill(process, output: Path, steps_seen: int, wait: float) -> None:
    """SIGKILL, so many seconds after the checkpoint of that step has begun."""
    checkpoint = output.with_name(output.name + ".partial") / "trainer" / f"checkpoint-{steps_seen}"
    while not checkpoint.exists():
        assert process.is_alive(), output.with_suffix(".log").read_text()
        time.sleep(0.0005)
    time.sleep(wait)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL, "it was done already"


def finish(process, output: Path) -> None:
    process.join(120)
    assert process.exitcode == 0, output.with_suffix(".log").read_text()


def losses(output: Path) -> list[tuple[int, float]]:
    records = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [(record["step"], record.get("loss", record.get("eval_loss"))) for record in records]


def tensors(output: Path) -> dict[str, torch.Tensor]:
    """Of the model, and of the adapter if there is one."""
    files = [output / "model.safetensors", *output.glob("adapter/*.safetensors")]
    return {f"{file.parent.name}/{name}": tensor for file in files for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("run", RUNS)
def test_killed_and_resumed(run, stages, tmp_path):
    seed = random.SystemRandom().randrange(10**6)
    draw = random.Random(seed)
    untouched, killed = tmp_path / "a" / "tuned", tmp_path / "b" / "tuned"
    for output in (untouched, killed):
        output.parent.mkdir()
    finish(start(stages, untouched, RUNS[run]), untouched)

    process = start(stages, killed, RUNS[run])
    kill(process, killed, 2 * draw.randint(2, 5), draw.choice([0.0, draw.uniform(0.0, 0.2)]))
    finish(start(stages, killed, RUNS[run]), killed)

    log = killed.with_suffix(".log").read_text()
    expected, found = tensors(untouched), tensors(killed)
    assert log.count("sft: resuming from ") == 1, f"seed {seed}"
    assert losses(killed) == losses(untouched), f"seed {seed}"
    assert expected.keys() == found.keys() and all(map(torch.equal, expected.values(), found.values())), f"seed {seed}"
