"""`scratch import` of GGUF files: weights, logits and ids of the exported model; one line for other files."""

import json
import os

import numpy as np
import pytest
import torch
from engine_texts import CODE, PROSE, TEXT, texts, write_split_tokenizer
from gguf_files import changed, read_fields, read_tensors, write_file
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_cpp import running
from messages import refused
from tiny_stages import LINES, flags, write_model, write_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

from modeling_scratch.tokenization_scratch import ScratchTokenizer
from training.commands.export import main as export
from training.commands.import_model import main as import_model
from training.engines.gguf_agreement import round_rows
from training.engines.gguf_file import as_matrix
from training.engines.gguf_network import read_network
from training.engines.gguf_reader import read_gguf

LLAMA3 = {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0, "original_max_position_embeddings": 8192}
LLAMA3 |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "vocab_size": 300}
MODELS = {
    "llama": SIZES | {"attention_bias": True, "mlp_bias": True, "rope_parameters": LLAMA3, "head_dim": 64},
    "qwen3": SIZES
    | {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}},
    "gpt2": SIZES | {"num_key_value_heads": 2},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A chat model of each architecture, with rows without a token, and its GGUF file in F32."""
    place = tmp_path_factory.mktemp("gguf_import")
    write_tokenizer(place / "tokenizer")
    for preset, dials in MODELS.items():
        write_model(place / preset, place / "tokenizer", "sft", preset=preset, dials=dials)
        write_gguf(place, preset, "f32")
    return place


def write_gguf(place, model, precision):
    folder = place / f"{model}-{precision}"
    options = {"model": place / model, "output_dir": folder, "to": "gguf", "name": "tiny"}
    export(flags(options))
    return folder / "tiny-F32.gguf"


def imported(place, source, **options):
    import_model(flags({"model": source, "output_dir": place / "imported"} | options) + ["--restart"])
    return place / "imported"


@pytest.mark.parametrize("preset", MODELS)
def test_a_round_trip(place, tmp_path, preset):
    """Weights and logits bit for bit; options, settings and tokenizer as they were."""
    folder = imported(tmp_path, place / f"{preset}-f32")  # the folder of the file
    before, after = (AutoModelForCausalLM.from_pretrained(each).eval() for each in (place / preset, folder))
    weights = after.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in before.state_dict().items())
    ids = torch.tensor([AutoTokenizer.from_pretrained(folder)(TEXT)["input_ids"]])
    with torch.no_grad():
        assert torch.equal(before(ids).logits, after(ids).logits)
    ours, theirs = (json.loads((each / "config.json").read_text()) for each in (place / preset, folder))
    training_only = ("zero_init_projections", "initializer_range")
    assert {key for key in ours if ours[key] != theirs.get(key)} <= set(training_only)
    for name in ("generation_config.json", "chat_template.jinja"):
        assert (folder / name).read_text() == (place / preset / name).read_text()


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0"])
@pytest.mark.parametrize("preset", ["llama", "gpt2"])
def test_a_rounded_file_brings_the_rounded_weights(place, tmp_path, preset, kind):
    source = place / f"{preset}-f32" / "tiny-F32.gguf"
    file = write_file(tmp_path / "a.gguf", read_fields(source), read_tensors(source), kind)
    exact = read_network(read_gguf(source)).weights
    for name, tensor in read_network(read_gguf(file)).weights.items():
        if tensor.dim() == 2:
            rows = as_matrix(name, exact[name])
            expected = round_rows(rows.contiguous(), kind.lower())
            # The rotation's permutation moves whole rows, so that rounding before or after it is the same.
            assert torch.equal(as_matrix(name, tensor), expected)
        else:
            assert torch.equal(tensor, exact[name])


def test_without_tokenizer_or_keys_with_defaults(place, tmp_path):
    """A file as bare as llama.cpp takes it: an output matrix that repeats the embedding, biases of Q, K and V alone."""
    source = place / "llama-f32" / "tiny-F32.gguf"
    tensors = {name: tensor for name, tensor in read_tensors(source).items() if "output.bias" not in name}
    tensors = {name: tensor for name, tensor in tensors.items() if "ffn" not in name or "bias" not in name}
    tensors["output.weight"] = tensors["token_embd.weight"]
    fields = {key: value for key, value in read_fields(source).items() if not key.startswith("tokenizer")}
    for key in ("vocab_size", "attention.value_length", "rope.dimension_count"):
        del fields[f"llama.{key}"]
    folder = imported(tmp_path, write_file(tmp_path / "bare.gguf", fields, tensors))
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.tie_word_embeddings and model.config.attention_bias and not model.config.mlp_bias
    assert not model.model.layers[0].self_attn.o_proj.bias.any() and model.model.layers[0].self_attn.q_proj.bias.any()
    assert not (folder / "tokenizer.json").exists()


@pytest.mark.parametrize(
    "rope", [LLAMA3, LLAMA3 | {"factor": 8.0, "rope_theta": 1e4, "original_max_position_embeddings": 512}]
)
@pytest.mark.parametrize("head_dim", [8, 64, 128])
def test_llama_3_scaling(place, tmp_path, rope, head_dim):
    """The divisors of the file give the factors again."""
    source = place / "llama-f32" / "tiny-F32.gguf"
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = LlamaConfig(head_dim=head_dim, rope_parameters=rope)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    divisors = (rope["rope_theta"] ** -(torch.arange(0, head_dim, 2) / head_dim) / scaled).numpy()
    tensors = {}
    for letter, heads in (("q", 2), ("k", 1)):
        for layer in range(2):
            tensors[f"blk.{layer}.attn_{letter}.weight"] = np.zeros((heads * head_dim, 64), np.float32)
            tensors[f"blk.{layer}.attn_{letter}.bias"] = np.zeros(heads * head_dim, np.float32)
    sizes = {f"llama.{key}": head_dim for key in ("attention.key_length", "attention.value_length")}
    sizes |= {"llama.rope.dimension_count": head_dim, "llama.rope.freq_base": rope["rope_theta"]}
    file = changed(source, tmp_path / "a.gguf", sizes, **tensors, **{"rope_freqs.weight": divisors})
    found = read_network(read_gguf(file)).config
    again, _ = ROPE_INIT_FUNCTIONS["llama3"](found, torch.device("cpu"))
    torch.testing.assert_close(again, scaled, rtol=1e-6, atol=0)
    assert found.rope_parameters["factor"] == rope["factor"]
    if head_dim > 8:
        assert found.rope_parameters == rope


@pytest.fixture(scope="module", params=["llama-bpe", "qwen2", "qwen35", "gpt-2", "smollm"])
def rebuilt(request, place, tmp_path_factory):
    """The tokenizer of a file with each split pattern, as imported and in llama.cpp; the original, if there is one."""
    folder = tmp_path_factory.mktemp(request.param)
    original = write_split_tokenizer(folder / "tokenizer", "gpt-2" if request.param == "smollm" else request.param)
    original.add_tokens(["<thought>", "<think>\n"])
    original.add_tokens(["<|tool|>"], special_tokens=True)
    original.save_pretrained(folder / "tokenizer")
    write_model(folder / "model", folder / "tokenizer", "sft", dials={"vocab_size": len(original) + 7})
    file = write_gguf(folder, "model", "f32")
    if request.param == "smollm":
        file, original = changed(file, folder / "smollm.gguf", {"tokenizer.ggml.pre": "smollm"}), None
    tokenizer = AutoTokenizer.from_pretrained(imported(folder, file))
    with running(file, 128) as engine:
        yield request.param, tokenizer, original, engine


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_ids_of_a_rebuilt_tokenizer(rebuilt, data):
    pre, tokenizer, original, engine = rebuilt
    found = [*data.draw(texts(pre)), TEXT]
    ids = tokenizer(found)["input_ids"]
    assert engine.tokenize_each(found, special=True) == ids
    assert original is None or original(found)["input_ids"] == ids


def test_what_a_rebuilt_tokenizer_says(rebuilt):
    _, tokenizer, original, _ = rebuilt
    assert tokenizer.decode(tokenizer(CODE + PROSE)["input_ids"]) == CODE + PROSE
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == ("<|endoftext|>", "<|pad|>", None)
    if original is not None:
        assert tokenizer.get_vocab() == original.get_vocab() and tokenizer.chat_template == original.chat_template
        special = [item.special for _, item in sorted(tokenizer.added_tokens_decoder.items())]
        assert special == [item.special for _, item in sorted(original.added_tokens_decoder.items())]


def test_tokens_that_the_file_suppresses(place, tmp_path):
    source = place / "qwen3-f32" / "tiny-F32.gguf"
    file = changed(source, tmp_path / "a.gguf", {"tokenizer.ggml.suppress_tokens": [9, 11]})
    written = GenerationConfig.from_pretrained(imported(tmp_path, file))
    assert written.suppress_tokens == [9, 11, *range(280, 300)] and written.eos_token_id == [0, 3]


def test_a_token_that_older_files_lack(place, tmp_path):
    """Converters wrote -1 for it, as a number without a sign; llama.cpp takes it for none."""
    source = place / "qwen3-f32" / "tiny-F32.gguf"
    file = changed(source, tmp_path / "a.gguf", {"tokenizer.ggml.padding_token_id": 2**32 - 1})
    assert AutoTokenizer.from_pretrained(imported(tmp_path, file)).pad_token is None


def test_a_base_model_has_no_chat_template(place, tmp_path):
    source = place / "qwen3-f32" / "tiny-F32.gguf"
    folder = imported(tmp_path, changed(source, tmp_path / "a.gguf", {"tokenizer.chat_template": None}))
    assert AutoTokenizer.from_pretrained(folder).chat_template is None


def test_a_given_tokenizer(place, tmp_path):
    """For a vocabulary that cannot be rebuilt; another tokenizer than the file's is rejected."""
    source = place / "qwen3-f32" / "tiny-F32.gguf"
    file = changed(source, tmp_path / "a.gguf", {"tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": None})
    with refused("model", "'llama'", "--tokenizer", file):
        imported(tmp_path, file)
    folder = imported(tmp_path, file, tokenizer=place / "tokenizer")
    assert AutoTokenizer.from_pretrained(folder)(TEXT) == AutoTokenizer.from_pretrained(place / "tokenizer")(TEXT)
    ScratchTokenizer.train([line[::-1] for line in LINES], 280).save(tmp_path / "other")
    with refused("model", file, tmp_path / "other", "token "):
        imported(tmp_path, file, tokenizer=tmp_path / "other")


