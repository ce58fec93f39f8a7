"""A model whose files are not what its configuration says is refused, in one line that names the weight or the file."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from messages import refused
from safetensors.torch import load_file, save_file
from tiny_model import build
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from modeling_scratch import PRESETS, ScratchForSequenceClassification
from training.common.errors import UserError
from training.model_io.weights import check_weights

WEIGHTS = "model.safetensors"
SHARDED = {"max_shard_size": "20KB"}


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return spoil


def configuration(**values: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(content | values))

    return spoil


def cut_short(folder: Path) -> None:
    with (folder / WEIGHTS).open("r+b") as file:
        file.truncate(file.seek(0, 2) - 1)


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def write(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content)


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


UP = "model.layers.1.mlp.up_proj.weight"
MISSING_SHARD = "model-00002-of-00004.safetensors"

CASES = {
    # what is wrong: how it is made, whether in shards, what the line says
    "missing": (weights(lambda found: found.pop(UP)), {}, f"1 missing ({UP})"),
    "unknown": (weights(lambda found: found.update(extra=torch.ones(3))), {}, "1 unknown (extra)"),
    "shape": (
        weights(lambda found: found.update({"model.norm.weight": torch.ones(3)})),
        {},
        "1 of another shape (model.norm.weight is 3 instead of 32)",
    ),
    "deeper": (configuration(num_hidden_layers=3, layer_types=None), {}, "10 missing (model.layers.2.input_layernorm"),
    "wider": (configuration(intermediate_size=64), {}, "mlp.down_proj.weight is 32 x 48 instead of 32 x 64"),
    "cut short": (cut_short, {}, "a weights file is damaged"),
    "empty": (write(WEIGHTS, ""), {}, "a weights file is damaged"),
    "not tensors": (write(WEIGHTS, "<!doctype html><title>404</title>"), {}, "a weights file is damaged"),
    "no shard": (remove(MISSING_SHARD), SHARDED, MISSING_SHARD),
    "bad index": (write(f"{WEIGHTS}.index.json", "{"), SHARDED, "Expecting property name"),
    "pickled": (pickled, {}, "holds no safetensors model"),
    "no weights": (remove(WEIGHTS), {}, "no file named model.safetensors"),
    "bad config": (write("config.json", "{"), {}, "not a valid JSON file"),
    "bad dial": (configuration(num_attention_heads=3), {}, "num_attention_heads (3) must be a multiple of num_key"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_by_name(tmp_path, capfd, case):
    spoil, options, message = CASES[case]
    folder = tmp_path / "model"
    build("scratch", tie_word_embeddings=True).save_pretrained(folder, **options)
    spoil(folder)
    capfd.readouterr()
    verbosity = logging.get_verbosity()
    with pytest.raises(UserError) as caught:
        check_weights(str(folder), "model")
    line = str(caught.value)
    assert line.startswith("'model': ") and str(folder) in line and message in line
    assert "\n" not in line and len(line) < 400 + 2 * len(str(folder))
    assert capfd.readouterr().err == ""  # not the loader's own table
    assert logging.get_verbosity() == verbosity


def test_a_reward_model_is_no_language_model(tmp_path):
    build("llama").save_pretrained(tmp_path / "language model")
    reward = ScratchForSequenceClassification.from_pretrained(tmp_path / "language model", num_labels=1)
    reward.save_pretrained(tmp_path / "reward")
    with refused("model", tmp_path / "reward", "is a reward model", "`scratch evaluate`", "`scratch export`"):
        check_weights(str(tmp_path / "reward"), "model")


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("preset", PRESETS)
def test_whole_models_pass(tmp_path, preset, tied):
    model = build(preset, tie_word_embeddings=tied)
    model.to(torch.bfloat16).save_pretrained(tmp_path, max_shard_size="20KB" if tied else "1GB")
    check_weights(str(tmp_path), "model")


def test_models_of_other_classes_pass(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=50, **sizes)).save_pretrained(tmp_path / "llama")
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2))
    gpt2.transformer.save_pretrained(tmp_path / "gpt2")  # keys without the prefix of the language model
    for name in ("llama", "gpt2"):
        check_weights(str(tmp_path / name), "model")


@pytest.mark.parametrize("content", ["{oops", "[]", '"text"'])
def test_generation_settings_that_transformers_would_replace_with_defaults(tmp_path, content):
    build().save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(content)
    with refused("model", tmp_path / "generation_config.json", "damaged", "delete it"):
        check_weights(str(tmp_path), "model")
