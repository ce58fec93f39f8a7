"""The gradient equals that of one large batch in plain arithmetic, however it is computed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gradients import first_gradients
from safetensors.torch import load_file
from tiny_stages import LINES, VOCAB_SIZE, flags, forget_accelerate, write_tokenizer

from modeling_scratch.tokenization_scratch import ScratchTokenizer
from training.data.shards import write_manifest, write_shard
from training.stages.stage import Stage

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> dict[str, object]:
    """Packed documents of very different lengths: sequences, and so micro-batches, differ in scored tokens."""
    folder = tmp_path_factory.mktemp("gradients")
    tokenizer = write_tokenizer(folder / "tokenizer")
    encoder = ScratchTokenizer.load(tokenizer)
    texts = [" ".join(LINES[start : start + 1 + start % 4]) for start in range(0, 200, 5)]
    ids = [[*encoder.encode(text), 0] for text in texts]
    stage = Stage("prepare", str(folder / "data"), {}, {}, [])
    splits = {split: write_shard(stage.begin(), split, ids, VOCAB_SIZE, "t") for split in ("train", "validation")}
    for entry in splits.values():
        entry["bytes"] = sum(map(len, texts))
    write_manifest(stage.folder, splits, tokenizer, VOCAB_SIZE, {})
    stage.finish({}, wrote="shards")
    return {
        "data": folder / "data",
        "tokenizer": tokenizer,
        "output_dir": folder / "model",
        "model.hidden_size": 32,
        "model.num_hidden_layers": 2,
        "model.num_attention_heads": 2,
        "sequence_length": 48,
        "global_batch_size": 8,
        "per_device_train_batch_size": 8,
        "packing": "best_fit",
        "document_mask": "true",
        "max_grad_norm": 0,
        "bf16": "false",
        "max_steps": 2,
    }


def gradients(recipe: dict[str, object], dtype: torch.dtype = torch.double, **options: object):
    forget_accelerate()
    return first_gradients(flags({**recipe, **options}), dtype)


def worst(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    assert max(tensor.abs().max() for tensor in one.values()) > 0.05
    return max((one[name] - other[name]).abs().max().item() for name in one)


@pytest.mark.parametrize("rows", [1, 4])
def test_unequal_parts_add_up_to_the_whole_batch(recipe, rows):
    # RMSNorm and the loss work in fp32 whatever the weights are: 1e-7 of what they hand on.
    assert worst(gradients(recipe, per_device_train_batch_size=rows), gradients(recipe)) <= 1e-6


def test_two_processes_add_up_to_the_whole_batch(recipe, tmp_path):
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "recipes/accelerate/cpu.yaml"]
    arguments = flags({**recipe, "per_device_train_batch_size": 2})
    command = [*launch, "tests/helpers/gradients.py", str(tmp_path / "two.safetensors"), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert worst(load_file(tmp_path / "two.safetensors"), gradients(recipe)) <= 1e-6


def test_activation_checkpointing_recomputes_the_same(recipe):
    assert worst(gradients(recipe, activation_checkpointing="true"), gradients(recipe)) <= 1e-9


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_is_close_to_plain(recipe):
    plain = gradients(recipe, torch.float)
    assert worst(gradients(recipe, torch.float, torch_compile="true"), plain) <= 1e-5


def test_bf16_points_the_same_way(recipe):
    plain, mixed = (
        torch.cat([gradient.flatten() for gradient in gradients(recipe, torch.float, bf16=bf16).values()])
        for bf16 in ("false", "true")
    )
    assert torch.nn.functional.cosine_similarity(plain, mixed, dim=0) > 0.999
    assert mixed.norm().item() == pytest.approx(plain.norm().item(), rel=0.01)