@pytest.mark.parametrize("adds", [(True, False), (True, True), (False, False)], ids=["bos", "both", "none"])
def test_bos_and_eos_that_a_tokenizer_adds(place, tmp_path, adds):
    """Written as transformers' tokenizer does it, obeyed by llama.cpp, and imported again."""
    from tokenizers.processors import TemplateProcessing

    write_model(tmp_path / "model", place / "tokenizer", dials={"vocab_size": 300})
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    parts = [*["<|im_start|>"] * adds[0], "$A", *["<|endoftext|>"] * adds[1]]
    used = [("<|im_start|>", 2), ("<|endoftext|>", 0)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(parts, special_tokens=used)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "model")
    for name in ("provenance.json", "chat_template.jinja"):  # it is a base model, with a tokenizer of its own
        (tmp_path / "model" / name).unlink(missing_ok=True)
    file = write_gguf(tmp_path, "model", "f32")
    again = AutoTokenizer.from_pretrained(imported(tmp_path, file))
    with running(file, 128) as engine:
        for text in (TEXT, "a<|im_start|>b", "a"):
            ids = AutoTokenizer.from_pretrained(tmp_path / "model")(text)["input_ids"]
            assert ids[:1] == [2] or not adds[0]
            assert engine.tokenize(text, special=True) == again(text)["input_ids"] == ids


