"""`scratch export --to gguf`: llama.cpp gives the ids, logits and answers of transformers."""

import gguf
import numpy as np
import pytest
import torch
from engine_texts import CODE, CODE_POINTS, LONG, PLACES, PROSE, TEXT, texts, write_split_tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llama_cpp import running
from messages import refused
from tiny_stages import LINES, MODEL, flags, write_data, write_model, write_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from modeling_scratch.conversion_scratch import to_stock
from modeling_scratch.tokenization_scratch import ScratchTokenizer
from training.commands.export import main
from training.commands.push import check_model
from training.engines.gguf_agreement import round_model
from training.engines.gguf_unicode import unknown_characters, unknown_letters
from training.engines.modelfile import modelfile
from training.stages.provenance import read_provenance

ROWS = 1000  # of the embedding; the tokenizer has fewer tokens
LENGTH = 64  # greedy tokens
# Each with what only its architecture can have: rows without a token, biases, scaled rotations, a tied head.
MODELS = {
    "llama": {
        "attention_bias": True,
        "mlp_bias": True,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 1000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 32,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        },
    },
    "qwen3": {
        "tie_word_embeddings": True,
        "head_dim": 32,
        "rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0},
    },
    "gpt2": {"num_key_value_heads": 2, "intermediate_size": 96},
}
# Largest difference of a logit. llama.cpp takes GELU from a table in half precision.
TOLERANCE = {"llama": 1e-5, "qwen3": 1e-5, "gpt2": 5e-3}


def train_tokenizer(folder, digits=3):
    ScratchTokenizer.train([*LINES, CODE, PROSE * 3], ROWS - 20, digits=digits).save(folder)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tokenizer, a chat model of each architecture, and its GGUF file in F32."""
    place = tmp_path_factory.mktemp("gguf")
    train_tokenizer(place / "tokenizer")
    for preset, dials in MODELS.items():
        model = write_model(
            place / preset, place / "tokenizer", "sft", preset=preset, dials={"vocab_size": ROWS} | dials
        )
        suppress_foreign_letters(model)
        export(place, model=preset, output_dir=f"{preset}-f32")
    return place


def suppress_foreign_letters(folder):
    """Generate text that every program prints alike: random weights draw half characters."""
    tokenizer, settings = ScratchTokenizer.load(folder), GenerationConfig.from_pretrained(folder)
    foreign = [index for index in range(8, len(tokenizer)) if not tokenizer.decode([index]).isprintable()]
    foreign += [index for index in range(8, len(tokenizer)) if not tokenizer.decode([index]).isascii()]
    settings.suppress_tokens = sorted({*settings.suppress_tokens, *foreign})
    settings.save_pretrained(folder)


def export(place, model, output_dir, **options):
    main(flags({"model": place / model, "output_dir": place / output_dir, "name": "tiny", "to": "gguf"} | options))
    return place / output_dir


@pytest.fixture(scope="module", params=MODELS)
def both(request, place):
    """A model with its tokenizer in transformers, and its file in llama.cpp."""
    model = AutoModelForCausalLM.from_pretrained(place / request.param).eval()
    tokenizer = AutoTokenizer.from_pretrained(place / request.param)
    with running(place / f"{request.param}-f32" / "tiny-F32.gguf", MODEL["max_position_embeddings"]) as engine:
        yield request.param, model, tokenizer, engine


def log_probabilities(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].double().log_softmax(-1).numpy()


def test_logits(both):
    name, model, tokenizer, engine = both
    ids = tokenizer(TEXT)["input_ids"]
    expected = log_probabilities(model, ids)
    for length in (1, 2, 3, 7, 20, len(ids)):
        found = engine.log_probabilities(ids[:length], ROWS)
        # Logits up to a constant, which log-probabilities do not have.
        difference = found - expected[length - 1]
        assert np.abs(difference - np.median(difference)).max() <= TOLERANCE[name]


def test_greedy_tokens(both):
    """None of them without a token, or suppressed by the settings of the model."""
    _, model, tokenizer, engine = both
    ids = tokenizer(TEXT)["input_ids"]
    settings = model.generation_config
    never = [*settings.suppress_tokens, *settings.eos_token_id]
    options = {"do_sample": False, "max_new_tokens": LENGTH, "suppress_tokens": never, "eos_token_id": None}
    expected = model.generate(torch.tensor([ids]), **options)[0, len(ids) :].tolist()
    assert len(expected) == LENGTH and engine.greedy(ids, LENGTH) == expected


def test_a_row_without_a_token_is_never_drawn(place, tmp_path):
    """Although it is the most likely one."""
    source = write_model(tmp_path / "model", place / "tokenizer", "sft", dials={"vocab_size": ROWS})
    model = AutoModelForCausalLM.from_pretrained(source)
    with torch.no_grad():
        model.lm_head.weight[ROWS - 1] = 100 * model.lm_head.weight[:50].sum(0)
    model.save_pretrained(source)
    export(tmp_path, "model", "out")
    with running(tmp_path / "out" / "tiny-F32.gguf", 128) as engine:
        assert any(engine.log_probabilities([index], ROWS).argmax() == ROWS - 1 for index in range(20, 30))
        assert ROWS - 1 not in [token for index in range(20, 30) for token in engine.greedy([index], 4)]


@pytest.mark.parametrize("system", [False, True])
def test_chat(both, system):
    """The answer of llama.cpp's OpenAI-shaped server, by the chat template in the file."""
    _, model, tokenizer, engine = both
    messages = [{"role": "user", "content": "the cat"}]
    messages = [{"role": "system", "content": "sat on\na mat"}, *messages] if system else messages
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
    length = inputs["input_ids"].shape[1]
    answer = model.generate(**inputs, do_sample=False, max_new_tokens=24)[0, length:]
    found = engine.post("/v1/chat/completions", messages=messages, temperature=0, max_tokens=24)
    assert found["usage"]["prompt_tokens"] == length
    # llama.cpp's parser of answers takes whitespace off their beginning.
    assert found["choices"][0]["message"]["content"] == tokenizer.decode(answer, skip_special_tokens=True).lstrip()


