"""The architecture's options: defaults, presets, and what a mistake in them says."""

import json
import logging

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from modeling_scratch import PRESETS, ScratchConfig

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}

# How transformers' strict configurations report a ValueError or TypeError of any of their checks.
Rejected = (ValueError, StrictDataclassError)


def test_defaults_construct_without_a_word(caplog, recwarn):
    with caplog.at_level(logging.INFO):
        config = ScratchConfig()
    assert not caplog.records and not recwarn.list
    assert config.head_dim == 64 and config.num_key_value_heads == config.num_attention_heads
    assert config.layer_types == ["full_attention"] * config.num_hidden_layers


@pytest.mark.parametrize("preset", PRESETS)
def test_json_round_trip(preset, tmp_path):
    config = ScratchConfig.from_preset(preset, hidden_size=96, num_attention_heads=6, num_key_value_heads=2)
    config.save_pretrained(tmp_path)
    for loaded in (ScratchConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(loaded) is ScratchConfig
        assert loaded.to_dict() | {"_name_or_path": ""} == config.to_dict()
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["model_type"] == "scratch" and saved["intermediate_size"] == config.intermediate_size


@pytest.mark.parametrize(("mlp_type", "expected"), [("swiglu", 704), ("gelu", 1024), ("relu2", 1024)])
def test_default_width_makes_all_mlps_cost_about_the_same(mlp_type, expected):
    assert ScratchConfig(hidden_size=256, mlp_type=mlp_type).intermediate_size == expected


def test_dials_override_a_preset():
    config = ScratchConfig.from_preset("scratch", mlp_type="gelu", final_logit_softcapping=None)
    assert config.mlp_type == "gelu" and config.final_logit_softcapping is None and config.qk_norm


def test_sliding_window_applies_to_all_layers_unless_they_are_named():
    assert set(ScratchConfig(sliding_window=8).layer_types) == {"sliding_attention"}
    mixed = ["full_attention", "sliding_attention"]
    assert ScratchConfig(num_hidden_layers=2, sliding_window=8, layer_types=mixed).layer_types == mixed


def test_a_given_head_dim_frees_the_hidden_size():
    assert ScratchConfig(hidden_size=100, num_attention_heads=3, head_dim=32).head_dim == 32


def test_only_rotation_needs_an_even_head_dim():
    config = ScratchConfig(hidden_size=132, num_attention_heads=4, position_type="learned")
    assert config.head_dim == 33 and config.rope_parameters is None


def test_rope_theta_given_flat_lands_in_rope_parameters():
    for config in (ScratchConfig(rope_theta=500.0), ScratchConfig.from_preset("qwen3", rope_theta=500.0)):
        assert config.rope_parameters == {"rope_type": "default", "rope_theta": 500.0}


def test_rope_parameters_may_be_written_the_older_way():
    config = ScratchConfig(rope_theta=500.0, rope_scaling={"type": "linear", "factor": 4.0})
    assert config.rope_parameters == {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"norm_type": "batch"}, ["norm_type", "rms", "layer", "batch"]),
        ({"position_type": "alibi"}, ["position_type", "rope", "learned", "sinusoidal", "none", "alibi"]),
        ({"mlp_type": "glu"}, ["mlp_type", "swiglu", "gelu", "relu2", "glu"]),
        ({"hidden_size": 100, "num_attention_heads": 3}, ["hidden_size", "100", "3", "head_dim"]),
        ({"num_attention_heads": 4, "num_key_value_heads": 3}, ["num_key_value_heads", "4", "3"]),
        ({"num_attention_heads": 4, "num_key_value_heads": 8}, ["num_key_value_heads", "8"]),
        ({"num_attention_heads": 0}, ["num_attention_heads", "at least 1"]),
        ({"num_key_value_heads": 0}, ["num_key_value_heads", "at least 1"]),
        ({"num_hidden_layers": 0}, ["num_hidden_layers", "at least 1"]),
        ({"vocab_size": 0}, ["vocab_size", "at least 1"]),
        ({"hidden_size": -256}, ["hidden_size", "at least 1"]),
        ({"intermediate_size": 0}, ["intermediate_size", "at least 1"]),
        ({"head_dim": 0}, ["head_dim", "at least 1"]),
        ({"max_position_embeddings": 0}, ["max_position_embeddings", "at least 1"]),
        ({"head_dim": 33}, ["head_dim", "33", "even"]),
        ({"rope_theta": 0}, ["rope_theta", "above 0"]),
        ({"rope_parameters": {"rope_theta": -1.0}}, ["rope_theta", "above 0", "-1.0"]),
        ({"rope_parameters": {"rope_theta": "10k"}}, ["rope_theta", "10k"]),
        ({"rope_parameters": {"rope_theta": float("nan")}}, ["rope_theta", "above 0", "nan"]),
        ({"rope_parameters": {"rope_theta": float("inf")}}, ["rope_theta", "inf"]),
        ({"rope_parameters": {"rope_theta": True}}, ["rope_theta", "True"]),
        ({"rope_parameters": {"rope_type": "linear"}}, ["linear", "lack", "factor"]),
        ({"rope_parameters": {"rope_type": "yarn"}}, ["yarn", "lack", "factor"]),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, ["lack", "high_freq_factor"]),
        ({"rope_parameters": {"rope_type": "linear", "factor": 0}}, ["factor", "at least 1", "0"]),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "beta_fast": 3}}, ["'beta_fast'", "rope_theta"]),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "beta_fat": 3}}, ["beta_fat", "beta_fast"]),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, ["partial_rotary_factor", "1", "0.5"]),
        (
            {"rope_parameters": {"rope_type": "longrope", "short_factor": [1.0] * 3, "long_factor": [1.0] * 32}},
            ["short_factor", "32 numbers"],
        ),
        (
            {"rope_parameters": LLAMA3 | {"low_freq_factor": 4.0}},
            ["high_freq_factor (4.0)", "above low_freq_factor (4.0)"],
        ),
        ({"position_type": "learned", "rope_theta": 500.0}, ["rope_theta", "position_type", "learned"]),
        ({"position_type": "learned", "rope_scaling": {"type": "linear", "factor": 2.0}}, ["rope_scaling", "learned"]),
        ({"norm_eps": 0.0}, ["norm_eps", "above 0"]),
        ({"norm_eps": -1e-5}, ["norm_eps", "above 0"]),
        ({"norm_eps": float("nan")}, ["norm_eps", "above 0", "nan"]),
        ({"final_logit_softcapping": float("inf")}, ["final_logit_softcapping", "inf"]),
        ({"pad_token_id": 8192}, ["pad_token_id", "0 to 8191", "8192"]),
        ({"eos_token_id": -1}, ["eos_token_id", "0 to 8191", "-1"]),
        ({"eos_token_id": [0, 9000]}, ["eos_token_id", "vocab_size", "9000"]),
        ({"rope_parameters": {"rope_type": "ntk"}}, ["rope_type", "linear", "llama3", "yarn", "ntk"]),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, ["partial_rotary_factor", "1", "0.5"]),
        ({"partial_rotary_factor": 0.5}, ["partial_rotary_factor", "1", "0.5"]),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "faktor": 2.0}},
            ["linear", "faktor", "rope_theta"],
        ),
        ({"rope_parameters": {"factor": 2.0}}, ["default", "factor", "rope_theta"]),
        ({"rope_parameters": {"rope_type": "linear"}}, ["linear", "factor"]),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "beta": 1}}, ["yarn", "beta", "beta_fast"]),
        ({"position_type": "none", "rope_parameters": {"rope_theta": 500.0}}, ["rope_parameters", "position_type"]),
        ({"final_logit_softcapping": 0}, ["final_logit_softcapping", "above 0"]),
        ({"final_logit_softcapping": -15.0}, ["final_logit_softcapping", "above 0"]),
        ({"sliding_window": 1}, ["sliding_window", "at least 2", "1"]),
        ({"sliding_window": -4}, ["sliding_window", "at least 2"]),
        ({"num_hidden_layers": 1, "layer_types": ["sliding_attention"]}, ["sliding_window"]),
        ({"num_hidden_layers": 1, "layer_types": ["linear_attention"]}, ["layer_types", "full_attention"]),
        ({"num_hidden_layers": 2, "layer_types": ["full_attention"]}, ["layer_types", "2", "1"]),
        ({"hidden_size": "256"}, ["hidden_size", "int", "256"]),
        ({"hidden_size": 256.0}, ["hidden_size", "int"]),
        ({"qk_norm": 1}, ["qk_norm", "bool"]),
        ({"norm_type": None}, ["norm_type", "str"]),
        ({"attention_dropout": 1.5}, ["0.0", "1.0", "1.5"]),
        ({"hidden_dropout": 2}, ["0.0", "1.0", "2"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_mistake_names_the_dial_and_what_it_takes(options, named):
    with pytest.raises(Rejected) as caught:
        ScratchConfig(**options)
    message = str(caught.value)
    # The last line is the check's own; the wrapper of strict configurations puts one line above it.
    assert all(word in message.splitlines()[-1] for word in named), message
    assert len(message.splitlines()) <= 2


def test_unknown_preset_and_dial():
    with pytest.raises(ValueError, match="'bert'; known: gpt2, llama, qwen3, scratch"):
        ScratchConfig.from_preset("bert")
    with pytest.raises(ValueError, match="'lama'; did you mean 'llama'?"):
        ScratchConfig.from_preset("lama")
    with pytest.raises(ValueError, match="'hiden_size'; did you mean 'hidden_size'?"):
        ScratchConfig.from_preset("llama", hiden_size=64)
    with pytest.raises(
        ValueError, match="'id2label'; known: attention_bias, "
    ):  # nothing but options of the architecture
        ScratchConfig.from_preset("llama", id2label={})


def test_a_value_set_later_is_checked_too(tmp_path):
    config = ScratchConfig()
    with pytest.raises(StrictDataclassError, match="hidden_size"):
        config.hidden_size = "256"
    config.mlp_type = "glu"
    with pytest.raises(Rejected, match="mlp_type"):
        config.save_pretrained(tmp_path)
