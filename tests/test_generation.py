"""Every way to generate gives what the plain way gives: caches, beams, drafts, compilation, continuous batching."""

import shutil

import pytest
import torch
from tiny_model import DIALS, SIZES, build, logits, stir, tokens
from transformers import CompileConfig, ContinuousBatchingConfig, GenerationConfig, StaticCache

GREEDY = {"max_new_tokens": 8, "do_sample": False}


@pytest.fixture(scope="module", params=DIALS)
def model(request):
    return build(**DIALS[request.param])


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
def test_quantized_cache(preset):
    """Eight bits for what is older than the last two tokens: close, not equal."""
    pytest.importorskip("optimum.quanto", reason="the cache's backend is a package of its own")
    model, input_ids = build(preset), tokens(2, 8)
    settings = {"backend": "quanto", "nbits": 4, "q_group_size": 16, "residual_length": 4}
    found = model.generate(input_ids, cache_implementation="quantized", cache_config=settings, **GREEDY)
    assert found.shape == (2, 16) and torch.equal(found[:, :8], input_ids)


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
    assistant = stir(build(model_type="scratch", vocab_size=SIZES["vocab_size"]))
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


def test_decoding_with_a_static_cache_is_one_graph(model):
    input_ids = tokens(2, 7)
    expected = model.generate(input_ids, **GREEDY)
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    options = {"cache_implementation": "static", "compile_config": compiled("aot_eager")}
    assert torch.equal(model.generate(input_ids, **options, **GREEDY), expected)
    if model.config.sliding_window is None:  # transformers' sliding cache counts in Python: a graph for each position
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile writes C++")
def test_the_compilers_own_kernels_generate_the_same():
    model, input_ids = build("scratch"), tokens(2, 7)
    torch.compiler.reset()
    options = {"cache_implementation": "static", "compile_config": compiled("inductor")}
    found = model.generate(input_ids, **options, **GREEDY)
    assert torch.equal(found, model.generate(input_ids, **GREEDY))
