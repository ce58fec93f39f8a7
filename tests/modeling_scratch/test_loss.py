"""The loss without logits against the loss from logits: value, gradients, memory."""

import pytest
import torch
from tiny_model import build, tokens
from torch import nn
from torch.nn.utils import parametrizations

from modeling_scratch import loss_scratch

LABELS = torch.where(torch.rand(3, 21, generator=torch.Generator().manual_seed(1)) < 0.3, -100, tokens(3, 21))


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch):
    monkeypatch.setattr(loss_scratch, "BLOCK_ON_CPU", 8)  # of 63 tokens: the last block is not full
    monkeypatch.setattr(loss_scratch, "PART", 40)
    monkeypatch.setattr(loss_scratch, "SLICE", 3 * 96)  # three tokens: the last slice of a block is not full either


def losses_and_gradients(model, **kwargs):
    results = []
    for skip_logits in (True, False):
        model.zero_grad()
        output = model(tokens(3, 21), skip_logits=skip_logits, use_cache=False, **kwargs)
        assert (output.logits is None) == skip_logits
        (output.loss * 3).backward()
        results.append((output.loss.detach(), {name: weight.grad for name, weight in model.named_parameters()}))
    return results


@pytest.mark.parametrize("preset", ["gpt2", "llama", "qwen3", "scratch"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "extra", [{}, {"num_items_in_batch": 100}, {"shift_labels": LABELS.roll(-1, 1)}], ids=["mean", "count", "shifted"]
)
def test_loss_and_gradients_are_those_of_the_logits(preset, tied, extra):
    model = build(preset, tie_word_embeddings=tied)
    (loss, gradients), (expected_loss, expected) = losses_and_gradients(model, labels=LABELS, **extra)
    torch.testing.assert_close(loss, expected_loss, atol=1e-6, rtol=1e-6)
    for name in expected:
        torch.testing.assert_close(gradients[name], expected[name], atol=1e-6, rtol=1e-5, msg=name)


def test_under_autocast_it_is_as_exact_as_the_logits():
    model = build("scratch")
    exact_loss, exact = losses_and_gradients(model, labels=LABELS)[1]
    with torch.autocast("cpu", torch.bfloat16):
        ours, plain = losses_and_gradients(model, labels=LABELS)
    assert ours[1]["lm_head.weight"].dtype == torch.float

    def error(result):
        return (result[1]["lm_head.weight"] - exact["lm_head.weight"]).norm() / exact["lm_head.weight"].norm()

    assert abs(ours[0] - exact_loss) < 0.02 * exact_loss
    assert 0 < error(ours) < 1.1 * error(plain)


def test_nothing_is_differentiated_without_need():
    model = build()
    with torch.no_grad():
        found = model(tokens(3, 21), labels=LABELS, skip_logits=True).loss
        expected = model(tokens(3, 21), labels=LABELS).loss
    assert not found.requires_grad
    torch.testing.assert_close(found, expected)


def test_a_batch_without_labels_has_no_gradient_of_its_own():
    model = build()
    model(tokens(1, 9), labels=torch.full((1, 9), -100), num_items_in_batch=5, skip_logits=True).loss.backward()
    assert all(not weight.grad.any() for weight in model.parameters())


def test_a_second_backward_is_an_error_and_not_a_wrong_gradient():
    loss = build()(tokens(3, 21), labels=LABELS, skip_logits=True).loss
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_compiled_it_is_the_same():
    """Compiled alone, as `compile_regions` does, and together with its caller."""
    model, weight, results = build("scratch").model, build("scratch").lm_head.weight, []
    by_itself = loss_scratch.CausalLMLoss()
    by_itself.compile(backend="aot_eager", fullgraph=True)
    torch.compiler.reset()
    whole = torch.compile(loss_scratch.CausalLMLoss(), backend="aot_eager", fullgraph=True)
    for function in (loss_scratch.CausalLMLoss(), by_itself, whole):
        model.zero_grad()
        weight.grad = None
        value = function(model(tokens(3, 21), use_cache=False).last_hidden_state, weight, LABELS, softcap=15.0)
        value.backward()
        results.append((value.detach(), weight.grad, model.embed_tokens.weight.grad.clone()))
    torch.testing.assert_close(results[1], results[0])
    torch.testing.assert_close(results[2], results[0])


def test_the_logits_of_all_tokens_are_never_in_memory():
    hidden_states = torch.randn(1, 64, 4, requires_grad=True)
    weight = nn.Parameter(torch.randn(960, 4))
    sizes = []

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), kwargs=None):
            result = function(*arguments, **(kwargs or {}))
            sizes.extend(x.numel() for x in torch.utils._pytree.tree_leaves(result) if isinstance(x, torch.Tensor))
            return result

    with Largest():
        loss_scratch.CausalLMLoss()(hidden_states, weight, tokens(1, 64)).backward()
    assert max(sizes) == 8 * 960