def test_a_conversation_gets_no_bos_that_the_template_lacks(place, tmp_path):
    """llama.cpp would put it before each prompt of the chat; transformers renders the template alone."""
    from tokenizers.processors import TemplateProcessing

    write_model(tmp_path / "model", place / "tokenizer", "sft", dials={"vocab_size": 300})
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<|pad|> $A", special_tokens=[("<|pad|>", 1)])
    found = []
    for template in (tokenizer.chat_template, "{{ '<|pad|>' }}" + tokenizer.chat_template):
        tokenizer.chat_template = template
        tokenizer.save_pretrained(tmp_path / "model")
        (tmp_path / "model" / "provenance.json").unlink(missing_ok=True)
        file = write_gguf(tmp_path, "model", "f32").rename(tmp_path / f"{len(found)}.gguf")
        found.append(read_fields(file)["tokenizer.ggml.add_bos_token"])
        messages = [{"role": "user", "content": "the cat"}]
        expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        with running(file, 128) as engine:
            answer = engine.post("/v1/chat/completions", messages=messages, temperature=0, max_tokens=1)
        assert answer["usage"]["prompt_tokens"] == len(expected)
        (tmp_path / "model-f32" / "provenance.json").unlink()
        for each in (tmp_path / "model-f32").iterdir():
            each.unlink()
    assert found == [False, True]


