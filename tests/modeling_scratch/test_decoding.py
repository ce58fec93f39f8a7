"""The decode loop's fast path: the logits and the cache of the ordinary forward pass, and when it is taken."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from peft import LoraConfig, get_peft_model
from tiny_model import ARCHITECTURES, build, logits, tokens
from torch import nn

from modeling_scratch import decoding_scratch
from modeling_scratch.decoding_scratch import active_decoder

# transformers has another kind of cache for sliding windows, which takes the ordinary path.
COVERED = {name: options for name, options in ARCHITECTURES.items() if name != "sliding"}
OPTIONS = {"max_new_tokens": 12, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}


@pytest.fixture(autouse=True)
def steps(monkeypatch):
    """The steps of the fast path so far. Few positions are allocated at a time, so that the cache has to grow."""
    monkeypatch.setattr(decoding_scratch, "GROWTH", 3)
    counted, step = [], decoding_scratch.DecoderLayer.step

    def counting(self, *arguments):
        counted.append(self)
        return step(self, *arguments)

    monkeypatch.setattr(decoding_scratch.DecoderLayer, "step", counting)
    return counted


def padded_prompts():
    """(input_ids, attention_mask): 3 and 7 tokens, padded on the left."""
    prompts = [tokens(1, length, seed=length) for length in (3, 7)]
    input_ids = torch.cat([nn.functional.pad(prompt, (7 - prompt.shape[1], 0)) for prompt in prompts])
    return input_ids, (input_ids != 0).long()


@pytest.mark.parametrize("options", COVERED.values(), ids=COVERED)
@pytest.mark.parametrize("copy", [True, False], ids=["joined", "separate"])
@pytest.mark.parametrize("padded", [True, False], ids=["padded", "even"])
def test_logits_and_cache_are_the_ordinary_ones(options, copy, padded, steps, monkeypatch):
    if not copy:
        monkeypatch.setattr(decoding_scratch, "LARGEST_COPY", 0)
    model = build(**options)
    input_ids, mask = padded_prompts() if padded else (tokens(2, 7), torch.ones(2, 7, dtype=torch.long))
    output = model.generate(input_ids, attention_mask=mask, **OPTIONS)
    assert len(steps) == 11 * len(model.model.layers)  # the first token comes from the prompt

    mask = torch.cat((mask, torch.ones(2, 12, dtype=torch.long)), dim=1)[:, :-1]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        expected = model(output.sequences[:, :-1], attention_mask=mask, position_ids=positions, use_cache=True)
    found = torch.stack(output.logits, dim=1)
    torch.testing.assert_close(found, expected.logits[:, 6:], atol=2e-5, rtol=1e-4)
    real = mask[:, None, :, None].bool()
    for ours, ordinary in zip(output.past_key_values.layers, expected.past_key_values.layers, strict=True):
        torch.testing.assert_close(ours.keys * real, ordinary.keys * real, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(ours.values * real, ordinary.values * real, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("training", [False, True])
def test_written_out_attention_and_training_without_dropout_are_covered(training, steps):
    """As TRL generates: the model is in training mode, and attention is often written out."""
    model = build().train(training)
    model.set_attn_implementation("eager")
    input_ids, mask = padded_prompts()
    output = model.generate(input_ids, attention_mask=mask, **OPTIONS)
    assert len(steps) == 11 * len(model.model.layers)
    mask = torch.cat((mask, torch.ones(2, 12, dtype=torch.long)), dim=1)[:, :-1]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        expected = model(output.sequences[:, :-1], attention_mask=mask, position_ids=positions).logits[:, 6:]
    torch.testing.assert_close(torch.stack(output.logits, dim=1), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("preset", ["gpt2", "llama", "scratch"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_as_close_to_fp32_as_the_ordinary_path(preset, dtype, steps):
    exact = build(preset, num_key_value_heads=None, hidden_size=64, intermediate_size=128)
    model = build(preset, num_key_value_heads=None, hidden_size=64, intermediate_size=128).to(dtype)
    output = model.generate(tokens(2, 7), **OPTIONS)
    assert steps and output.past_key_values.layers[0].keys.dtype == dtype
    sequences = output.sequences[:, :-1]
    found = torch.stack(output.logits, dim=1)
    expected, ordinary = logits(exact, sequences)[:, 6:], logits(model, sequences)[:, 6:].float()

    def error(result):
        return ((result - expected).square().mean().sqrt() / expected.std()).item()

    assert 0 < error(found) < 1.5 * error(ordinary) < 0.1


def test_samples_are_those_of_the_ordinary_path(steps, monkeypatch):
    model = build("scratch")
    options = {"do_sample": True, "top_k": 20, "temperature": 1.5, "max_new_tokens": 12, "num_return_sequences": 2}
    torch.manual_seed(0)
    fast = model.generate(tokens(2, 5), **options)
    assert steps
    monkeypatch.setattr(decoding_scratch, "active_decoder", lambda model: None)
    torch.manual_seed(0)
    assert torch.equal(model.generate(tokens(2, 5), **options), fast)


def test_a_cache_goes_on_in_another_call(steps):
    model = build("qwen3")
    whole = model.generate(tokens(1, 5), max_new_tokens=12, do_sample=False)
    first = model.generate(tokens(1, 5), max_new_tokens=6, do_sample=False, return_dict_in_generate=True)
    second = model.generate(first.sequences, past_key_values=first.past_key_values, max_new_tokens=6, do_sample=False)
    assert torch.equal(second, whole)


def test_changed_weights_are_seen_by_the_next_call(steps):
    model = build("llama")
    model.generate(tokens(1, 5), max_new_tokens=4, do_sample=False)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.flip(0))
    output = model.generate(tokens(1, 5), **OPTIONS)
    found = torch.stack(output.logits, dim=1)
    torch.testing.assert_close(found, logits(model, output.sequences[:, :-1])[:, 4:], atol=2e-5, rtol=1e-4)


def hooked():
    model = build()
    model.model.layers[0].mlp.register_forward_hook(lambda module, arguments, output: output * 2)
    return model


@pytest.mark.parametrize(
    "model",
    [
        hooked,
        lambda: get_peft_model(build(), LoraConfig(target_modules="all-linear", init_lora_weights=False)),
        lambda: build(**ARCHITECTURES["sliding"]),
        lambda: build(attention_dropout=0.5).train(),
        lambda: build(hidden_dropout=0.5).train(),
    ],
    ids=["hook", "adapter", "sliding", "attention dropout", "dropout"],
)
def test_what_it_does_not_cover_goes_the_ordinary_way(model, steps):
    model().generate(input_ids=tokens(1, 5), max_new_tokens=4)
    assert not steps


@pytest.mark.parametrize(
    "options",
    [{"num_beams": 2}, {"use_cache": False}, {"cache_implementation": "static"}, {"output_hidden_states": True}],
    ids=lambda options: next(iter(options)),
)
def test_calls_it_does_not_cover_go_the_ordinary_way(options, steps):
    model = build()
    output = model.generate(tokens(1, 5), **(OPTIONS | options))
    assert not steps
    if "num_beams" not in options:
        plain = torch.stack(output.logits, dim=1)
        torch.testing.assert_close(plain, logits(model, output.sequences[:, :-1])[:, 4:], atol=2e-5, rtol=1e-4)


def test_an_interrupted_text_leaves_the_model_as_it_was():
    class Closed:
        def put(self, value):
            if value.shape[-1] == 1:
                raise KeyboardInterrupt

        def end(self):
            pass

    model = build()
    expected = logits(model, tokens(2, 5))
    with pytest.raises(KeyboardInterrupt):
        model.generate(tokens(1, 5), max_new_tokens=8, streamer=Closed())
    assert active_decoder(model) is None
    assert torch.equal(logits(model, tokens(2, 5)), expected)


def test_autocast_is_the_ordinary_paths_affair(steps):
    AcceleratorState._reset_state(reset_partial_state=True)  # of tests before
    model = Accelerator(cpu=True, mixed_precision="bf16").prepare(build())
    model.generate(tokens(1, 5), max_new_tokens=4)
    assert not steps


def test_threads_do_not_disturb_one_another(steps):
    model = build("scratch")
    prompts = [tokens(1, 5, seed=seed) for seed in range(6)]

    def generate(prompt):
        return model.generate(prompt, max_new_tokens=24, do_sample=False)

    expected = [generate(prompt) for prompt in prompts]
    with ThreadPoolExecutor(max_workers=6) as threads:
        found = list(threads.map(generate, prompts))
    assert steps and all(map(torch.equal, found, expected))
    assert active_decoder(model) is None
