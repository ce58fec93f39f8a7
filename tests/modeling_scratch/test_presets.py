"""The presets against transformers' own architectures: the same weights, the same numbers."""

import copy

import pytest
import torch
from tiny_model import SIZES, SLIDING, build, logits, tokens
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from modeling_scratch import ScratchConfig, ScratchForCausalLM
from modeling_scratch.conversion_scratch import to_stock
from modeling_scratch.modeling_scratch import ScratchRMSNorm


def assert_same_network(ours, stock, input_ids, atol=1e-5, **kwargs):
    """Equal logits, loss and gradients of the embedding."""
    stock.eval()
    results = []
    for network in (ours, stock):
        network.zero_grad()
        output = network(input_ids, labels=input_ids, **kwargs)
        output.loss.backward()
        results.append((output.logits, output.loss, network.get_input_embeddings().weight.grad))
    for mine, theirs in zip(*results):
        torch.testing.assert_close(mine, theirs, atol=atol, rtol=1e-5)


def stock_twin(ours, config_class, model_class, **options):
    """A stock model with the sizes and, name for name, the weights of ours."""
    config = ours.config
    shared = ["tie_word_embeddings", "rope_parameters", "head_dim"]
    kwargs = {name: copy.deepcopy(getattr(config, name)) for name in [*SIZES, *shared]}
    stock = model_class(config_class(rms_norm_eps=config.norm_eps, **(kwargs | options)))
    stock.load_state_dict(ours.state_dict())
    return stock


@pytest.mark.parametrize("key_value_heads", [4, 2, 1])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_llama_preset_is_llama(key_value_heads, tied, bias, attention):
    biases = {"attention_bias": bias, "mlp_bias": bias}
    rope = {"rope_type": "default", "rope_theta": 500.0}
    ours = build(num_key_value_heads=key_value_heads, tie_word_embeddings=tied, rope_parameters=rope, **biases)
    ours.set_attn_implementation(attention)
    assert_same_network(ours, stock_twin(ours, LlamaConfig, LlamaForCausalLM, **biases), tokens(2, 20))


def test_padding_is_llamas():
    """The row of the padding token starts at zero and has no gradient of its own."""
    padded = torch.cat([torch.zeros(2, 4, dtype=torch.long), tokens(2, 16)], dim=1)
    ours = build()
    assert_same_network(ours, stock_twin(ours, LlamaConfig, LlamaForCausalLM), padded)
    fresh = ScratchForCausalLM(ScratchConfig.from_preset("llama", **SIZES))
    assert not fresh.model.embed_tokens.weight[0].any()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_qwen3_preset_is_qwen3(tied, bias):
    ours = build("qwen3", head_dim=16, tie_word_embeddings=tied, attention_bias=bias)
    assert_same_network(ours, stock_twin(ours, Qwen3Config, Qwen3ForCausalLM, attention_bias=bias), tokens(2, 20))


@pytest.mark.parametrize("tied", [True, False])
def test_gpt2_preset_is_gpt2(tied):
    ours = build("gpt2", num_key_value_heads=4, tie_word_embeddings=tied)
    assert_same_network(ours, to_stock(ours, "gpt2"), tokens(2, 20))


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "dynamic", "factor": 4.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
        {
            "rope_type": "longrope",
            "factor": 4.0,
            "short_factor": [1.0, 1.1, 1.2, 1.3],
            "long_factor": [2.0, 3.0, 4.0, 5.0],
            "original_max_position_embeddings": 32,
        },
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_rope_scaling_is_llamas(rope):
    ours = build(rope_parameters={"rope_theta": 10000.0} | rope)
    stock = stock_twin(ours, LlamaConfig, LlamaForCausalLM)
    for length in (20, 90):  # below and beyond max_position_embeddings
        assert_same_network(ours, stock, tokens(1, length))


def test_sliding_window_is_mistrals_and_qwen3s():
    ours = build(sliding_window=5)
    assert_same_network(ours, stock_twin(ours, MistralConfig, MistralForCausalLM, sliding_window=5), tokens(2, 20))
    ours = build("qwen3", **SLIDING)
    twin = stock_twin(ours, Qwen3Config, Qwen3ForCausalLM, use_sliding_window=True, **SLIDING)
    assert_same_network(ours, twin, tokens(2, 20))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_llamas_to_the_bit_at_far_positions(dtype, tmp_path):
    """Catches norms and angles that are not computed in fp32: bf16 cannot tell position 1001 from 1002."""
    ours = build(max_position_embeddings=4096)
    ours.save_pretrained(tmp_path / "ours")
    stock_twin(ours, LlamaConfig, LlamaForCausalLM).save_pretrained(tmp_path / "stock")
    ours = ScratchForCausalLM.from_pretrained(tmp_path / "ours", dtype=dtype)
    stock = LlamaForCausalLM.from_pretrained(tmp_path / "stock", dtype=dtype)
    positions = torch.arange(1000, 1020)[None]
    for attention in ("sdpa", "eager"):
        ours.set_attn_implementation(attention)
        stock.set_attn_implementation(attention)
        found, expected = (logits(network, tokens(2, 20), position_ids=positions) for network in (ours, stock))
        assert found.dtype == dtype and torch.isfinite(found).all()
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_norm_survives_fp16_squares():
    norm = ScratchRMSNorm(32, eps=1e-6).to(torch.float16)
    torch.testing.assert_close(norm(torch.full((1, 32), 1000.0, dtype=torch.float16)), torch.ones(1, 32).half())
