"""Programs that share no code with transformers' models open what `export --to` writes, and say the same.

CTranslate2 is in the extra `engines`. Of llama.cpp see tests/engines; of programs that need an environment of their own
see benchmarks/engines.py.
"""

import numpy
import pytest
import torch
from safetensors.torch import load_file
from tiny_stages import flags, write_model, write_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from benchmarks.engine_runs import Answers, Task, in_ctranslate2
from benchmarks.engines import TEXTS, Reference, compare, make_reference
from training.commands.export import main as export

TEXT = "the cat sat\n    on a mat  and looked 123\n"
LENGTH = 48
ATOL = 1e-4  # of logits up to 6, in fp32: other kernels add in another order

ROWS = 283  # of some embeddings; the tokenizer has fewer tokens
DIALS = {
    "llama": {"vocab_size": ROWS},
    "qwen3": {"tie_word_embeddings": True, "head_dim": 32},
    "gpt2": {"vocab_size": ROWS, "num_key_value_heads": 2, "intermediate_size": 128},
}


@pytest.fixture(scope="module", params=DIALS)
def folder(request, tmp_path_factory):
    """An exported directory, of a model with more rows than its tokenizer has tokens, or with a tied head."""
    place = tmp_path_factory.mktemp("engines")
    write_model(place / "model", write_tokenizer(place / "tokenizer"), preset=request.param, dials=DIALS[request.param])
    export(flags({"model": place / "model", "to": request.param, "output_dir": place / "stock"}))
    return place / "stock"


def test_ctranslate2(folder, tmp_path):
    """The same logits, and by the benchmark of all programs the same tokens."""
    ctranslate2 = pytest.importorskip("ctranslate2", reason="comes with the extra `engines`")
    reference = make_reference(str(folder), LENGTH)
    task = Task(str(folder), str(tmp_path), list(TEXTS), reference.prompts, LENGTH, reference.ends)
    figures = compare(reference, in_ctranslate2(task))
    assert figures["whole"] == len(TEXTS) and figures["tokens"] == LENGTH
    engine = ctranslate2.Generator(str(tmp_path / "converted"), compute_type="float32", intra_threads=1)
    ids = AutoTokenizer.from_pretrained(folder)(TEXT)["input_ids"]
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([ids])).logits[0]
    found = torch.tensor(numpy.array(engine.forward_batch([ids])))[0]
    torch.testing.assert_close(found, logits, rtol=0, atol=ATOL)


def test_the_benchmark_counts_equal_tokens():
    reference = Reference("5", [0], [[7], [8]], [[1, 2, 3], [4, 5, 6]])
    figures = compare(reference, Answers([[1, 2, 9], [4, 5, 6]], [[7], [9]]))
    assert figures == {"prompts": 2, "tokens": 3, "whole": 1, "equal_tokens": [2, 3], "texts": 1}


@pytest.mark.parametrize("folder", ["gpt2"], indirect=True)
def test_a_gpt2_folder_is_shaped_as_openai_published_theirs(folder):
    """No row without a token, and names without `transformer.`, which mlx-lm does not expect."""
    config = AutoConfig.from_pretrained(folder)
    settings, tokenizer = GenerationConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    names = load_file(folder / "model.safetensors")
    assert names["wte.weight"].shape == (len(tokenizer), config.n_embd) and config.vocab_size == len(tokenizer) < ROWS
    assert not [name for name in names if name.startswith(("transformer.", "lm_head."))]
    assert settings.suppress_tokens is None and tokenizer.unk_token == tokenizer.bos_token
