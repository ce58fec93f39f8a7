"""Programs that share no code with transformers' models open what `export --to` writes, and say the same.

CTranslate2 is in the extra `engines`. For llama.cpp install llama-cpp-python and gguf, and let the variable LLAMA_CPP
name a copy of llama.cpp's source, for its converter.
"""

import json
import os
import sys
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

# The converter recognizes a split pattern by the tokens of one text, so not that of a new vocabulary. Ours is this one.
# It ends a piece at a line break where ours goes on over the indentation, so the ids come from our own tokenizer here.
CONVERT = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import convert_hf_to_gguf
from conversion.base import TextModel
TextModel.get_vocab_base_pre = lambda self, tokenizer: "llama-bpe"
convert_hf_to_gguf.main()
"""
# In a process of its own, which speaks of nothing but the result.
LLAMA_CPP = """
import json, sys
import numpy, llama_cpp
model, ids, length = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
f32 = llama_cpp.GGML_TYPE_F32
engine = llama_cpp.Llama(model, n_ctx=256, n_threads=1, logits_all=True, type_k=f32, type_v=f32, verbose=False)
engine.eval(ids)
logits = numpy.array(engine.scores[: len(ids)])
tokens = []
for _ in range(length):
    tokens.append(int(engine.scores[engine.n_tokens - 1].argmax()))
    engine.eval(tokens[-1:])
engine.close()
print(json.dumps([logits.tolist(), tokens]))
"""

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


def test_llama_cpp(folder, terminal, tmp_path):
    for package in ("llama_cpp", "gguf"):
        pytest.importorskip(package, reason="pip install llama-cpp-python gguf")
    if "LLAMA_CPP" not in os.environ:
        pytest.skip("LLAMA_CPP names no copy of llama.cpp, whose converter this takes")
    out = tmp_path / "model.gguf"
    options = ["--outtype", "f32", "--outfile", out]
    terminal.run([sys.executable, "-c", CONVERT, os.environ["LLAMA_CPP"], folder, *options], tmp_path)
    ids, logits, tokens = expected(folder)
    done = terminal.run([sys.executable, "-c", LLAMA_CPP, out, str(ids), LENGTH], tmp_path)
    found, continued = json.loads(done.stdout.splitlines()[-1])
    torch.testing.assert_close(torch.tensor(found), logits, rtol=0, atol=ATOL)
    assert continued == tokens
