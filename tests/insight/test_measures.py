"""The measures equal deliberately naive implementations of their definitions."""

import math

import numpy as np
import pytest
import torch
from tiny_model import build, tokens

from training.insight.attention import attention_sizes
from training.insight.capture import with_labels
from training.insight.copying import copying
from training.insight.measures import MEASURES, OF_ATTENTION, context_places, in_context_learning
from training.insight.observation import observe


def naive(attention: np.ndarray, ids: list[int]) -> dict[str, list[float]]:
    """What each place of one sequence adds to each measure of one head, (seq, seq), by the definitions."""
    seq = len(ids)
    found: dict[str, list[float]] = {measure: [] for measure in OF_ATTENTION}
    for i in range(seq):
        same = [j for j in range(i) if ids[j] == ids[i]]
        if same:
            found["duplicate_token"].append(sum(attention[i][j] for j in same))
            found["induction"].append(sum(attention[i][j + 1] for j in same))
        if i:
            found["previous_token"].append(attention[i][i - 1])
            found["first_token"].append(attention[i][0])
            entropy = -sum(a * math.log(a) for a in attention[i][: i + 1] if a > 0)
            found["entropy"].append(entropy / math.log(i + 1))
        found["distance"].append(sum(attention[i][j] * (i - j) for j in range(i + 1)))
    return found


@pytest.mark.parametrize("at_once", [1024, 40])
def test_each_measure_is_its_definition(monkeypatch, at_once):
    """Over several sequences, in one forward pass or in several."""
    monkeypatch.setattr("training.insight.observation.TOKENS_AT_ONCE", at_once)
    model, ids = build("qwen3"), tokens(3, 20) % 12  # few tokens, so that they repeat
    seen = observe(model, with_labels(ids), [], [(0, 0)])
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(ids, output_attentions=True)
    for layer, attention in enumerate(output.attentions):
        for head in range(attention.shape[1]):
            parts = [naive(attention[row, head].tolist(), ids[row].tolist()) for row in range(len(ids))]
            for number, measure in enumerate(OF_ATTENTION):
                values = [value for part in parts for value in part[measure]]
                assert seen.measures[number, layer, head] == pytest.approx(np.mean(values), abs=1e-5)
    for row in range(len(ids)):
        logs = output.logits[row].double().log_softmax(-1)
        for place in range(19):
            following = int(ids[row, place + 1])
            assert seen.losses[row, place] == pytest.approx(-float(logs[place, following]), abs=1e-5)
            assert seen.correct[row, place] == (int(logs[place].argmax()) == following)
        assert np.isnan(seen.losses[row, 19]) and not seen.correct[row, 19]


def test_scores_are_those_of_transformerlens_up_to_the_places_that_have_a_key():
    """Its head detector divides the mass on a pattern by all attention. The patterns, as in its source."""
    model, ids = build("llama"), tokens(1, 24) % 10
    seen = observe(model, with_labels(ids), [], [(0, 0)])
    model.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = model(ids, output_attentions=True).attentions
    equal = (ids.T == ids).float().fill_diagonal_(0)
    duplicate = torch.tril(equal)
    shifted = torch.zeros_like(duplicate)
    shifted[:, 1:] = torch.roll(duplicate, shifts=1, dims=1)[:, 1:]
    previous = torch.zeros(24, 24)
    previous[1:, :-1] = torch.eye(23)
    patterns = {"previous_token": previous, "duplicate_token": duplicate, "induction": torch.tril(shifted)}
    for measure, pattern in patterns.items():
        places = float(pattern.any(1).sum())
        for layer in range(2):
            for head in range(4):
                attention = attentions[layer][0, head]
                theirs = float((attention * pattern).sum() / attention.sum())
                ours = seen.measures[OF_ATTENTION.index(measure), layer, head]
                assert ours * places / 24 == pytest.approx(theirs, abs=1e-5)