def test_skipping_the_logits_without_labels_leaves_nothing():
    with pytest.raises(ValueError, match="give labels"):
        build()(tokens(1, 5), skip_logits=True)


def test_shifted_labels_suffice_without_logits():
    model, shifted = build(), LABELS.roll(-1, 1)
    found = model(tokens(3, 21), shift_labels=shifted, skip_logits=True).loss
    assert torch.equal(found, model(tokens(3, 21), labels=LABELS, shift_labels=shifted, skip_logits=True).loss)


def shifted_up(module, inputs, output):
    """A hook that changes the logits, whose last dimension no other output has."""
    return output + torch.arange(96) % 7 if getattr(output, "shape", ())[-1:] == (96,) else None


def put_adapter_on(model, modules):
    from peft import LoraConfig, get_peft_model  # here: test_mutants.py runs this file often

    get_peft_model(model, LoraConfig(r=4, target_modules=modules, init_lora_weights=False))


def with_adapter(model, monkeypatch):
    put_adapter_on(model, ["lm_head"])


def with_bias(model, monkeypatch):
    model.lm_head.bias = nn.Parameter(torch.linspace(-2, 2, 96))


def with_hook(model, monkeypatch):
    model.lm_head.register_forward_hook(shifted_up)


def with_hook_on_all_modules(model, monkeypatch):
    monkeypatch.setitem(nn.modules.module._global_forward_hooks, 1, shifted_up)


def with_another_forward(model, monkeypatch):
    model.lm_head.forward = lambda hidden_states: 3 * hidden_states @ model.lm_head.weight.T


def with_another_forward_in_the_class(model, monkeypatch):
    original = nn.Linear.forward
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: original(self, x) * (3 if self.out_features == 96 else 1))


def in_another_module(model, monkeypatch):
    model.lm_head = nn.Sequential(model.lm_head, nn.Tanh())


def with_normed_weight(model, monkeypatch):
    parametrizations.weight_norm(model.lm_head)
    model.lm_head.parametrizations.weight.original0.data *= 3


def with_another_softcap(model, monkeypatch):
    model.config.final_logit_softcapping = 3.0


def with_another_softcap_function(model, monkeypatch):
    model.softcap = lambda logits: 2 * logits


def with_another_loss(model, monkeypatch):
    plain = model.loss_function
    model.loss_function = lambda logits, **kwargs: plain(logits, **kwargs) + 0.1 * logits.square().mean()


@pytest.mark.parametrize(
    "change",
    [
        with_adapter,
        with_bias,
        with_hook,
        with_hook_on_all_modules,
        with_another_forward,
        with_another_forward_in_the_class,
        in_another_module,
        with_normed_weight,
        with_another_softcap,
        with_another_softcap_function,
        with_another_loss,
    ],
)
def test_what_is_added_to_the_head_counts_and_learns(change, monkeypatch):
    model = build("scratch")
    (unchanged, _), _ = losses_and_gradients(model, labels=LABELS)
    change(model, monkeypatch)
    (loss, gradients), (expected_loss, expected) = losses_and_gradients(model, labels=LABELS)
    assert abs(expected_loss - unchanged) > 0.01
    torch.testing.assert_close(loss, expected_loss, atol=1e-6, rtol=1e-6)
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize("adapted", [[], ["q_proj", "down_proj"]])
def test_a_plain_head_needs_no_logits(adapted, monkeypatch):
    model, calls = build("scratch"), []
    if adapted:
        put_adapter_on(model, adapted)
    monkeypatch.setattr(model.chunked_loss, "forward", lambda *_, **__: calls.append(1))
    model(tokens(3, 21), labels=LABELS, skip_logits=True)
    assert calls == [1]
