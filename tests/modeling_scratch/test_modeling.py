"""The model against itself: every path to the same numbers, its interfaces, its initial weights, its checkpoints."""

import copy
import json
import math
import re

import pytest
import torch
from tiny_model import ARCHITECTURES, SIZES, SLIDING, build, logits, tokens
from torch import nn
from torch.distributed.fsdp import FSDPModule
from transformers import AttentionInterface, AttentionMaskInterface, AutoModel, AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from modeling_scratch import ScratchConfig, ScratchForCausalLM
from modeling_scratch.modeling_scratch import AUTO_CLASSES, sinusoidal_embedding


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request):
    return build(**ARCHITECTURES[request.param])


# --- Every path to the same logits ---


def test_cached_equals_uncached(model):
    input_ids = tokens(2, 16)
    expected = logits(model, input_ids, use_cache=False)
    cache, found = None, []
    for chunk in input_ids.split([6, 4, 1, 1, 4], dim=1):  # positions are the default: they follow the cache
        with torch.no_grad():
            output = model(chunk, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        found.append(output.logits)
    torch.testing.assert_close(torch.cat(found, dim=1), expected, atol=2e-5, rtol=1e-4)


def test_eager_equals_sdpa(model):
    input_ids = tokens(2, 16)
    mask = torch.ones_like(input_ids)
    mask[0, :4] = 0
    expected = logits(model, input_ids, attention_mask=mask)
    model.set_attn_implementation("eager")
    found = logits(model, input_ids, attention_mask=mask)
    model.set_attn_implementation("sdpa")
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], atol=2e-5, rtol=1e-4)


def test_bf16_is_close_to_fp32(model, tmp_path):
    model.save_pretrained(tmp_path)
    expected = logits(model, tokens(2, 16))
    lowered = logits(ScratchForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16), tokens(2, 16))
    with torch.autocast("cpu", torch.bfloat16):
        autocast = logits(model, tokens(2, 16))
    for found in (lowered, autocast):
        error = (found.float() - expected).square().mean().sqrt() / expected.std()
        assert 0 < error < 0.05


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_gives_the_same_gradients(model, reentrant):
    input_ids = tokens(2, 16)
    model = copy.deepcopy(model).train()
    gradients = []
    for _ in range(2):
        model.zero_grad()
        model(input_ids, labels=input_ids).loss.backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    assert model.model.layers[0].gradient_checkpointing
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_compiles_without_a_graph_break(model):
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=False)
    found = logits(compiled, tokens(2, 16), use_cache=False)
    torch.testing.assert_close(found, logits(model, tokens(2, 16)), atol=2e-5, rtol=1e-4)


# --- What no other architecture has to compare with ---


def test_embedding_shortcut_mixes_in_the_embedding():
    model, read = build("scratch").model, []
    for layer in model.layers:  # nothing but the shortcut is left of the layers
        nn.init.zeros_(layer.self_attn.o_proj.weight)
        nn.init.zeros_(layer.mlp.down_proj.weight)
        layer.register_forward_pre_hook(lambda layer, inputs: read.append(inputs[0]))
    (first, second), (embedded_first, embedded_second) = model.residual_scale, model.embedding_scale
    embedded = model.embed_tokens(tokens(2, 10))
    model(tokens(2, 10))
    torch.testing.assert_close(read[0], (first + embedded_first) * embedded)
    torch.testing.assert_close(read[1], (second * (first + embedded_first) + embedded_second) * embedded)


def test_sinusoidal_embedding_is_the_papers():
    waves = sinusoidal_embedding(torch.tensor([[0, 3]]), size=8)
    angles = [3 / 10000 ** (2 * index / 8) for index in range(4)]
    expected = [[0.0] * 4 + [1.0] * 4, [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]]
    torch.testing.assert_close(waves, torch.tensor([expected]))