def test_heads_of_one_kind_score_one():
    """On a random block given twice, and 0 on the other patterns; uniform attention has entropy 1."""
    from training.insight.measures import head_sums

    ids = torch.tensor([[0, *range(1, 9), *range(1, 9)]])
    attention = torch.zeros(1, 4, 17, 17)
    attention[0, 0] = torch.eye(17).roll(-1, 1)  # each to the token before
    attention[0, 0, 0] = torch.eye(17)[0]
    attention[0, 1, :9, 0] = 1
    attention[0, 1, 9:] = torch.eye(17)[2:10]  # each to the one after its first occurrence
    attention[0, 2, :9, 0] = 1
    attention[0, 2, 9:] = torch.eye(17)[1:9]
    attention[0, 3] = torch.ones(17, 17).tril() / torch.arange(1, 18)[:, None]
    sums, counts = head_sums(attention, ids)
    scores = dict(zip(OF_ATTENTION, (sums / counts[:, None]).tolist(), strict=True))
    assert scores["previous_token"][:3] == pytest.approx([1, 1 / 16, 1 / 16])
    assert scores["induction"][:3] == pytest.approx([0, 1, 0])
    assert scores["duplicate_token"][:3] == pytest.approx([0, 0, 1])
    assert scores["entropy"] == pytest.approx([0, 0, 0, 1])
    assert scores["distance"][0] == pytest.approx(16 / 17) and scores["distance"][3] == pytest.approx(4)
    assert set(MEASURES) == {*OF_ATTENTION, "copying"}


@pytest.mark.parametrize("preset, options", [("gpt2", {}), ("llama", {}), ("qwen3", {"tie_word_embeddings": True})])
def test_copying_is_the_eigenvalues_of_the_whole_circuit(preset, options):
    """(vocab, vocab), token to logit; heads 2 and 3 of 4 share the second group of values."""
    model = build(preset, **options)
    sizes = attention_sizes(model)
    scores = copying(model, [layer.self_attn for layer in model.model.layers], sizes)
    embedding, unembedding = (
        weights.detach().double().numpy() for weights in (model.model.embed_tokens.weight, model.lm_head.weight)
    )
    size, groups = sizes.head_dim, sizes.heads // sizes.key_value_heads
    for layer, part in enumerate(model.model.layers):
        values, outputs = (
            linear.weight.detach().double().numpy() for linear in (part.self_attn.v_proj, part.self_attn.o_proj)
        )
        for head in range(sizes.heads):
            value = values[(head // groups) * size : (head // groups + 1) * size]
            output = outputs[:, head * size : (head + 1) * size]
            eigenvalues = np.linalg.eigvals(unembedding @ output @ value @ embedding.T)
            expected = eigenvalues.sum().real / np.abs(eigenvalues).sum()
            assert scores[layer, head] == pytest.approx(expected, abs=1e-5)


def test_a_head_that_only_copies_scores_one_and_zeros_score_zero():
    model = build("llama", num_key_value_heads=4, tie_word_embeddings=True)
    first, second = (layer.self_attn for layer in model.model.layers)
    with torch.no_grad():
        first.o_proj.weight.copy_(first.v_proj.weight.T)
        second.o_proj.weight.zero_()
    scores = copying(model, [first, second], attention_sizes(model))
    assert scores[0].tolist() == pytest.approx([1] * 4, abs=1e-4) and scores[1].tolist() == [0] * 4


def test_in_context_learning_compares_late_places_with_early_ones():
    losses = [10.0 - place / 100 for place in range(1, 513)]  # after so many tokens of context
    assert in_context_learning(losses) == pytest.approx(np.mean(losses[489:510]) - np.mean(losses[39:60]))
    early, late = context_places(256)
    assert (early.start + 1, early.stop) == (40, 60) and (late.start + 1, late.stop) == (240, 260)
    assert in_context_learning([3.0, 2.0, 1.0]) == -2.0