@pytest.fixture(scope="module", params=["llama-bpe", "qwen2", "qwen35", "gpt-2"])
def tokenizers(request, tmp_path_factory):
    """A tokenizer with each split pattern that llama.cpp has, in transformers and there."""
    folder = tmp_path_factory.mktemp(request.param)
    rows = len(write_split_tokenizer(folder / "tokenizer", request.param)) + 10
    write_model(folder / "model", folder / "tokenizer", "sft", dials={"vocab_size": rows})
    extended = AutoTokenizer.from_pretrained(folder / "model")
    extended.add_tokens(["<|tool|>"], special_tokens=True)
    extended.add_tokens(["<thought>", "<think>\n"])
    extended.save_pretrained(folder / "model")
    (folder / "model" / "provenance.json").unlink()
    file = export(folder, "model", "out") / "tiny-F32.gguf"
    assert gguf.GGUFReader(file).fields["tokenizer.ggml.pre"].contents() == request.param
    with running(file, 128) as engine:
        yield request.param, AutoTokenizer.from_pretrained(folder / "model"), engine


def differing(tokenizers, found, special):
    """The texts whose ids differ.

    Args:
        special: whether special tokens in a text are found.
    """
    _, tokenizer, engine = tokenizers
    tokenizer.backend_tokenizer.encode_special_tokens = not special
    expected = [item.ids for item in tokenizer.backend_tokenizer.encode_batch_fast(found, add_special_tokens=True)]
    ids = engine.tokenize_each(found, special)
    return [] if ids == expected else [text for text, *both in zip(found, ids, expected) if both[0] != both[1]]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), special=st.booleans())
def test_ids_of_any_text(tokenizers, data, special):
    assert differing(tokenizers, data.draw(texts(tokenizers[0])), special) == []


def test_ids_of_long_texts(tokenizers):
    assert differing(tokenizers, [TEXT, CODE, PROSE, *LONG], special=True) == []


def test_ids_of_some_code_points(tokenizers):
    unknown = sorted(map(ord, unknown_characters(tokenizers[0])))
    check_code_points(tokenizers, {*CODE_POINTS[:0x250], *CODE_POINTS[0x250::1009], *unknown[::40]})


@pytest.mark.release
def test_ids_of_all_code_points(tokenizers):
    check_code_points(tokenizers, CODE_POINTS)


def check_code_points(tokenizers, codes):
    """The ids of exactly those that we name differ, in one of the places at least."""
    codes, found = sorted(codes), set()
    for place in PLACES:
        for start in range(0, len(codes), 20_000):
            points = {place.format(chr(code)): chr(code) for code in codes[start : start + 20_000]}
            found |= {points[text] for text in differing(tokenizers, list(points), special=False)}
    assert found == unknown_characters(tokenizers[0]).intersection(map(chr, codes))


