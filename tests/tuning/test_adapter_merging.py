"""Adapters: the merged model is the trained one, and only the base they were trained on takes them."""

import json
import os
import shutil

import pytest
import torch
from messages import refused
from peft import LoraConfig, PeftModel, get_peft_model
from tiny_model import build, logits, tokens
from transformers import AutoModelForCausalLM

from training.tuning.adapters import check_adapter, merge_adapter, merge_into_base, save_adapter


def adapted(base, **options):
    """A base with an adapter that changes what it computes."""
    torch.manual_seed(1)
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=16, task_type="CAUSAL_LM", **options))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "options, together",
    [
        ({"target_modules": ["q_proj"]}, True),
        ({"target_modules": ["q_proj", "embed_tokens"]}, False),
        ({"target_modules": ["embed_tokens"], "use_dora": True}, False),
        ({"target_modules": ["lm_head"]}, False),
        ({"target_modules": ["embed_tokens", "lm_head"]}, False),
        ({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}, False),
        ({"target_modules": ["q_proj"], "trainable_token_indices": [3, 5]}, True),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_the_merged_model_is_the_trained_one(options, together, tied, tmp_path, capsys):
    base = build("gpt2", tie_word_embeddings=tied)
    base.save_pretrained(tmp_path / "base")
    model = adapted(base, **options)
    trained = logits(model, tokens(2, 9))
    assert (trained - logits(build("gpt2", tie_word_embeddings=tied), tokens(2, 9))).abs().max() > 0.1
    model.save_pretrained(tmp_path / "adapter")
    from_files = merge_adapter(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "adapter", "adapter")
    for merged in (merge_into_base(model), from_files):
        merged.save_pretrained(tmp_path / "merged")
        opened = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
        for found in (merged, opened):
            torch.testing.assert_close(logits(found, tokens(2, 9)), trained, atol=2e-4, rtol=1e-4)
            one = found.lm_head.weight is found.get_input_embeddings().weight
            assert one == found.config.tie_word_embeddings == (tied and together)
    assert ("two matrices" in capsys.readouterr().out) == (tied and not together)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two models of the same shapes, an adapter of the first as our stages write it, and as stock programs do."""
    place = tmp_path_factory.mktemp("adapters")
    for name, more in {"base": 0.0, "other": 0.1}.items():
        model = build()
        model.lm_head.weight.data += more
        model.save_pretrained(place / name)
    model = adapted(AutoModelForCausalLM.from_pretrained(place / "base"), target_modules=["q_proj"])
    save_adapter(model, str(place / "base"), place / "stage" / "adapter")
    PeftModel.save_pretrained(model, place / "stock")
    return place


@pytest.mark.parametrize("written_by", ["stage/adapter", "stock"])
@pytest.mark.parametrize("copied", [False, True])
def test_an_adapter_is_for_its_base_alone(place, tmp_path, capsys, written_by, copied):
    folder = place / written_by
    if copied:
        folder = shutil.copytree(folder, tmp_path / "elsewhere")
    AutoModelForCausalLM.from_pretrained(place / "base").save_pretrained(tmp_path / "moved", max_shard_size="20KB")
    for base in (place / "base", tmp_path / "moved"):
        check_adapter(folder, base, "adapter")
    with refused("adapter", folder, "other weights than those in", place / "other", "'model'", place / "base"):
        check_adapter(folder, place / "other", "adapter")
    assert not capsys.readouterr().out


def test_an_adapter_whose_base_is_not_here(place, tmp_path, capsys):
    """Only the digest that our stages note can tell then; without it, a line says that nothing does."""
    for name, known in {"stage/adapter": True, "stock": False}.items():
        folder = shutil.copytree(place / name, tmp_path / name)
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": "someone/model"}))
        check_adapter(folder, place / "base", "adapter")
        if known:
            with refused("adapter", "someone/model"):
                check_adapter(folder, place / "other", "adapter")
        else:
            check_adapter(folder, place / "other", "adapter")
        lines = capsys.readouterr().out.splitlines()
        assert not lines if known else len(lines) == 2 and all("someone/model" in line for line in lines)


def test_a_base_that_is_newer_than_a_stock_adapter(place, tmp_path, capsys):
    """It may have been trained again in the same folder, of which the adapter notes only the name."""
    folder = shutil.copytree(place / "stock", tmp_path / "adapter")
    os.utime(folder / "adapter_model.safetensors", (1, 1))
    check_adapter(folder, place / "base", "adapter")
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and f"the weights in {place / 'base'} are newer than the adapter in {folder}" in line


def test_damaged_notes(place, tmp_path):
    folder = shutil.copytree(place / "stage" / "adapter", tmp_path / "adapter")
    for name in ("base.json", "adapter_config.json"):
        (folder / name).write_text("{}")
        with refused("adapter", folder / name, "damaged"):
            check_adapter(folder, place / "base", "adapter")
    with refused("adapter", place / "base", "holds no adapter"):
        check_adapter(place / "base", place / "base", "adapter")
