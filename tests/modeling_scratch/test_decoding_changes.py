"""Whatever a user changes in the network's code, `generate` computes the changed network, from the next token on."""

import contextlib
import functools
import itertools

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from tiny_model import build, logits, tokens
from torch import nn
from torch.nn.modules import module as torch_module
from torch.nn.utils.parametrize import register_parametrization
from torch.overrides import TorchFunctionMode
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from modeling_scratch import decoding_scratch, modeling_scratch, originals_scratch

NEW_TOKENS = 4
OPTIONS = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}


def scaled(function):
    """A function that returns another result: its first tensor times 1.5."""

    def changed(*arguments, **options):
        result = function(*arguments, **options)
        return (result[0] * 1.5, *result[1:]) if isinstance(result, tuple) else result * 1.5

    return changed


class Wrapper(nn.Module):
    """A layer inside another module, as control vectors are added to a model."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, *arguments, **options):
        return scaled(self.layer)(*arguments, **options)


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2


def give_forward(name):
    """A change that gives one module another `forward`."""

    def change(model, patch):
        module = model.get_submodule(name)
        patch.setattr(module, "forward", scaled(module.forward), raising=False)

    return change


def give_class(name):
    """A change that makes one module an instance of a subclass."""

    def change(model, patch):
        module = model.get_submodule(name)
        forward = scaled(type(module).forward)
        module.__class__ = type(type(module).__name__, (type(module),), {"forward": forward})

    return change


def replace(name, make):
    """A change that puts another module in the place of one."""
    return lambda model, patch: model.set_submodule(name, make(model.get_submodule(name)))


def patch_attribute(owner, name):
    """A change of a function of a class or module."""
    return lambda model, patch: patch.setattr(owner, name, scaled(getattr(owner, name)), raising=False)


def patch_entry(mapping, name):
    """A change of a function in a registry."""
    return lambda model, patch: patch.setitem(mapping, name, scaled(mapping[name]))


def hide_first_token(mask_function):
    def changed(*arguments, **options):
        mask = mask_function(*arguments, **(options | {"allow_is_causal_skip": False})).clone()
        mask[..., 1 if mask.shape[-2] > 1 else 0 :, 0] = False  # the first token sees only itself
        return mask

    return changed


def choose_attention(model, patch):
    patch.setitem(ALL_ATTENTION_FUNCTIONS._local_mapping, "mine", scaled(ALL_ATTENTION_FUNCTIONS["sdpa"]))
    patch.setitem(ALL_MASK_ATTENTION_FUNCTIONS._local_mapping, "mine", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    model.config._attn_implementation = "mine"


def train(*names):
    """A change that leaves dropout on in some modules."""

    def change(model, patch):
        for name in names:
            model.get_submodule(name).train()

    return change


LAYER = "model.layers.0"
MODULES = {
    "layer": LAYER,
    "attention": f"{LAYER}.self_attn",
    "MLP": f"{LAYER}.mlp",
    "norm": f"{LAYER}.input_layernorm",
    "query norm": f"{LAYER}.self_attn.q_norm",
    "projection": f"{LAYER}.mlp.down_proj",
    "dropout": f"{LAYER}.dropout",
    "rotary": "model.rotary_emb",
    "last norm": "model.norm",
    "lm_head": "lm_head",
}
CHANGES = {
    **{f"forward of one {kind}": give_forward(name) for kind, name in MODULES.items()},
    **{f"class of one {kind}": give_class(name) for kind, name in MODULES.items()},
    "layer wrapped": replace(LAYER, Wrapper),
    "attention wrapped": replace(f"{LAYER}.self_attn", Wrapper),
    "head in Sequential": replace("lm_head", lambda head: nn.Sequential(head, nn.Softsign())),
    "norm is Identity": replace(f"{LAYER}.input_layernorm", lambda norm: nn.Identity()),
    "last norm is Identity": replace("model.norm", lambda norm: nn.Identity()),
    "norm is LayerNorm": replace(f"{LAYER}.input_layernorm", lambda norm: nn.LayerNorm(32)),
    "MLP is Linear": replace(f"{LAYER}.mlp", lambda mlp: nn.Linear(32, 32)),
    "projection with bias": replace(f"{LAYER}.self_attn.k_proj", lambda projection: nn.Linear(32, 16)),
    "MLP of another layer": replace(f"{LAYER}.mlp", lambda mlp: build("qwen3").model.layers[1].mlp),
    "hook": lambda model, patch: model.model.layers[0].register_forward_hook(lambda module, _, out: out * 1.5),
    "pre-hook": lambda model, patch: model.lm_head.register_forward_pre_hook(lambda module, given: (given[0] * 1.5,)),
    "hook on the embedding": lambda model, patch: model.model.embed_tokens.register_forward_hook(
        lambda module, _, out: out * 1.5
    ),
    "global hook": lambda model, patch: patch.setitem(
        torch_module._global_forward_hooks, -1, lambda module, _, out: out * 1.5 if type(module) is nn.Linear else None
    ),
    "global pre-hook": lambda model, patch: patch.setitem(
        torch_module._global_forward_pre_hooks,
        -1,
        lambda module, given: (given[0] * 1.5,) if type(module) is nn.Linear else None,
    ),
    **{
        f"forward of {cls.__name__}": patch_attribute(cls, "forward")
        for cls in (
            modeling_scratch.ScratchDecoderLayer,
            modeling_scratch.ScratchAttention,
            modeling_scratch.ScratchMLP,
            modeling_scratch.ScratchRMSNorm,
            modeling_scratch.ScratchRotaryEmbedding,
            nn.Linear,
        )
    },
    "call of ScratchMLP": patch_attribute(modeling_scratch.ScratchMLP, "__call__"),
    "call of Linear": patch_attribute(nn.Linear, "__call__"),
    "call of all modules": lambda model, patch: patch.setattr(
        nn.Module,
        "_call_impl",
        lambda module, *arguments, call=nn.Module._call_impl, **options: (
            scaled(call) if type(module) is nn.Linear else call
        )(module, *arguments, **options),
    ),
    "activation": patch_attribute(modeling_scratch.ScratchMLP, "activation"),
    "activation of one": lambda model, patch: patch.setattr(
        model.model.layers[0].mlp, "activation", lambda inner, gate=None: inner.relu()
    ),
    "embedding": patch_attribute(modeling_scratch.ScratchModel, "embed"),
    "softcap": patch_attribute(modeling_scratch.ScratchForCausalLM, "softcap"),
    "rotation": patch_attribute(modeling_scratch, "apply_rotary_pos_emb"),
    "rotation of half": patch_attribute(modeling_scratch, "rotate_half"),
    "causal mask": lambda model, patch: patch.setattr(
        modeling_scratch, "create_causal_mask", hide_first_token(modeling_scratch.create_causal_mask)
    ),
    "rms_norm": patch_attribute(nn.functional, "rms_norm"),
    "linear": patch_attribute(nn.functional, "linear"),
    "product attention": patch_attribute(nn.functional, "scaled_dot_product_attention"),
    "attention registered for all": patch_entry(type(ALL_ATTENTION_FUNCTIONS)._global_mapping, "sdpa"),
    "attention registered here": lambda model, patch: patch.setitem(
        ALL_ATTENTION_FUNCTIONS._local_mapping, "sdpa", scaled(ALL_ATTENTION_FUNCTIONS["sdpa"])
    ),
    "mask registered": lambda model, patch: patch.setitem(
        type(ALL_MASK_ATTENTION_FUNCTIONS)._global_mapping,
        "sdpa",
        hide_first_token(ALL_MASK_ATTENTION_FUNCTIONS["sdpa"]),
    ),
    "update of Cache": patch_attribute(Cache, "update"),
    "update of DynamicCache": patch_attribute(DynamicCache, "update"),
    "update of DynamicLayer": patch_attribute(DynamicLayer, "update"),
    "training": train("model", "lm_head"),
    "dropout of one": train(f"{LAYER}.dropout"),
    "dropout of one attention": train(f"{LAYER}.self_attn"),
    "dropout of the embedding": train("model.dropout"),
    "adapter": lambda model, patch: inject_adapter_in_model(
        LoraConfig(target_modules="all-linear", init_lora_weights=False), model
    ),
    "parametrization": lambda model, patch: register_parametrization(
        model.model.layers[0].mlp.up_proj, "weight", Halved()
    ),
    "compiled": lambda model, patch: setattr(
        model.model.layers[0], "_compiled_call_impl", scaled(model.model.layers[0]._call_impl)
    ),
    "scaling of attention": lambda model, patch: setattr(model.model.layers[0].self_attn, "scaling", 1.0),
    "epsilon of a norm": lambda model, patch: setattr(model.model.layers[0].input_layernorm, "eps", 1.0),
    "another attention chosen": choose_attention,
    "fewer layers": lambda model, patch: setattr(model.config, "num_hidden_layers", 1),
}


def generate(change=None, step=0, plain=False, **options):
    """Logits of all new tokens, with a change before a step, and how often a layer ran in the fast path.

    Args:
        plain: without the fast path.
        options: of `generate`.
    """
    model, runs = build("qwen3", hidden_dropout=0.3, attention_dropout=0.3), []
    fast_step, steps = decoding_scratch.DecoderLayer.step, itertools.count(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding_scratch.DecoderLayer, "step", lambda *given: runs.append(given) or fast_step(*given))
        if plain:
            patch.setattr(decoding_scratch, "active_decoder", lambda model: None)

        def after_step(input_ids, scores):
            if next(steps) == step:
                change(model, patch)
            return scores

        if change is not None and step == 0:
            change(model, patch)
        output = model.generate(tokens(2, 6), logits_processor=[after_step], **OPTIONS, **options)
    return torch.stack(output.logits, dim=1), len(runs)


unchanged = functools.cache(generate)


@pytest.mark.parametrize("step", [0, 2], ids=["before", "during"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_obeyed(change, step):
    found, runs = generate(CHANGES[change], step)
    expected, _ = generate(CHANGES[change], step, plain=True)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    ordinary, all_runs = unchanged()
    assert (found - ordinary)[:, step:].abs().max() > 1e-3
    assert all_runs == 2 * (NEW_TOKENS - 1) and runs >= 2 * (step - 1)  # it does take the fast path until then


class ScaledLinear(TorchFunctionMode):
    def __torch_function__(self, function, types, arguments=(), options=None):
        return (scaled(function) if function is nn.functional.linear else function)(*arguments, **(options or {}))


def test_a_mode_of_torch_is_obeyed():
    with ScaledLinear():
        found, _ = generate()
        expected, _ = generate(plain=True)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    assert (found - unchanged()[0]).abs().max() > 1e-3


def test_a_hook_on_the_embedding_does_not_slow_generation():
    """`follow_load` counts steps with one."""
    calls = []
    change = lambda model, patch: model.model.embed_tokens.register_forward_pre_hook(lambda *_: calls.append(1))  # noqa: E731
    found, runs = generate(change)
    assert torch.equal(found, unchanged()[0]) and len(calls) == NEW_TOKENS and runs == 2 * (NEW_TOKENS - 1)


def test_code_that_was_patched_before_the_import_is_not_original():
    assert originals_scratch.is_at_home(nn.Linear, "__call__") and not modeling_scratch.ORIGINALS.patched_before
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Linear, "forward", functools.wraps(nn.Linear.forward)(scaled(nn.Linear.forward)))
        patch.setattr(nn.functional, "linear", functools.wraps(nn.functional.linear)(scaled(nn.functional.linear)))
        assert not originals_scratch.is_at_home(nn.Linear, "forward")
        assert not originals_scratch.is_at_home(nn.functional, "linear")
        assert originals_scratch.Originals("modeling_scratch.modeling_scratch").patched_before


def edit_keys(cache):
    cache.layers[0].keys = cache.layers[0].keys * 1.5


def patch_update(cache):
    cache.update = scaled(cache.update)


def patch_update_of_layer(cache):
    cache.layers[0].update = scaled(cache.layers[0].update)


def forget_last_token(cache):
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[:, :, :-1], layer.values[:, :, :-1]


@pytest.mark.parametrize("change", [edit_keys, patch_update, patch_update_of_layer, forget_last_token])
def test_a_change_of_the_cache_is_obeyed(change):
    def run(change, **options):
        cache = DynamicCache(config=build().config)
        return generate(lambda model, patch: change(cache), 2, past_key_values=cache, **options)[0]

    found = run(change)
    torch.testing.assert_close(found, run(change, plain=True), atol=2e-5, rtol=1e-4)
    assert (found - run(lambda cache: None))[:, 2:].abs().max() > 1e-3


def test_an_offloaded_cache_is_prefetched_in_every_step(monkeypatch):
    class Stream(contextlib.nullcontext):
        wait_stream = print

    prefetched, prefetch = [], DynamicLayer.prefetch
    monkeypatch.setattr(DynamicLayer, "prefetch", lambda layer: prefetched.append(layer) or prefetch(layer))
    monkeypatch.setattr(torch.cuda, "default_stream", lambda device: Stream())
    cache = DynamicCache(config=build().config)
    cache.offloading, cache.only_non_sliding, cache.prefetch_stream = True, False, Stream()
    generate(past_key_values=cache)
    assert len(prefetched) == 2 * NEW_TOKENS


def test_a_processor_may_call_the_model_with_an_empty_cache():
    model, found = build(), []
    first = torch.zeros(1, 1, dtype=torch.long)

    def call(input_ids, scores):
        found.append(model(input_ids[:, -1:], position_ids=first, past_key_values=DynamicCache()).logits)
        return scores

    output = model.generate(tokens(1, 5), logits_processor=[call], **OPTIONS)
    torch.testing.assert_close(torch.cat(found), logits(model, output.sequences[:, 4:-1].T))
    expected = logits(model, output.sequences[:, :-1])[:, 4:]
    torch.testing.assert_close(torch.stack(output.logits, dim=1), expected, atol=2e-5, rtol=1e-4)


def test_a_mask_that_hides_a_token_later_is_obeyed(monkeypatch):
    model = build()
    prepare = model.prepare_inputs_for_generation

    @functools.wraps(prepare)
    def hide_a_token(input_ids, **options):
        inputs = prepare(input_ids, **options)
        if input_ids.shape[1] > 7:
            inputs["attention_mask"] = (torch.arange(input_ids.shape[1]) != 1).long().expand(2, -1)
        return inputs

    model.prepare_inputs_for_generation = hide_a_token
    found = torch.stack(model.generate(tokens(2, 6), **OPTIONS).logits, dim=1)
    monkeypatch.setattr(decoding_scratch, "active_decoder", lambda model: None)
    expected = torch.stack(model.generate(tokens(2, 6), **OPTIONS).logits, dim=1)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_float64_stays_float64():
    model = build("gpt2").double()
    output = model.generate(tokens(2, 7), **OPTIONS)
    with torch.no_grad():
        expected = model(output.sequences[:, :-1], use_cache=True)
    torch.testing.assert_close(torch.stack(output.logits, dim=1), expected.logits[:, 6:].float())
    for ours, ordinary in zip(output.past_key_values.layers, expected.past_key_values.layers, strict=True):
        torch.testing.assert_close(ours.keys, ordinary.keys, atol=1e-12, rtol=1e-12)
