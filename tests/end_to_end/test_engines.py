"""Programs that share no code with transformers' models open what `export --to` writes, and say the same.

CTranslate2 is in the extra `engines`. Of llama.cpp see tests/engines.
"""

from pathlib import Path

import numpy
import pytest
import torch
from tiny_stages import flags, write_model, write_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from training.commands.export import main as export

TEXT = "the cat sat\n    on a mat  and looked 123\n"
LENGTH = 64
ATOL = 1e-4  # of logits up to 6, in fp32: other kernels add in another order

DIALS = {"llama": {"vocab_size": 283}, "qwen3": {"tie_word_embeddings": True, "head_dim": 32}}


@pytest.fixture(scope="module", params=DIALS)
def folder(request, tmp_path_factory):
    """An exported directory, of a model with more rows than its tokenizer has tokens, or with a tied head."""
    place = tmp_path_factory.mktemp("engines")
    write_model(place / "model", write_tokenizer(place / "tokenizer"), preset=request.param, dials=DIALS[request.param])
    export(flags({"model": place / "model", "to": request.param, "output_dir": place / "stock"}))
    return place / "stock"


def expected(folder: Path) -> tuple[list[int], torch.Tensor, list[int]]:
    """What transformers says: ids of the text, logits of each, and the tokens that follow."""
    ids = AutoTokenizer.from_pretrained(folder)(TEXT)["input_ids"]
    model, prompt = AutoModelForCausalLM.from_pretrained(folder), torch.tensor([ids])
    model.generation_config.suppress_tokens = None  # the engines know nothing of rows without a token
    tokens = model.generate(prompt, do_sample=False, max_new_tokens=LENGTH, min_new_tokens=LENGTH)
    with torch.no_grad():
        return ids, model(prompt).logits[0], tokens[0, len(ids) :].tolist()


def test_ctranslate2(folder, tmp_path):
    ctranslate2 = pytest.importorskip("ctranslate2", reason="comes with the extra `engines`")
    # What the program ct2-transformers-converter calls.
    converted = ctranslate2.converters.TransformersConverter(str(folder)).convert(str(tmp_path / "converted"))
    engine = ctranslate2.Generator(converted, compute_type="float32", intra_threads=1)
    ids, logits, tokens = expected(folder)
    found = torch.tensor(numpy.array(engine.forward_batch([ids])))[0]
    torch.testing.assert_close(found, logits, rtol=0, atol=ATOL)
    words = AutoTokenizer.from_pretrained(folder).convert_ids_to_tokens(ids)
    greedy = {"max_length": LENGTH, "min_length": LENGTH, "sampling_topk": 1, "include_prompt_in_result": False}
    assert engine.generate_batch([words], **greedy)[0].sequences_ids[0] == tokens
