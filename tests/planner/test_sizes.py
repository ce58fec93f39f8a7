"""Parameters and operations, against the models themselves."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import transformers
from messages import refused
from planned import SIZES, network
from torch.utils.flop_counter import FlopCounterMode

from modeling_scratch import PRESETS, ScratchConfig, ScratchForCausalLM, loss_scratch
from training.planner import activations, architecture
from training.planner.architecture import Architecture
from training.planner.facts.laws import OWN_TOKENS_PER_PARAMETER
from training.planner.flops import flops_per_token
from training.planner.memory import POLAR_BATCH
from training.planner.requests.config_files import read_config
from training.planner.sizes import architecture_of_size
from training.pretraining import scaling
from training.pretraining.throughput import matrix_parameters, operations_per_token


def count(model: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_and_operations_are_the_models(preset, tied):
    model = network(preset, tie_word_embeddings=tied, num_key_value_heads=2, embedding_shortcut=preset == "scratch")
    planned = Architecture.from_config(model.config)
    assert planned.num_parameters == count(model)
    assert planned.layer_parameters == count(model.model.layers[0])
    assert planned.layer_matrices + planned.head_matrix == matrix_parameters(model)
    assert round(flops_per_token(planned, 24).causal) == operations_per_token(model, model.config, 24)


def test_operations_of_the_full_square_are_those_that_torch_counts():
    model = network("qwen3", device="cpu", head_dim=16)
    tokens = torch.zeros(2, 24, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(tokens, labels=tokens, use_cache=False).loss.backward()
    planned = flops_per_token(Architecture.from_config(model.config), 24)
    assert planned.palm * tokens.numel() == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_a_window_saves_scores_in_both_conventions():
    config = ScratchConfig.from_preset("qwen3", **SIZES, sliding_window=6)
    planned = flops_per_token(Architecture.from_config(config), 24)
    assert planned.attention_square == 12 * 3 * 32 * 6
    assert planned.attention_causal < planned.attention_square


def test_the_planner_has_the_presets_of_the_model():
    for preset in PRESETS:
        options = {name: value for name, value in PRESETS[preset].items() if name != "norm_eps"}
        planned = dataclasses.asdict(Architecture.from_preset(preset, **SIZES))
        real = Architecture.from_config(ScratchConfig.from_preset(preset, **SIZES))
        assert planned == dataclasses.asdict(real) | {"name": preset}
        assert {name: planned[name] for name in options} == options


def test_constants_are_those_of_the_modules_that_import_torch():
    assert (activations.BLOCK_ON_CPU, activations.BLOCK_ON_GPU) == (
        loss_scratch.BLOCK_ON_CPU,
        loss_scratch.BLOCK_ON_GPU,
    )
    assert (activations.PART, activations.SLICE) == (loss_scratch.PART, loss_scratch.SLICE)
    assert OWN_TOKENS_PER_PARAMETER == scaling.TOKENS_PER_PARAMETER
    from training.optim import muon

    assert POLAR_BATCH == muon.POLAR_BATCH


COMMON = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
FAMILIES = {
    "llama": ("LlamaConfig", COMMON | {"tie_word_embeddings": True}),
    "mistral": ("MistralConfig", COMMON),
    "qwen2": ("Qwen2Config", {key: value for key, value in COMMON.items() if key != "head_dim"}),
    "qwen3": ("Qwen3Config", COMMON),
    "gemma": ("GemmaConfig", COMMON),
    "gemma2": ("Gemma2Config", COMMON),
    "gemma3": ("Gemma3TextConfig", COMMON),
    "gpt2": ("GPT2Config", {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "gpt-neox": ("GPTNeoXConfig", {key: COMMON[key] for key in list(COMMON)[:5]}),
    "smollm3": ("SmolLM3Config", COMMON | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}),
    "phi3": ("Phi3Config", COMMON | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_config_json_of_other_families(family, tmp_path):
    name, options = FAMILIES[family]
    config = getattr(transformers, name)(**options)
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    assert read_config(tmp_path).num_parameters == count(model)


def test_our_own_config_json(tmp_path):
    network("scratch", embedding_shortcut=True).config.save_pretrained(tmp_path)
    planned = read_config(tmp_path / "config.json")
    assert planned.num_parameters == count(network("scratch", embedding_shortcut=True))


@pytest.mark.parametrize(
    "content, key, facts",
    [
        ("[]", None, ["config.json"]),
        ("{", None, ["config.json"]),
        ('{"model_type": "mixtral"}', "model_type", ["mixtral", "mistral"]),
        ('{"model_type": "llama", "vocab_size": 8}', "hidden_size", []),
        (json.dumps(COMMON | {"model_type": "llama", "num_attention_heads": 0}), "num_attention_heads", ["0"]),
        (json.dumps(COMMON | {"model_type": "llama", "num_key_value_heads": 3}), "num_attention_heads", ["3"]),
        (json.dumps(COMMON | {"model_type": "llama", "vocab_size": "many"}), "vocab_size", ["many"]),
        (json.dumps(COMMON | {"model_type": "llama", "num_hidden_layers": 10**9}), "num_hidden_layers", ["100,000"]),
        (json.dumps(COMMON | {"model_type": "scratch", "mlp_type": "moe"}), "mlp_type", ["moe", "relu2"]),
        (json.dumps(COMMON | {"model_type": "scratch", "layer_types": ["full"]}), "layer_types", ["2 layers"]),
        (json.dumps(COMMON | {"model_type": "scratch", "layer_types": 3}), "layer_types", ["3"]),
        (json.dumps(COMMON | {"model_type": "scratch", "sliding_window": -4}), "sliding_window", ["-4"]),
    ],
    ids=[
        *("list", "broken", "unknown", "missing", "zero", "indivisible", "text", "layers"),
        *("mlp", "layer-types", "no-list", "window"),
    ],
)
def test_a_config_that_cannot_be_planned(content, key, facts, tmp_path):
    file = tmp_path / "config.json"
    file.write_text(content)
    with refused(key, *facts):
        read_config(file)


def test_a_config_that_is_not_there():
    with refused(None, "nowhere/config.json"):
        read_config(Path("nowhere/config.json"))


@pytest.mark.parametrize("parameters", [1e6, 10e6, 124e6, 1e9, 7e9, 70e9, 405e9])
def test_an_architecture_of_a_size(parameters):
    found = architecture_of_size(parameters)
    assert found.num_parameters == pytest.approx(parameters, rel=0.12)
    assert found.num_attention_heads % found.num_key_value_heads == 0
    assert architecture.PRESETS["llama"]["mlp_type"] == found.mlp_type


def test_a_size_is_a_model_that_can_be_built():
    found = architecture_of_size(10e6, "qwen3")
    options = {name: getattr(found, name) for name in ("hidden_size", "intermediate_size", "num_hidden_layers")}
    options |= {name: getattr(found, name) for name in ("num_attention_heads", "num_key_value_heads", "head_dim")}
    with torch.device("meta"):
        model = ScratchForCausalLM(ScratchConfig.from_preset("qwen3", vocab_size=found.vocab_size, **options))
    assert count(model) == found.num_parameters