@pytest.mark.parametrize("frequent", [True, False], ids=["vocabulary", "held out"])
def test_letters_that_llama_cpp_lacks_are_named(tmp_path, capsys, frequent):
    """U+10D50, a letter of Garay: where its token is, and where only held-out text has it."""
    letter = "\U00010d50"
    ScratchTokenizer.train([*LINES, letter * 9000 if frequent else ""], 300).save(tmp_path / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    held_out = None if frequent else torch.tensor(tokenizer(f"the {letter}{letter}")["input_ids"])
    assert unknown_letters(tokenizer, held_out, "llama-bpe") == "U+10D50"
    write_model(tmp_path / "model", tmp_path / "tokenizer", dials={"vocab_size": 300})
    export(tmp_path, "model", "out")
    for text in (capsys.readouterr().out, (tmp_path / "out" / "README.md").read_text()):
        assert ("U+10D50" in text) is frequent


def test_what_the_file_says(place):
    reader = gguf.GGUFReader(place / "qwen3-f32" / "tiny-F32.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tokenizer = ScratchTokenizer.load(place / "qwen3")
    size = len(tokenizer)
    assert fields["general.architecture"] == "qwen3" and fields["general.file_type"] == 0
    assert fields["tokenizer.ggml.bos_token_id"] == fields["tokenizer.ggml.eos_token_id"] == 0
    assert fields["tokenizer.ggml.eot_token_id"] == tokenizer.vocab["<|im_end|>"]
    assert fields["tokenizer.ggml.add_bos_token"] is False
    assert fields["tokenizer.ggml.tokens"][:size] == tokenizer.tokens
    assert fields["tokenizer.ggml.token_type"] == [3] * 8 + [1] * (size - 8) + [5] * (ROWS - size)
    assert set(range(size, ROWS)) < set(fields["tokenizer.ggml.suppress_tokens"])
    assert "generation %" not in fields["tokenizer.chat_template"]


def test_a_modelfile(place):
    text = (place / "qwen3-f32" / "Modelfile").read_text()
    assert text.startswith('FROM ./tiny-F32.gguf\nTEMPLATE """{{- range .Messages }}<|im_start|>{{ .Role }}\n')
    for line in ('stop "<|im_end|>"', "num_ctx 128", "temperature 0.8", "top_k 50", "top_p 1.0", "num_predict 256"):
        assert f"PARAMETER {line}\n" in text


def test_a_modelfile_of_a_template_that_is_not_ours():
    text = modelfile("a.gguf", GenerationConfig(do_sample=False), 64, "{{ messages }}")
    assert "TEMPLATE" not in text and "PARAMETER temperature 0\n" in text


def test_a_base_model_continues_text(place, tmp_path):
    write_model(tmp_path / "base", place / "tokenizer", dials={"vocab_size": ROWS})
    folder = export(tmp_path, "base", "out")
    assert 'TEMPLATE """{{ .Prompt }}"""' in (folder / "Modelfile").read_text()
    assert "tokenizer.chat_template" not in gguf.GGUFReader(folder / "tiny-F32.gguf").fields
    assert "llama-completion -m tiny-F32.gguf" in (folder / "README.md").read_text()


def test_the_card(place):
    text = (place / "llama-f32" / "README.md").read_text()
    assert "library_name: llama.cpp" in text and "- gguf\n" in text and "trust_remote_code" not in text
    assert "```bash\nllama-server -m tiny-F32.gguf\nollama create tiny -f Modelfile\nollama run tiny\n```" in text
    assert "Agreement" not in text
    check_model(str(place / "llama-f32"))  # `scratch push` takes the folder


KINDS = {"f16": "F16", "bf16": "BF16", "q8_0": "Q8_0"}


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A model whose sizes all divide into blocks of Q8_0, and the corpus of its pretraining."""
    place = tmp_path_factory.mktemp("wide")
    data = write_data(place / "data", write_tokenizer(place / "tokenizer"))
    write_model(
        place / "pretrain", place / "tokenizer", preset="gpt2", data=str(data),
        dials={"hidden_size": 64, "intermediate_size": 96, "num_key_value_heads": 2},
    )  # fmt: skip
    return place


@pytest.mark.parametrize("precision", KINDS)
def test_a_precision_is_measured(wide, precision):
    """Nearer to llama.cpp's arithmetic than the original is, in the records and on the card."""
    folder = export(wide, "pretrain", precision, precision=precision)
    file = folder / f"tiny-{precision.upper()}.gguf"
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(file).tensors}
    assert kinds["token_embd.weight"] == kinds["blk.1.attn_qkv.weight"] == KINDS[precision]
    assert kinds["position_embd.weight"] == kinds["output_norm.weight"] == "F32"
    metrics = read_provenance(folder)["metrics"]
    text = (folder / "README.md").read_text()
    assert metrics["tokens"] > 100 and 0.5 < metrics["same_token"] <= 1
    assert metrics["perplexity"] == pytest.approx(metrics["original_perplexity"], rel=0.1)
    assert f"| {precision.upper()} | {metrics['perplexity']:.3f} | {metrics['same_token']:.2%} |" in text
    model = to_stock(AutoModelForCausalLM.from_pretrained(wide / "pretrain"), "gpt2").eval()
    ids = list(range(10, 40))
    with running(file, 128) as engine:
        found = np.array([engine.log_probabilities(ids[:length], 280) for length in range(1, 30, 4)])
    rounded, original = (
        np.abs(found - log_probabilities(each, ids)[0:29:4]).mean() for each in (round_model(model, precision), model)
    )
    assert rounded < original


DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}