def test_squared_relu():
    mlp = build("scratch").model.layers[0].mlp
    mlp.up_proj.weight.data, mlp.down_proj.weight.data = torch.eye(48, 32), torch.eye(32, 48)
    torch.testing.assert_close(mlp(torch.linspace(-2, 3, 32)), torch.linspace(-2, 3, 32).clamp(min=0) ** 2)


# --- The interfaces that tools rely on ---


def test_logits_to_keep():
    model, input_ids = build("scratch"), tokens(2, 10)
    full = logits(model, input_ids)

    def kept(selection):
        return logits(model, input_ids, logits_to_keep=selection)

    torch.testing.assert_close(kept(3), full[:, -3:])
    for positions in (torch.tensor([1, 4]), [1, 4], slice(1, 5, 3), torch.arange(10) % 3 == 1):
        torch.testing.assert_close(kept(positions), full[:, positions])
    square = torch.tensor([False, True, False, True])  # as many sequences as positions: the positions are picked
    found = logits(model, input_ids[:, :4].repeat(2, 1), logits_to_keep=square)
    torch.testing.assert_close(found, logits(model, input_ids[:, :4]).repeat(2, 1, 1)[:, [1, 3]])
    indices = torch.tensor([[0, 9], [3, 3]])
    torch.testing.assert_close(kept(indices), torch.stack([full[0, [0, 9]], full[1, [3, 3]]]))
    mask = tokens(2, 10) % 2 == 0
    torch.testing.assert_close(kept(mask), full[mask])


def test_attentions_and_hidden_states(model):
    model = copy.deepcopy(model)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(tokens(2, 10), output_attentions=True, output_hidden_states=True)
    assert [weights.shape for weights in output.attentions] == [(2, 4, 10, 10)] * 2
    for weights in output.attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 10))
        assert not weights.triu(diagonal=1).any()
    assert [states.shape for states in output.hidden_states] == [(2, 10, 32)] * 3
    projected = model.lm_head(output.hidden_states[-1])
    cap = model.config.final_logit_softcapping
    torch.testing.assert_close(cap * torch.tanh(projected / cap) if cap else projected, output.logits)


def test_softcap_bounds_the_logits():
    capped, free = build(final_logit_softcapping=2.0), build()
    expected = logits(free, tokens(2, 10))
    assert expected.abs().max() > 2
    torch.testing.assert_close(logits(capped, tokens(2, 10)), 2.0 * torch.tanh(expected / 2.0))


def test_embeddings_may_be_given_instead_of_ids(model):
    input_ids = tokens(2, 10)
    embeddings = model.get_input_embeddings()(input_ids)
    with torch.no_grad():
        torch.testing.assert_close(model(inputs_embeds=embeddings).logits, logits(model, input_ids))
    for both_or_neither in ({}, {"input_ids": input_ids, "inputs_embeds": embeddings}):
        with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
            model(**both_or_neither)


def test_loss_honours_ignored_labels_and_a_given_count():
    model, input_ids = build("scratch"), tokens(2, 10)
    labels = input_ids.clone()
    labels[:, :4] = -100
    output = model(input_ids, labels=labels)
    scored = nn.functional.cross_entropy(output.logits[:, 3:-1].flatten(0, 1), labels[:, 4:].flatten())
    torch.testing.assert_close(output.loss, scored)
    torch.testing.assert_close(model(input_ids, labels=labels, num_items_in_batch=48).loss, scored * 12 / 48)


def test_keywords_reach_the_attention_implementation():
    received = []

    def spy(module, query, key, value, attention_mask, **kwargs):
        received.append((module.layer_idx, kwargs))
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)

    AttentionInterface.register("spy", spy)
    AttentionMaskInterface.register("spy", sdpa_mask)
    model = build("qwen3", attention_dropout=0.25, **SLIDING).train()
    model.set_attn_implementation("spy")
    positions = torch.arange(10)[None]
    model(tokens(1, 10), position_ids=positions, cu_seq_lens_q="carried", use_cache=False)
    assert [layer for layer, _ in received] == [0, 1]
    assert [kwargs["sliding_window"] for _, kwargs in received] == [5, None]
    for _, kwargs in received:
        assert kwargs.get("cu_seq_lens_q") == "carried" and kwargs.get("position_ids") is positions
        assert kwargs["scaling"] == 8**-0.5 and kwargs["dropout"] == 0.25


