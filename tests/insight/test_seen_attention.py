"""Attention written out is the model's own, and replacing it leaves nothing behind."""

import pytest
import torch
from messages import refused
from tiny_model import ARCHITECTURES, build, logits, tokens
from torch._dynamo.utils import counters
from transformers import AutoConfig, AutoModelForCausalLM

from training.insight.attention import (
    attention_sizes,
    check_written_out,
    replaced_attention,
    seen_attention,
    written_out,
)
from training.insight.copying import copying, output_weight, value_weight

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64}
SIZES |= {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
FOREIGN = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64, "n_positions": 64},
    "gpt_neox": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "gemma2": {"sliding_window": 5, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 8},
    "mistral": {"sliding_window": 5},
    "phi3": {},
    "gpt_oss": {"num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 5},
}


def foreign(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    options = FOREIGN[kind] if kind == "gpt2" else SIZES | FOREIGN[kind]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **options), attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def maps(model, input_ids, **options) -> tuple[list[torch.Tensor], torch.Tensor]:
    seen = []
    with torch.no_grad(), seen_attention(model, seen.append):
        output = model(input_ids, use_cache=False, **options).logits
    assert [attention.layer for attention in seen] == [0, 1]
    return [attention.probabilities for attention in seen], output


def assert_same_as_eager(model, input_ids, **options):
    found, output = maps(model, input_ids, **options)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        own = model(input_ids, use_cache=False, output_attentions=True, **options)
    for layer, attention in zip(own.attentions, found, strict=True):
        torch.testing.assert_close(layer, attention, atol=1e-5, rtol=0)
    torch.testing.assert_close(own.logits, output, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_maps_are_those_of_our_models(name):
    """Of eager attention; and the output of the kernels that training uses is the same as with these maps."""
    model, input_ids = build(**ARCHITECTURES[name]), tokens(2, 24)
    model.set_attn_implementation("sdpa")
    fused = logits(model, input_ids, use_cache=False)
    torch.testing.assert_close(maps(model, input_ids)[1], fused, atol=1e-4, rtol=1e-4)
    assert_same_as_eager(model, input_ids)


def test_documents_stay_apart():
    positions = torch.tensor([[*range(10), *range(14)]])
    model = build("qwen3")
    assert_same_as_eager(model, tokens(1, 24), position_ids=positions)
    assert not maps(model, tokens(1, 24), position_ids=positions)[0][0][0, :, 10:, :10].any()


@pytest.mark.parametrize("kind", FOREIGN)
def test_maps_are_those_of_other_architectures(kind):
    model = foreign(kind)
    sizes = attention_sizes(model)
    assert (sizes.layers, sizes.heads, sizes.head_dim) == (2, 4, 8)
    check_written_out(model, tokens(1, 24) % 64)
    assert_same_as_eager(model, tokens(2, 24) % 64)


def test_the_model_is_left_as_it_was():
    model = build("qwen3").train()
    model.set_attn_implementation("sdpa")
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    state, config = torch.get_rng_state(), model.config.to_dict()
    with pytest.raises(KeyError), seen_attention(model, lambda attention: None):
        assert not model.training
        model(tokens(1, 8))
        raise KeyError
    assert model.config._attn_implementation == "sdpa" and model.config.to_dict() == config
    assert [module.training for module in model.modules()] == modes and torch.equal(torch.get_rng_state(), state)


def test_compiled_code_stays():
    """A capture neither uses nor adds any, and what is compiled is used again afterwards."""
    model, input_ids = build("qwen3"), tokens(2, 12)
    expected = maps(model, input_ids)
    counters.clear()
    for layer in model.model.layers:
        layer.compile(backend="eager")
    before = logits(model, input_ids, use_cache=False)
    graphs = counters["stats"]["unique_graphs"]
    found = maps(model, input_ids)
    with torch.compiler.set_stance("fail_on_recompile"):
        after = logits(model, input_ids, use_cache=False)
    assert torch.equal(before, after) and counters["stats"]["unique_graphs"] == graphs > 0
    assert all(torch.equal(one, other) for one, other in zip(found[0], expected[0], strict=True))
    torch.testing.assert_close(found[1], before, atol=1e-5, rtol=1e-5)


def test_another_function_can_knock_out_a_head():
    model, input_ids = build("llama"), tokens(1, 12)

    def without(module, *arguments, **options):
        output, weights = written_out(module, *arguments, **options)
        output[:, :, 3] *= module.layer_idx != 1
        return output, weights

    with torch.no_grad(), replaced_attention(model, without):
        knocked_out = model(input_ids).logits
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight[:, 24:] = 0
    torch.testing.assert_close(logits(model, input_ids), knocked_out, atol=1e-5, rtol=1e-5)


def test_bf16_products_are_exact():
    """As in fused kernels, whose scores and softmax are fp32; a CPU computes them from the same rounded vectors."""
    query, key, value = torch.randn(3, 1, 2, 16, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, found = written_out(None, query, key, value, None)
    expected = (query.double() @ key.double().mT / 8**0.5).softmax(-1)
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=0)


def test_other_attention_is_refused():
    """A layer without attention; layers of different sizes; a part that transformers passes under an unknown name."""
    config = AutoConfig.for_model("mamba", vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=4)
    with refused("model", "0 of the 2 layers", "MambaForCausalLM"):
        attention_sizes(AutoModelForCausalLM.from_config(config))
    model = build("llama")
    attention = model.model.layers[1].self_attn
    attention.scaling *= 2
    with refused("model", "layers", "differ"):
        attention_sizes(model)
    attention.scaling /= 2
    attention.forward = _biased(attention.forward)
    with refused("model", "cannot be recorded", "%"):
        check_written_out(model, tokens(1, 12))


def _biased(forward):
    """An attention that adds something of its own, where it is not written out."""

    def changed(hidden_states, *arguments, **options):
        output, weights = forward(hidden_states, *arguments, **options)
        own = changed.config._attn_implementation in ("sdpa", "eager")
        return output + own * hidden_states, weights

    changed.config = forward.__self__.config
    return changed


@pytest.mark.parametrize("kind", ["llama", *FOREIGN])
def test_value_and_output_weights_are_found(kind):
    """By what the module computes: differences between places do not depend on biases."""
    model = build("llama") if kind == "llama" else foreign(kind)
    sizes, seen, modules = attention_sizes(model), [], {}
    with torch.no_grad(), seen_attention(model, seen.append):
        for module in model.modules():
            module.register_forward_pre_hook(_keep_input(modules), with_kwargs=True)
            module.register_forward_hook(lambda module, _, output: modules.setdefault((module, "output"), output))
        model(tokens(1, 6) % 64, use_cache=False)
    for attention in seen:
        entered, (left, _) = modules[attention.module], modules[attention.module, "output"]
        value = value_weight(attention.module, sizes)  # (kv_heads, head_dim, hidden)
        expected = torch.einsum("gdh,bsh->bgsd", value, entered)
        torch.testing.assert_close(attention.value.diff(dim=2), expected.diff(dim=2), atol=1e-4, rtol=1e-4)
        keys = attention.value.repeat_interleave(sizes.heads // sizes.key_value_heads, dim=1)
        attended = (attention.probabilities @ keys).transpose(1, 2).flatten(2)  # (batch, seq, heads * head_dim)
        expected = attended @ output_weight(attention.module).T
        torch.testing.assert_close(left.diff(dim=1), expected.diff(dim=1), atol=1e-4, rtol=1e-4)
    assert copying(model, [attention.module for attention in seen], sizes).isfinite().all()


def _keep_input(modules):
    """A hook that keeps the hidden states which a module gets, by position or by name."""

    def keep(module, arguments, options):
        modules[module] = arguments[0] if arguments else options.get("hidden_states")

    return keep
