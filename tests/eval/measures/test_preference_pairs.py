"""Preference accuracy against log-probabilities computed one answer at a time."""

import copy

import pytest
import torch
from character_tokenizers import character_tokenizer
from messages import refused

from training.eval.measures.continuations import score_continuations
from training.eval.measures.pairs import check_pairs, measure_pairs
from training.eval.measures.prompts import encode_completion


def message(role, content):
    return [{"role": role, "content": content}]


def record(question, chosen, rejected):
    return {
        "prompt": message("user", question),
        "chosen": message("assistant", chosen),
        "rejected": message("assistant", rejected),
    }


RECORDS = [
    record("short", "aa", "bb"),
    record("a longer question", "def f(): return 1", "def f(): return 2"),
    record("q", "x" * 30, "y" * 30),
    record("words " * 8, "yes", "no!"),
    record("again", "tea", "pot"),
]


@torch.inference_mode()
def alone(model, prompt, completion):
    """One answer, unpadded and unbatched, token by token."""
    ids = prompt + completion
    predictions = torch.log_softmax(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double(), dim=-1)
    return sum(predictions[place - 1, ids[place]].item() for place in range(len(prompt), len(ids)))


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_equals_one_at_a_time(tokenizer, tiny_model, batch_size):
    model = tiny_model()
    pairs = [encode_completion(tokenizer, r["prompt"], r[side]) for r in RECORDS for side in ("chosen", "rejected")]
    totals = score_continuations(model, pairs, tokens=batch_size * 64).nats
    assert totals.tolist() == pytest.approx([alone(model, *pair) for pair in pairs], rel=1e-5)


def test_the_completion_is_the_answer_and_its_end_of_turn(tokenizer):
    prompt, completion = encode_completion(tokenizer, message("user", "hi"), message("assistant", "ok"))
    assert tokenizer.decode(prompt) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(completion) == "ok<|im_end|>"


def measured(model, tokenizer, pairs, context=256):
    """Accuracy, margin and outcomes."""
    result = measure_pairs(model, tokenizer, pairs, "polite", context)
    figures = {key.metric: figure for key, figure in result.figures.items()}
    assert all(key[:2] == ("pairs", "polite") for key in result.figures)
    return figures["accuracy"], figures["margin"], result.outcomes


def test_accuracy_is_the_share_of_likelier_chosen_answers(tokenizer, tiny_model):
    model = tiny_model()
    margins = []
    for r in RECORDS:
        sides = [encode_completion(tokenizer, r["prompt"], r[side]) for side in ("chosen", "rejected")]
        chosen, rejected = (alone(model, *side) for side in sides)
        margins.append(chosen - rejected)
    wins = [margin > 0 for margin in margins]
    accuracy, margin, outcomes = measured(model, tokenizer, RECORDS)
    assert accuracy.value == sum(wins) / 5 and accuracy.n == 5 and accuracy.chance == 0.5 and accuracy.unit == "share"
    assert margin.value == pytest.approx(sum(margins) / 5, rel=1e-4)
    assert margin.chance is None and margin.unit == "nats"
    swapped = [{**r, "chosen": r["rejected"], "rejected": r["chosen"]} for r in RECORDS]
    assert measured(model, tokenizer, swapped)[0].value == 1 - accuracy.value
    scores = {outcome.item: outcome.scores["accuracy"] for outcome in outcomes}
    assert list(scores.values()).count(1.0) == sum(wins) and len(scores) == 5
    assert sorted(outcome.scores["margin"] for outcome in outcomes) == pytest.approx(sorted(margins), rel=1e-3)


@pytest.mark.parametrize("question, rejected", [("off the record", "b"), ("q", "off the record")])
def test_every_record_that_the_template_rejects_is_named(tokenizer, monkeypatch, question, rejected):
    fails = "{% for m in messages if m.content == 'off the record' %}{{ raise_exception('no comment') }}{% endfor %}"
    monkeypatch.setattr(tokenizer, "chat_template", fails + tokenizer.chat_template)
    with refused("models.m", "dir", "no comment", repr(question)):
        check_pairs([*RECORDS, record(question, "a", rejected)], "polite", tokenizer, 256, "dir", "models.m")


def test_equal_answers_are_no_preference(tokenizer, tiny_model):
    assert measured(tiny_model(), tokenizer, [record("q", "a", "a")])[0].value == 0


def test_pairs_that_do_not_fit_are_left_out_and_counted(tokenizer, tiny_model):
    accuracy, margin, _ = measured(tiny_model(), tokenizer, RECORDS, context=52)
    assert accuracy.n == margin.n == 3 and accuracy.left_out == margin.left_out == 2
    with refused("pairs.polite", "context of 10 tokens"):
        measured(tiny_model(), tokenizer, RECORDS, context=10)
    check_pairs(RECORDS, "polite", tokenizer, 52, "dir", "models.m")
    with refused("pairs.polite", "no pair fits", "dir", "models.m", 10):
        check_pairs(RECORDS, "polite", tokenizer, 10, "dir", "models.m")
    with refused("pairs.polite", "no pair fits"):
        check_pairs([record("q", "short", "long " * 20)], "polite", tokenizer, 52, "dir", "models.m")


def test_an_end_token_is_not_an_unknown_character(tokenizer, tiny_model):
    """In GPT-2 the unknown token is also the end token, which ends every answer to a text."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.unk_token = tokenizer.eos_token
    pairs = [{"prompt": "q", "chosen": "a", "rejected": "b"}]
    check_pairs(pairs, "polite", tokenizer, 256, "dir", "models.m")
    assert measured(tiny_model(), tokenizer, pairs)[0].n == 1


def test_pairs_with_unknown_characters_in_an_answer_are_left_out_and_counted(tiny_model, tmp_path):
    tokenizer = character_tokenizer(tmp_path, unknown=True)
    pairs = [record("q", "a", "b"), record("café?", "a", "b"), record("q", "é", "b")]
    accuracy, _, _ = measured(tiny_model(), tokenizer, pairs)
    assert accuracy.n == 2 and accuracy.left_out == 1
    with refused("pairs.polite", "no pair fits"):
        check_pairs(pairs[2:], "polite", tokenizer, 256, "dir", "models.m")