def test_dropout_acts_only_in_training():
    for option in ("attention_dropout", "hidden_dropout"):
        model = build("scratch", **{option: 0.5})
        assert torch.equal(logits(model, tokens(2, 10)), logits(model, tokens(2, 10)))
        model.train()
        assert not torch.equal(logits(model, tokens(2, 10)), logits(model, tokens(2, 10)))


def test_hidden_dropout_reaches_everything_that_enters_the_residual_stream():
    model = build("gpt2", hidden_dropout=1.0).train().model  # its biases would show, were a branch not dropped
    states = model(tokens(2, 10)).last_hidden_state
    torch.testing.assert_close(states, model.norm.bias.expand_as(states))


def test_layers_are_named_as_the_unit_that_must_not_be_split():
    model = build()
    assert type(model.model.layers[0]).__name__ in model._no_split_modules


def test_tensor_parallel_plan_names_the_modules_that_there_are(model):
    names = {
        re.sub(r"\.\d+\.", ".*.", name)
        for name, module in model.model.named_modules()
        if isinstance(module, nn.Linear) or name.endswith(("q_norm", "k_norm"))
    }
    assert set(model.config.base_model_tp_plan) == names


# --- Initial weights ---


def test_projections_into_the_residual_stream_start_smaller():
    sizes = {"hidden_size": 128, "num_attention_heads": 4, "num_hidden_layers": 8}
    model = ScratchForCausalLM(ScratchConfig.from_preset("llama", **sizes))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            expected = 0.02 / 4 if "o_proj" in name or "down_proj" in name else 0.02
            assert parameter.std().item() == pytest.approx(expected, rel=0.1), name
        else:
            assert torch.equal(parameter, torch.ones_like(parameter)), name


@pytest.mark.parametrize("preset", ["llama", "qwen3", "scratch"])
def test_zero_initialised_projections_learn(preset):
    torch.manual_seed(0)
    model = ScratchForCausalLM(ScratchConfig.from_preset(preset, **SIZES, zero_init_projections=True))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(4):  # the gradient reaches one zero matrix deeper with every step
        loss = model(tokens(2, 16), labels=tokens(2, 16)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(SIZES["vocab_size"]), abs=1e-5)
    assert losses[-1] < losses[0]
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.abs().sum() > 0] == []


# --- Saved and loaded ---

ROPES = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 16},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "longrope": {"factor": 4.0, "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 3.0, 4.0, 5.0]},
}


def dirty_allocator():
    """Leave freed memory full of NaN, so that a buffer which nobody fills shows."""
    waste = [torch.full((size,), float("nan")) for size in (4, 8, 16, 32, 64) for _ in range(200)]
    del waste


def test_loads_what_was_saved_to_the_bit(model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    dirty_allocator()
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is ScratchForCausalLM
    assert not any(report.values())
    assert torch.equal(logits(loaded, tokens(2, 16)), logits(model, tokens(2, 16)))
    for name, buffer in model.named_buffers():
        assert torch.equal(loaded.get_buffer(name), buffer), name
        assert name not in model.state_dict(), name
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == model.config.tie_word_embeddings


@pytest.mark.parametrize("kind", ROPES)
@pytest.mark.parametrize("device_map", [None, "auto"])
def test_scaled_rotations_survive_loading(kind, device_map, tmp_path):
    """Their frequencies are buffers that no file holds: computed anew, over whatever was in that memory."""
    model = build(rope_parameters={"rope_type": kind, "rope_theta": 500.0, **ROPES[kind]})
    model.save_pretrained(tmp_path)
    dirty_allocator()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16, device_map=device_map)
    for name, buffer in model.named_buffers():
        assert buffer.dtype == torch.float32 and torch.equal(loaded.get_buffer(name), buffer), name
    assert loaded.model.rotary_emb.attention_scaling == model.model.rotary_emb.attention_scaling


