"""Every way to generate gives what the plain way gives: caches, beams, drafts, compilation, continuous batching."""

import copy
import shutil

import pytest
import torch
from tiny_model import ARCHITECTURES, SIZES, build, logits, tokens
from transformers import CompileConfig, ContinuousBatchingConfig, GenerationConfig, QuantizedCache, StaticCache

GREEDY = {"max_new_tokens": 8, "do_sample": False}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request):
    return build(**ARCHITECTURES[request.param])


def test_every_cache_gives_the_same(model):
    """`sliding_window` and `hybrid` are older names of `static`; the offloaded kinds take a GPU."""
    input_ids = tokens(2, 7)
    expected = model.generate(input_ids, use_cache=False, **GREEDY)
    assert expected.shape == (2, 15)
    for cache in (None, "dynamic", "static", "sliding_window", "hybrid"):
        assert torch.equal(model.generate(input_ids, cache_implementation=cache, **GREEDY), expected), cache


def test_chunks_of_any_size_through_a_static_cache(model):
    input_ids = tokens(2, 7)
    cache = StaticCache(config=model.config, max_cache_len=16)
    with torch.no_grad():
        found = [model(chunk, past_key_values=cache).logits for chunk in input_ids.split([4, 1, 2], dim=1)]
    torch.testing.assert_close(torch.cat(found, dim=1), logits(model, input_ids), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("preset", ["gpt2", "llama", "qwen3", "scratch"])
def test_quantized_cache_is_close(preset):
    """Keys and values at four bits, but for the last few tokens."""
    pytest.importorskip("optimum.quanto", reason="the quantized cache needs optimum-quanto")
    model, input_ids = build(preset), tokens(2, 24)
    settings = {"nbits": 4, "q_group_size": 16, "residual_length": 8}
    cache = QuantizedCache("quanto", model.config, **settings)
    with torch.no_grad():
        found = [model(chunk, past_key_values=cache).logits for chunk in input_ids.split([16] + [1] * 8, dim=1)]
    expected = logits(model, input_ids)
    error = (torch.cat(found[1:], dim=1) - expected[:, 16:]).square().mean().sqrt() / expected.std()
    assert 0 < error < 0.2
    generated = model.generate(input_ids, cache_implementation="quantized", cache_config=settings, **GREEDY)
    assert generated.shape == (2, 32) and torch.equal(generated[:, :24], input_ids)


def test_beams_and_sampling(model):
    input_ids = tokens(2, 5)
    beams = model.generate(input_ids, num_beams=3, max_new_tokens=6)
    for options in ({"use_cache": False}, {"cache_implementation": "static"}):
        assert torch.equal(beams, model.generate(input_ids, num_beams=3, max_new_tokens=6, **options))
    torch.manual_seed(0)
    sampled = model.generate(input_ids, do_sample=True, top_p=0.9, max_new_tokens=6, num_return_sequences=2)
    assert beams.shape == (2, 11) and sampled.shape == (4, 11)
    assert sampled.min() >= 0 and sampled.max() < SIZES["vocab_size"]


def test_drafts_change_nothing(model):
    """Assisted decoding by another model, by the model's own first layer, and by copying from the prompt."""
    input_ids = tokens(1, 5).repeat(1, 2)
    expected = model.generate(input_ids, **GREEDY)
    assistant = copy.deepcopy(model)  # right about some tokens and wrong about others
    torch.manual_seed(0)
    assistant.lm_head.weight.data += 0.05 * torch.randn_like(assistant.lm_head.weight)
    for draft in ({"assistant_model": assistant}, {"assistant_early_exit": 1}, {"prompt_lookup_num_tokens": 3}):
        assert torch.equal(model.generate(input_ids, **draft, **GREEDY), expected), draft


def test_continuous_batching_equals_generate(model):
    """Three requests of unequal length through a paged cache with room for less than all of their tokens at once."""
    prompts = [tokens(1, length, seed=length) for length in (3, 11, 6)]
    found = model.generate_batch(
        [prompt[0].tolist() for prompt in prompts],
        generation_config=GenerationConfig(eos_token_id=-1, pad_token_id=0, **GREEDY),
        continuous_batching_config=ContinuousBatchingConfig(page_size=16, num_blocks=8, max_batch_tokens=16),
    )
    expected = [model.generate(prompt, **GREEDY)[0, prompt.shape[1] :].tolist() for prompt in prompts]
    assert [output.generated_tokens for output in found.values()] == expected


def compiled(backend: str) -> CompileConfig:
    config = CompileConfig(backend=backend, mode=None, fullgraph=True, dynamic=False)
    config._compile_all_devices = True  # by itself, generate compiles only on accelerators
    return config


# Not "sliding": transformers' sliding caches count positions in Python, so that each is compiled anew, as in Mistral.
@pytest.mark.parametrize("name", sorted(set(ARCHITECTURES) - {"sliding"}))
def test_decoding_with_a_static_cache_is_one_graph(name):
    model = build(**ARCHITECTURES[name])
    input_ids, options = tokens(2, 7), {"max_new_tokens": 4, "do_sample": False}
    expected = model.generate(input_ids, **options)
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    options |= {"cache_implementation": "static", "compile_config": compiled("eager")}
    assert torch.equal(model.generate(input_ids, **options), expected)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile writes C++")
def test_the_compilers_own_kernels_generate_the_same():
    model, input_ids = build("scratch"), tokens(2, 7)
    torch.compiler.reset()
    options = {"cache_implementation": "static", "compile_config": compiled("inductor")}
    found = model.generate(input_ids, **options, **GREEDY)
    assert torch.equal(found, model.generate(input_ids, **GREEDY))
