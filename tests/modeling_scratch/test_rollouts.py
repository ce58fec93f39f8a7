"""Many answers to each prompt, as in GRPO: equal prompts are read once, and finished answers are computed no longer."""

from contextlib import nullcontext

import pytest
import torch
from tiny_model import ARCHITECTURES, build, tokens
from torch import nn
from transformers import DynamicCache, GenerationMixin

from modeling_scratch import decoding_scratch, modeling_scratch

ENDS = list(range(40, 55))  # about one token in six ends an answer
OPTIONS = {"max_new_tokens": 14, "pad_token_id": 0, "eos_token_id": ENDS}


def repeated_prompts():
    """(input_ids, attention_mask): prompts of 3, 7 and 5 tokens, padded on the left, four of each, mixed."""
    prompts = [nn.functional.pad(tokens(1, length, seed=length), (7 - length, 0)) for length in (3, 7, 5)]
    input_ids = torch.cat(prompts * 4)
    return input_ids, (input_ids != 0).long()


@pytest.fixture
def rows(monkeypatch):
    """The number of sequences of each pass over prompts, and of each step of a layer."""
    counted = {"prompts": [], "steps": []}
    prefill, step = GenerationMixin._prefill, decoding_scratch.DecoderLayer.step

    def counting_prefill(self, input_ids, *arguments, **options):
        counted["prompts"].append(len(input_ids))
        return prefill(self, input_ids, *arguments, **options)

    def counting_step(self, hidden_states, *arguments):
        counted["steps"].append(len(hidden_states))
        return step(self, hidden_states, *arguments)

    monkeypatch.setattr(GenerationMixin, "_prefill", counting_prefill)
    monkeypatch.setattr(decoding_scratch.DecoderLayer, "step", counting_step)
    return counted


@pytest.fixture
def ordinary(monkeypatch):
    """A function that generates without any of this."""

    def generate(model, *arguments, **options):
        with monkeypatch.context() as patch:
            patch.setattr(modeling_scratch, "fast_decoding", lambda *_: nullcontext())
            patch.setattr(modeling_scratch.ScratchForCausalLM, "_prefill", GenerationMixin._prefill)
            torch.manual_seed(0)
            return model.generate(*arguments, **options)

    return generate


@pytest.mark.parametrize("options", ARCHITECTURES.values(), ids=ARCHITECTURES)
@pytest.mark.parametrize("sampled", [False, True], ids=["greedy", "sampled"])
def test_answers_are_those_of_the_ordinary_way(options, sampled, ordinary, rows):
    """In fp32 rounding changes none of these tokens; sampling draws as many random numbers, so seeds agree too."""
    model, (input_ids, mask) = build(**options), repeated_prompts()
    settings = OPTIONS | ({"do_sample": True, "top_k": 0, "temperature": 1.5} if sampled else {"do_sample": False})
    expected = ordinary(model, input_ids, attention_mask=mask, **settings)
    torch.manual_seed(0)
    for counts in rows.values():
        counts.clear()
    found = model.generate(input_ids, attention_mask=mask, **settings)
    assert torch.equal(found, expected)
    assert rows["prompts"] == [3]
    if "layer_types" not in options:  # sliding windows take the ordinary steps
        assert rows["steps"] == sorted(rows["steps"], reverse=True)
        assert not sampled or rows["steps"][-1] < 6
    answers = found[:, 7:]
    assert not sampled or len(answers.unique(dim=0)) > 9


def test_logits_that_the_caller_sees_are_complete(ordinary, rows):
    model, (input_ids, mask) = build(), repeated_prompts()
    settings = OPTIONS | {"do_sample": True, "return_dict_in_generate": True, "output_logits": True}
    expected = ordinary(model, input_ids, attention_mask=mask, **settings)
    torch.manual_seed(0)
    found = model.generate(input_ids, attention_mask=mask, **settings)
    assert set(rows["steps"]) == {12}
    torch.testing.assert_close(torch.stack(found.logits), torch.stack(expected.logits), atol=2e-5, rtol=1e-4)
    for ours, theirs in zip(found.past_key_values.layers, expected.past_key_values.layers, strict=True):
        torch.testing.assert_close(ours.keys * 1.0, theirs.keys, atol=2e-5, rtol=1e-4)


def test_a_cache_of_the_caller_has_all_rows_afterwards(ordinary, rows):
    """Each row up to its last token; what follows is padding."""
    model, input_ids = build(), tokens(4, 6).repeat(3, 1)
    settings = OPTIONS | {"do_sample": True, "top_k": 0}
    ours, theirs = DynamicCache(config=model.config), DynamicCache(config=model.config)
    expected = ordinary(model, input_ids, past_key_values=theirs, **settings)
    torch.manual_seed(0)
    found = model.generate(input_ids, past_key_values=ours, **settings)
    assert torch.equal(found, expected) and rows["steps"][-1] < 12
    ended = torch.isin(found[:, 6:], torch.tensor(ENDS)).long().cumsum(dim=1) > 0
    real = torch.cat((torch.ones(12, 6, dtype=torch.bool), ~ended), dim=1)[:, :-1, None]
    for mine, other in zip(ours.layers, theirs.layers, strict=True):
        assert mine.keys.shape == other.keys.shape
        for one, two in ((mine.keys, other.keys), (mine.values, other.values)):
            torch.testing.assert_close(one * real[:, None], two * real[:, None], atol=2e-5, rtol=1e-4)


def test_prompts_that_differ_only_in_their_mask_are_not_equal(ordinary, rows):
    model, input_ids = build(), tokens(1, 6).repeat(3, 1)
    mask = torch.ones_like(input_ids)
    mask[1, :2] = 0
    expected = ordinary(model, input_ids, attention_mask=mask, do_sample=False, **OPTIONS)
    rows["prompts"].clear()
    assert torch.equal(model.generate(input_ids, attention_mask=mask, do_sample=False, **OPTIONS), expected)
    assert rows["prompts"] == [2]


def test_dropout_draws_for_each_row(rows):
    model, (input_ids, mask) = build(hidden_dropout=0.1).train(), repeated_prompts()
    model.generate(input_ids, attention_mask=mask, do_sample=False, **OPTIONS)
    assert rows["prompts"] == [12] and not rows["steps"]


def test_dropout_of_an_adapter_draws_for_each_row(rows):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], lora_dropout=0.1)
    model, (input_ids, mask) = peft.get_peft_model(build(), config), repeated_prompts()
    for training, prompts in ((True, 12), (False, 3)):
        model.train(training).generate(input_ids=input_ids, attention_mask=mask.bool(), do_sample=False, **OPTIONS)
        assert rows["prompts"].pop() == prompts