@pytest.mark.parametrize(
    "preset, dials, facts",
    [
        ("qwen3", {"attention_bias": True}, ["attention_bias", "qwen3"]),
        ("qwen3", {"sliding_window": 8}, ["sliding_window", "8"]),
        ("llama", {"embedding_shortcut": True}, ["llama", "embedding_shortcut"]),
        ("scratch", {}, ["final_logit_softcapping", "15.0"]),
        ("llama", {"rope_parameters": DYNAMIC}, ["dynamic", "llama3"]),
        ("gpt2", {"mlp_type": "gelu_exact", "num_key_value_heads": 2}, ["gelu_exact", "tanh"]),
    ],
    ids=["bias", "window", "shortcut", "softcap", "rotation", "exact GELU"],
)
def test_refuses_a_network_that_llama_cpp_lacks(wide, tmp_path, preset, dials, facts):
    write_model(tmp_path / "model", wide / "tokenizer", preset=preset, dials=dials)
    with refused("to", tmp_path / "model", *facts):
        export(tmp_path, "model", "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options, nearest",
    [
        ({"digits": 2}, "llama-bpe (digits: 3, whitespace: runs)"),
        ({"digits": 1, "whitespace": "single"}, "qwen2 (digits: 1, whitespace: runs)"),
        ({"digits": 3, "whitespace": "single"}, "llama-bpe (digits: 3, whitespace: runs)"),
    ],
    ids=["two digits", "digits and single", "single"],
)
def test_refuses_a_pattern_that_llama_cpp_lacks(tmp_path, options, nearest):
    ScratchTokenizer.train(LINES, 280, **options).save(tmp_path / "tokenizer")
    write_model(tmp_path / "model", tmp_path / "tokenizer")
    with refused("to", tmp_path / "model", "pattern", nearest):
        export(tmp_path, "model", "out")
    assert not (tmp_path / "out").exists()


def test_refuses_a_width_that_is_no_multiple_of_a_block(wide, tmp_path):
    write_model(tmp_path / "model", wide / "tokenizer")
    with refused("to", "intermediate_size", 48, 32, "f16"):
        export(tmp_path, "model", "out", precision="q8_0", held_out=wide / "data")
    assert not (tmp_path / "out").exists()


def test_refuses_options_that_do_not_fit(wide, tmp_path):
    write_model(tmp_path / "model", wide / "tokenizer", "sft")
    with refused("held_out", "f16", "scratch prepare"):
        export(tmp_path, "model", "out", precision="f16")
    with refused("precision", "gguf"):
        export(tmp_path, "model", "out", precision="f16", to="llama")
    with refused("held_out", wide / "tokenizer"):
        export(tmp_path, "model", "out", precision="f16", held_out=wide / "tokenizer")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "provenance.json"):
        (tmp_path / "model" / name).unlink()
    with refused("to", tmp_path / "model", "tokenizer"):
        export(tmp_path, "model", "out")
    assert not (tmp_path / "out").exists()