def test_a_file_of_transformers_weights(tmp_path):
    """A stock Llama under the names and in the order of rows of llama.cpp's converter, written here by its rules."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    stock = LlamaForCausalLM(LlamaConfig(vocab_size=40, num_key_value_heads=2, head_dim=12, **sizes)).eval()
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    names |= {
        "model.layers.0.input_layernorm": "blk.0.attn_norm",
        "model.layers.0.post_attention_layernorm": "blk.0.ffn_norm",
    }
    names |= {f"model.layers.0.self_attn.{letter}_proj": f"blk.0.attn_{letter}" for letter in "qkv"}
    names |= {"model.layers.0.self_attn.o_proj": "blk.0.attn_output"}
    names |= {f"model.layers.0.mlp.{word}_proj": f"blk.0.ffn_{word}" for word in ("gate", "up", "down")}
    tensors = {f"{names[name.removesuffix('.weight')]}.weight": t.numpy() for name, t in stock.state_dict().items()}
    for name, heads in (("blk.0.attn_q.weight", 4), ("blk.0.attn_k.weight", 2)):
        tensors[name] = tensors[name].reshape(heads, 2, 6, 48).swapaxes(1, 2).reshape(-1, 48)
    fields = {"general.architecture": "llama", "llama.block_count": 1, "llama.context_length": 64}
    fields |= {"llama.embedding_length": 48, "llama.feed_forward_length": 64, "llama.attention.head_count": 4}
    fields |= {"llama.attention.head_count_kv": 2, "llama.attention.layer_norm_rms_epsilon": 1e-6}
    file = write_file(tmp_path / "a.gguf", fields, tensors)
    ids = torch.randint(40, (2, 30), generator=torch.Generator().manual_seed(1))
    model = AutoModelForCausalLM.from_pretrained(imported(tmp_path, file)).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, stock(ids).logits, rtol=0, atol=1e-5)


FIELDS = {
    "architecture": ({"general.architecture": "gemma3"}, ["gemma3", "llama, qwen3, gpt2"]),
    "parts": ({"split.count": 3}, ["3 parts", "llama-gguf-split"]),
    "yarn": ({"qwen3.rope.scaling.type": "yarn"}, ["yarn", "linear"]),
    "layers": ({"qwen3.block_count": 5}, ["block_count", 5, 2]),
    "heads": ({"qwen3.attention.head_count": 3}, ["self_attn", "shape"]),
    "no heads": ({"qwen3.attention.head_count": None}, ["attention.head_count"]),
    "heads by layer": ({"qwen3.attention.head_count_kv": [1, 2]}, ["attention.head_count_kv", "[1, 2]"]),
    "partial rotation": ({"qwen3.rope.dimension_count": 8}, ["rope.dimension_count", 8]),
    "pattern": ({"tokenizer.ggml.pre": "tekken"}, ["tekken", "llama-bpe", "--tokenizer"]),
    "no pattern": ({"tokenizer.ggml.pre": None}, ["default", "--tokenizer"]),
    "end": ({"tokenizer.ggml.eos_token_id": 999}, ["eos_token_id", 999]),
    "end without a token": ({"tokenizer.ggml.eos_token_id": 299}, ["eos_token_id", 299, 280]),
    "merges": ({"tokenizer.ggml.merges": ["a b c"]}, ["merges"]),
    "types": ({"tokenizer.ggml.token_type": [1, 1]}, ["tokens", "type"]),
    "suppressed": ({"tokenizer.ggml.suppress_tokens": [300]}, ["suppress_tokens", 300]),
    "template": ({"tokenizer.chat_template": 3}, ["chat_template", "str"]),
}


@pytest.mark.parametrize("case", FIELDS)
def test_refuses_settings(place, tmp_path, case):
    fields, facts = FIELDS[case]
    file = changed(place / "qwen3-f32" / "tiny-F32.gguf", tmp_path / "a.gguf", fields)
    with refused("model", file, *facts):
        imported(tmp_path, file)
    assert not (tmp_path / "imported").exists()


def test_refuses_tensors(place, tmp_path):
    """Another precision, one that is missing, one too many, and none."""
    source, file = place / "llama-f32" / "tiny-F32.gguf", tmp_path / "a.gguf"
    write_file(file, read_fields(source), read_tensors(source), "Q4_0")
    with refused("model", file, "Q4_0", "F32, F16, BF16, Q8_0"):
        imported(tmp_path, file)
    for tensors, fact in (
        ({"blk.1.attn_v.weight": None}, "self_attn.v_proj.weight is missing"),
        ({"blk.1.ffn_gate_exps.weight": np.zeros((2, 2), np.float32)}, "ffn_gate_exps"),
        ({"rope_freqs.weight": np.linspace(1, 9, 32, dtype=np.float32)}, "Llama 3"),
        ({"rope_freqs.weight": np.zeros(32, np.float32)}, "Llama 3"),
        ({"rope_freqs.weight": np.full(32, np.nan, np.float32)}, "Llama 3"),
    ):
        with refused("model", changed(source, file, **tensors), fact):
            imported(tmp_path, file)
    write_file(file, read_fields(source), {})
    with refused("model", file, "no tensors"):
        imported(tmp_path, file)
    assert not (tmp_path / "imported").exists()


def test_refuses_a_truncated_file_and_other_files(place, tmp_path):
    content = (place / "gpt2-f32" / "tiny-F32.gguf").read_bytes()
    file = tmp_path / "a.gguf"
    for length in (4, 8, 30, 500, 5000, len(content) // 2, len(content) - 1000):
        file.write_bytes(content[:length])
        with refused("model", file, "damaged"):
            imported(tmp_path, file)
    # A count of 2**60 elements, of which the file has none.
    header = b"GGUF" + b"".join(
        np.array(n, kind).tobytes() for n, kind in ((3, "<u4"), (0, "<u8"), (1, "<u8"), (1, "<u8"))
    )
    array = b"a" + b"".join(np.array(n, kind).tobytes() for n, kind in ((9, "<u4"), (0, "<u4"), (2**60, "<u8")))
    file.write_bytes(header + array)
    with refused("model", file, "damaged"):
        imported(tmp_path, file)
    file.write_bytes(b"PK no GGUF")
    with refused("model", file, "GGUF"):
        imported(tmp_path, file)
    file.unlink()
    os.mkfifo(file)
    with refused("model", file, "not a file"):
        read_gguf(file)
    (tmp_path / "b.gguf").write_bytes(content)
    with refused("model", "a.gguf", "b.gguf"):
        imported(tmp_path, tmp_path)
    with refused("heads", "GGUF"):
        imported(tmp_path, tmp_path / "b.gguf", heads=4)
    assert not (tmp_path / "imported").exists()
