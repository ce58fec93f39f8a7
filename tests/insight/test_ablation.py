"""Ablation: a head knocked out is one whose output columns are zero; the head that matters is found."""

import copy
import math

import pytest
import torch
from tiny_model import ARCHITECTURES, SIZES, build, tokens
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from training.data.loader import Batch
from training.insight.ablation import Texts, ablate, measure, without_heads
from training.insight.attention import attention_modules
from training.insight.capture import with_labels
from training.insight.sequences import Repeated


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=96, n_positions=64)).eval()


MODELS = {name: lambda options=options: build(**options) for name, options in ARCHITECTURES.items()} | {"GPT2": gpt2}


def with_zero_columns(model, layer: int, head: int):
    """A copy whose output projection does not read a head."""
    changed = copy.deepcopy(model)
    module = attention_modules(changed)[layer]
    projection = module.o_proj if hasattr(module, "o_proj") else module.c_proj
    weight = projection.weight.T if isinstance(projection, Conv1D) else projection.weight
    size = weight.shape[1] // SIZES["num_attention_heads"]
    with torch.no_grad():
        weight[:, head * size : (head + 1) * size] = 0
    return changed


@pytest.mark.parametrize("name", MODELS)
def test_a_head_knocked_out_is_one_with_zero_columns(name):
    model, ids = MODELS[name](), tokens(2, 20)
    before = model(ids, use_cache=False).logits
    with without_heads(model, attention_modules(model), [(1, 2)]), torch.no_grad():
        without = model(ids, use_cache=False).logits
    expected = with_zero_columns(model, 1, 2)(ids, use_cache=False).logits
    assert (expected - before).abs().max() > 1e-3
    torch.testing.assert_close(without, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(ids, use_cache=False).logits, before)  # nothing is left behind


@pytest.fixture(scope="module")
def copier():
    """A model whose head 1.1 copies: the token that each position attends to decides the prediction."""
    model = build("llama", num_key_value_heads=4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.mul_(0.01)
        size = 8
        layer = model.model.layers[1].self_attn
        value = torch.linalg.qr(torch.randn(32, size))[0]  # (hidden, head_dim)
        layer.v_proj.weight[size : 2 * size] = value.T
        layer.o_proj.weight[:, size : 2 * size] = 40 * value
        model.lm_head.weight.copy_(model.model.embed_tokens.weight)
    return model


def texts() -> Texts:
    block = torch.stack([torch.randperm(90, generator=torch.Generator().manual_seed(n))[:10] + 1 for n in range(4)])
    held_out = with_labels(tokens(4, 24, seed=5))
    return Texts(Repeated(torch.cat((block, block), 1), 0, 10), held_out, bytes_per_token=3.0)


def test_the_head_that_matters_is_found(copier):
    groups = [((layer, head),) for layer in range(2) for head in range(4)]
    ablations = ablate(copier, texts(), groups)
    changes = sorted(ablations.effects, key=lambda effect: -abs(effect.loss.value))
    assert changes[0].heads == ((1, 1),) and abs(changes[0].loss.value) > 5 * abs(changes[1].loss.value)
    assert [effect.heads for effect in ablations.effects] == groups


def test_the_figures_are_those_of_the_model(copier):
    """Against losses computed one token at a time, and predictions of the second blocks."""
    given = texts()
    scores = measure(copier, given)
    with torch.no_grad():
        logits = copier(given.held_out.input_ids).logits.double().log_softmax(-1)
        predicted = copier(given.repeated.input_ids).logits.argmax(-1)
    for row, ids in enumerate(given.held_out.input_ids):
        nats = [-logits[row, place, ids[place + 1]].item() for place in range(23)]
        assert scores.loss[row] == pytest.approx(math.fsum(nats) / 23, abs=1e-5)
        block = given.repeated.input_ids[row]
        right = [predicted[row, place] == block[place + 1] for place in range(10, 19)]
        assert scores.copying[row] == pytest.approx(sum(map(bool, right)) / 9)


def test_changes_are_differences(copier):
    given = texts()
    ablations = ablate(copier, given, [((0, 0), (1, 1))])
    with without_heads(copier, attention_modules(copier), [(0, 0), (1, 1)]):
        after = measure(copier, given)
    before = measure(copier, given)
    (effect,) = ablations.effects
    assert effect.name == "0.0 1.1"
    assert effect.loss.value == pytest.approx((sum(after.loss) - sum(before.loss)) / 4, abs=1e-6)
    assert effect.bits_per_byte == pytest.approx(effect.loss.value / math.log(2) / 3)
    assert effect.copying.value == pytest.approx((sum(after.copying) - sum(before.copying)) / 4)
    assert ablations.to_json()["effects"][0]["heads"] == ((0, 0), (1, 1))


def test_without_held_out_text_only_copying_is_measured(copier):
    ablations = ablate(copier, Texts(texts().repeated), [((1, 1),)])
    assert ablations.loss is ablations.bits_per_byte is ablations.effects[0].loss is None
    assert ablations.ranked() == ablations.effects


def test_documents_stay_apart(copier):
    """Positions of packed documents reach the model."""
    ids, positions = tokens(1, 24, seed=5), torch.tensor([[*range(10), *range(14)]])
    apart, together = (
        measure(copier, Texts(texts().repeated, Batch(ids, with_labels(ids).labels, given), 3.0)).loss
        for given in (positions, None)
    )
    assert apart != together