def test_backbone_and_language_model_open_each_others_checkpoints(tmp_path):
    model = build("scratch", tie_word_embeddings=True)
    model.save_pretrained(tmp_path / "language_model")
    backbone = AutoModel.from_pretrained(tmp_path / "language_model")
    with torch.no_grad():
        states = [network(tokens(2, 10)).last_hidden_state for network in (backbone, model.model)]
    assert torch.equal(*states)
    backbone.save_pretrained(tmp_path / "backbone")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "backbone")
    assert torch.equal(logits(again, tokens(2, 10)), logits(model, tokens(2, 10)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_round_trip(dtype, tmp_path):
    build("scratch").to(dtype).save_pretrained(tmp_path)
    dirty_allocator()
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert model.dtype == dtype
    plain, widened = (
        AutoModelForCausalLM.from_pretrained(tmp_path, **requested) for requested in ({}, {"dtype": torch.float32})
    )
    for name, parameter in model.named_parameters():
        assert torch.equal(plain.get_parameter(name), parameter), name
        assert torch.equal(widened.get_parameter(name), parameter.float()), name
    exact = 10000.0 ** (-torch.arange(0, 8, 2, dtype=torch.float) / 8)
    assert torch.equal(model.model.rotary_emb.inv_freq, exact)
    model.save_pretrained(tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    assert torch.equal(logits(again, tokens(2, 16)), logits(model, tokens(2, 16)))


def test_tied_matrices_are_one_parameter_that_trains_as_one():
    model = build("qwen3", tie_word_embeddings=True)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert sum("lm_head" in name or "embed_tokens" in name for name, _ in model.named_parameters()) == 1
    model(tokens(2, 8), labels=tokens(2, 8)).loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)


@pytest.mark.parametrize("tied", [False, True])
def test_more_tokens_leave_the_old_logits_alone(tied, tmp_path):
    model = build("scratch", tie_word_embeddings=tied)
    expected = logits(model, tokens(2, 10))
    model.resize_token_embeddings(104)
    assert model.config.vocab_size == 104
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    found = logits(model, tokens(2, 10))
    torch.testing.assert_close(found[..., :96], expected)
    assert torch.isfinite(model(tokens(2, 10), labels=torch.full((2, 10), 103)).loss)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(ScratchForCausalLM.from_pretrained(tmp_path), tokens(2, 10)), found)


def in_torch(model):
    """What FSDP2 makes of a model: the same object, of a new class in one of torch's modules."""
    name = f"FSDP{type(model).__name__}"
    model.__class__ = type(name, (FSDPModule, type(model)), {"__module__": FSDPModule.__module__})
    return model


@pytest.mark.parametrize("wrap", [lambda model: model, in_torch], ids=["plain", "fsdp2"])
@pytest.mark.parametrize("model_class", AUTO_CLASSES.values())
def test_every_save_offers_all_classes(model_class, wrap, tmp_path):
    model = wrap(model_class(build("scratch").config))
    model.config.auto_map = {"AutoModel": "someone/model--modeling_scratch.ScratchModel", "AutoModelForOthers": "a.B"}
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    classes = {name: f"modeling_scratch.{cls.__name__}" for name, cls in AUTO_CLASSES.items()}
    ours = {"AutoConfig": "configuration_scratch.ScratchConfig"} | classes
    assert saved["auto_map"] == ours | {"AutoModelForOthers": "a.B"}
    assert saved["architectures"] == [model_class.__name__]
    code = ("configuration", "decoding", "loss", "modeling", "originals", "prompts")
    assert {file.name for file in tmp_path.glob("*.py")} == {f"{name}_scratch.py" for name in code}
