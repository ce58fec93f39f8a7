"""Checkpoints of other projects: logits as those of a stock model with the same weights, and errors of one line."""

import argparse
import json
import zipfile
from pathlib import Path

import foreign_checkpoints as foreign
import pytest
import torch
from foreign_checkpoints import CONTEXT, HIDDEN, VOCAB, write
from messages import refused
from tiny_stages import flags, write_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from training.commands.import_model import main
from training.common.errors import UserError
from training.foreign.projects import find_checkpoint, read_foreign, to_scratch
from training.foreign.sizes import Sizes

ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0}
LLAMA3 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 16}
BOOK = Sizes(heads=4, context=CONTEXT, rope_parameters=ROPE)


def imported(file, sizes=None):
    found = find_checkpoint(str(file))
    return to_scratch(found, read_foreign(found, sizes or Sizes())).eval()


def logits(model, length=CONTEXT):
    ids = torch.randint(VOCAB, (2, length), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(ids).logits


def check_equal(file, stock, sizes=None):
    expected, found = logits(stock), logits(imported(file, sizes))
    assert expected.abs().max() > 0.5
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("biases", [True, False])
def test_nanogpt(tmp_path, biases):
    """With the exact GELU, in a file that a compiled model wrote; without biases too."""
    stock = foreign.stock_gpt2("gelu", biases)
    write(tmp_path / "ckpt.pt", foreign.nanogpt(stock, biases, "_orig_mod."))
    check_equal(tmp_path, stock)
    assert (logits(imported(tmp_path)) - logits(foreign.stock_gpt2("gelu_new", biases))).abs().max() > 1e-4
    config = imported(tmp_path).config
    assert config.mlp_type == "gelu_exact" and config.hidden_dropout == config.attention_dropout == 0.1


def test_a_bare_nanogpt_needs_its_heads(tmp_path):
    stock = foreign.stock_gpt2("gelu")
    file = write(tmp_path / "weights.pt", foreign.nanogpt(stock)["model"])
    with refused("model", "--heads"):
        imported(file)
    check_equal(file, stock, Sizes(heads=4))


def test_mingpt(tmp_path):
    """An output matrix of its own, masks among the tensors, and sizes in `config.json`."""
    stock = foreign.stock_gpt2(tied=False)
    settings = {"system": {}, "model": {"model_type": None, "n_head": 4, "vocab_size": None}}
    write(tmp_path / "model.pt", foreign.mingpt(stock), {"config.json": settings})
    check_equal(tmp_path, stock)
    settings["model"] = {"model_type": "gpt-micro", "n_head": None}
    write(tmp_path / "model.pt", foreign.mingpt(stock), {"config.json": settings})
    check_equal(tmp_path, stock)
    check_equal(write(tmp_path / "alone" / "model.pt", foreign.mingpt(stock)), stock, Sizes(heads=4))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["pt", "v0", "v1"])
def test_llama2c(tmp_path, kind, tied):
    stock = foreign.stock_llama(tied=tied)
    content = foreign.llama2c(stock) if kind == "pt" else foreign.llama2c_binary(stock, int(kind[1]), tied)
    check_equal(write(tmp_path / ("ckpt.pt" if kind == "pt" else "model.bin"), content), stock)


def test_llama2c_rotates_neighbours(tmp_path):
    """Attention scores of one head, computed with complex numbers as its paper has them."""
    stock = foreign.stock_llama()
    tensors = foreign.llama2c(stock)["model"]
    model = imported(write(tmp_path / "ckpt.pt", foreign.llama2c(stock)))
    states = torch.randn(1, 10, HIDDEN, generator=torch.Generator().manual_seed(0))
    angles = torch.arange(10.0)[:, None] * 10_000.0 ** -(torch.arange(0, 8, 2) / 8)
    turns = torch.polar(torch.ones_like(angles), angles)

    def rotated(name):
        head = (states[0] @ tensors[f"layers.0.attention.{name}.weight"].T)[:, :8]
        return torch.view_as_real(torch.view_as_complex(head.reshape(10, 4, 2)) * turns).flatten(1)

    expected = rotated("wq") @ rotated("wk").T
    attention = model.model.layers[0].self_attn
    tables = model.model.rotary_emb(states, torch.arange(10)[None])
    from modeling_scratch.modeling_scratch import apply_rotary_pos_emb

    with torch.no_grad():
        query, key = (
            apply_rotary_pos_emb(matrix(states).view(1, 10, -1, 8).transpose(1, 2), *tables)[0, 0]
            for matrix in (attention.q_proj, attention.k_proj)
        )
    torch.testing.assert_close(query @ key.T, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("biases", [True, False])
def test_the_gpt_of_the_book(tmp_path, biases):
    stock = foreign.stock_gpt2(tied=False)
    if not biases:
        for block in stock.transformer.h:
            block.attn.c_attn.bias.data.zero_()
    content = {"model_state_dict": foreign.book_gpt(stock, biases), "optimizer_state_dict": {}}
    check_equal(write(tmp_path / "model.pth", content), stock, Sizes(heads=4))


@pytest.mark.parametrize("rope", [ROPE, LLAMA3], ids=["default", "llama3"])
def test_the_llama_of_the_book(tmp_path, rope):
    stock = foreign.stock_llama(rope_parameters=rope)
    file = write(tmp_path / "llama.pth", foreign.book_llama(stock))
    check_equal(file, stock, Sizes(heads=4, context=CONTEXT, rope_parameters=rope))


def test_the_qwen3_of_the_book(tmp_path):
    stock = foreign.stock_llama(qwen3=True, rope_parameters=ROPE)
    file = write(tmp_path / "qwen3.pth", foreign.book_llama(stock, "scale"))
    check_equal(file, stock, Sizes(context=CONTEXT, rope_parameters=ROPE))


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({}, {}),
        ({"rope_parameters": ROPE | {"rope_type": "linear", "factor": 3.0}}, {"rope_condense_ratio": 3}),
        (
            {"rope_parameters": LLAMA3},
            {
                "rope_adjustments": {
                    **{"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
                    "original_max_seq_len": 16,
                }
            },
        ),
        ({"attention_bias": True, "mlp_bias": True}, {"bias": True}),
        ({"qwen3": True}, {"norm_qk": True, "head_size": 16, "norm_eps": 1e-6}),
    ],
    ids=["plain", "condensed", "llama3", "bias", "qwen3"],
)
@pytest.mark.parametrize("interleaved", [False, True], ids=["new", "old"])
def test_litgpt(tmp_path, options, settings, interleaved):
    stock = foreign.stock_llama(**options)
    content = foreign.litgpt(stock, interleaved, biases="attention_bias" in options)
    content = content if interleaved else {"model": content}
    place = write(tmp_path / "lit_model.pth", content, {"model_config.yaml": foreign.litgpt_settings(**settings)})
    check_equal(place.parent, stock)


def without(content, name):
    return {key: tensor for key, tensor in content.items() if key != name}


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def nano(**changes):
    return foreign.nanogpt(foreign.stock_gpt2("gelu"), **changes)


def nano_tensors(**changes):
    content = nano()
    return content | {"model": content["model"] | changes}


def damaged_zip(file):
    write(file, nano())
    file.write_bytes(file.read_bytes()[:-500])


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        (lambda: nano() | {"config": argparse.Namespace(a=1)}, ["argparse.Namespace", "unpickling"]),
        (lambda: nano() | {"trap": Trap()}, ["_pytest.outcomes", "unpickling"]),
        (lambda: nano() | {"path": Path("a")}, ["pathlib", "unpickling"]),
        (lambda: nano(n_head=5), ["5", "does not divide 32"]),
        (lambda: nano(n_head="four"), ["n_head", "'four'", "whole number"]),
        (lambda: nano(n_embd=64), ["n_embd is 64", "32"]),
        (lambda: nano(dropout=-1), ["dropout is -1"]),
        (lambda: nano() | {"model_args": [1]}, ["model_args is [1]"]),
        (lambda: nano_tensors(**{"transformer.h.1.ln_1.weight": torch.ones(7)}), ["h.1.ln_1", "(7,)", "(32,)"]),
        (
            lambda: nano_tensors(**{"transformer.h.1.x.weight": torch.ones(7)}),
            ["h.1.x.weight", "not a tensor of nanoGPT"],
        ),
        (lambda: nano_tensors(**{"transformer.ln_f.bias": torch.ones(32).int()}), ["ln_f.bias", "int32"]),
        (
            lambda: nano_tensors(**{"transformer.wpe.weight": torch.ones(1).expand(1 << 40, 32)}),
            ["wpe", "not a plain tensor"],
        ),
        (
            lambda: nano() | {"model": without(nano()["model"], "transformer.h.1.mlp.c_fc.weight")},
            ["h.1.mlp.c_fc.weight", "missing"],
        ),
        (lambda: without(nano()["model"], "transformer.wpe.weight"), ["nearest: nanoGPT", "transformer.wpe.weight"]),
        (lambda: {"encoder.weight": torch.ones(2)}, ["encoder.weight", "nanoGPT, minGPT, llama2.c", "none comes near"]),
        (lambda: {"a": 1}, ["'a'", "not a tensor"]),
        (lambda: {}, ["no tensors"]),
        (lambda: torch.ones(3), ["Tensor", "state_dict"]),
        (lambda: b"PK\x03\x04 and no more", ["damaged"]),
        (lambda: b"\x80\x02}q\x00.", ["damaged"]),
        (lambda: b"GGUF\x03", ["not a checkpoint"]),
        (lambda: b"", ["not a checkpoint"]),
    ],
    ids=lambda value: "" if callable(value) else value[0],
)
def test_what_is_wrong_with_a_file(tmp_path, content, facts):
    file = write(tmp_path / "some.pt", content())
    with refused("model", "some.pt", *facts):
        imported(file)


def test_damaged_archives(tmp_path):
    damaged_zip(tmp_path / "cut.pt")
    with refused("model", "damaged"):
        imported(tmp_path / "cut.pt")
    whole = write(tmp_path / "whole.pt", nano())
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in source.namelist():
            packed.writestr(name, source.read(name))
    with refused("model", "compressed"):
        imported(tmp_path / "packed.pt")
    write(tmp_path / "model.pt", nano())
    write(tmp_path / "ckpt.pt", nano())
    with refused("model", "ckpt.pt and model.pt"):
        find_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (lambda content: content[:-4], ["bytes", "copy it again"]),
        (lambda content: content + b"\0", ["bytes"]),
        (lambda content: content[:20], ["too short"]),
        (lambda content: b"\xff" * 28 + content[28:], ["header"]),
        (lambda content: content[:4] + b"\2" + content[5:], ["version 2", "int8"]),
    ],
    ids=["cut", "longer", "header only", "no sizes", "quantized"],
)
def test_what_is_wrong_with_a_binary(tmp_path, change, facts):
    content = foreign.llama2c_binary(foreign.stock_llama(), 1 if facts[0] == "version 2" else 0, tied=False)
    with refused("model", "model.bin", *facts):
        imported(write(tmp_path / "model.bin", change(content)))


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        ({"parallel_residual": True}, ["parallel_residual is True", "False"]),
        ({"norm_class_name": "LayerNorm"}, ["norm_class_name is 'LayerNorm'"]),
        ({"rotary_percentage": 0.25}, ["rotary_percentage is 0.25"]),
        ({"sliding_window_size": 8}, ["sliding_window_size is 8"]),
        ({"rope_adjustments": {"beta_fast": 1}}, ["rope_adjustments", "beta_fast"]),
        ({"n_query_groups": 3}, ["n_query_groups"]),
        ({"n_layer": 3}, ["n_layer is 3", "2"]),
        ({"head_size": 7}, ["proj.weight", "contradicts"]),
        (None, ["model_config.yaml"]),
    ],
    ids=lambda value: "" if isinstance(value, list) else str(value),
)
def test_what_is_wrong_with_litgpt(tmp_path, settings, facts):
    beside = None if settings is None else {"model_config.yaml": foreign.litgpt_settings(**settings)}
    file = write(tmp_path / "lit_model.pth", foreign.litgpt(foreign.stock_llama()), beside)
    with refused("model", *facts):
        imported(file)


@pytest.mark.parametrize("missing", ["heads", "context", "rope_parameters"])
def test_sizes_that_no_file_holds_are_requested(tmp_path, missing):
    file = write(tmp_path / "llama.pth", foreign.book_llama(foreign.stock_llama()))
    sizes = {"heads": 4, "context": CONTEXT, "rope_parameters": ROPE} | {missing: None}
    with refused("model", f"'{missing}'", f"--{missing}"):
        imported(file, Sizes(**sizes))


def test_sizes_that_contradict_the_file(tmp_path):
    file = write(tmp_path / "ckpt.pt", nano())
    with refused("model", "'heads' is 8", "4", "leave --heads out"):
        imported(file, Sizes(heads=8))
    with refused("model", "'context' is 99", "24"):
        imported(file, Sizes(context=99))
    file = write(tmp_path / "llama.pth", foreign.book_llama(foreign.stock_llama()))
    with refused("model", "rope_parameters of type 'default'"):
        imported(file, Sizes(heads=4, context=24, rope_parameters=ROPE | {"factor": 2.0}))


def test_nanochat_is_rejected_with_the_reason(tmp_path):
    names = [f"transformer.h.0.attn.{name}" for name in ("c_q", "c_k", "c_v", "c_proj")]
    names += ["transformer.wte", "transformer.h.0.mlp.c_fc", "transformer.h.0.mlp.c_proj", "lm_head"]
    file = write(tmp_path / "model_000100.pt", {f"{name}.weight": torch.ones(4, 4) for name in names})
    with refused("model", "nanochat", "value embeddings"):
        imported(file)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_character_level_model(place, capsys):
    """Its ids are the sorted characters of the text, as nanoGPT and minGPT number them."""
    text = "".join(map(chr, range(48, 48 + VOCAB - 1))) + "\r\nBAD"
    (place / "input.txt").write_text(text, newline="")
    write("out/ckpt.pt", nano())
    main(flags({"model": "out", "characters": "input.txt", "output_dir": "new"}))
    assert "wrote new (nanoGPT, 0.0M parameters, with tokenizer)" in capsys.readouterr().out
    tokenizer = AutoTokenizer.from_pretrained("new")
    numbers = {character: number for number, character in enumerate(sorted(set(text) - {"\r"}))}
    assert tokenizer("A1\nb")["input_ids"] == [numbers[character] for character in "A1\nb"]
    assert tokenizer.decode([numbers["A"], numbers["\n"]]) == "A\n" and len(tokenizer) == VOCAB
    model = AutoModelForCausalLM.from_pretrained("new").eval()
    torch.testing.assert_close(logits(model), logits(foreign.stock_gpt2("gelu")), rtol=0, atol=1e-5)
    assert model.generate(torch.tensor([[1]]), do_sample=False, max_new_tokens=3).shape == (1, 4)
    main(flags({"model": "out", "characters": "input.txt", "output_dir": "new"}))
    assert "is up to date, skipped" in capsys.readouterr().out


def test_a_tokenizer_of_a_folder(place, capsys):
    """Its special tokens go into the settings, and rows beyond it are never drawn."""
    settings = json.loads((write_tokenizer(place / "tokenizer") / "tokenizer_config.json").read_text())
    (place / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(settings | {"bos_token": "<|im_start|>"}))
    tokenizer = AutoTokenizer.from_pretrained("tokenizer")
    stock = foreign.stock_llama(vocab_size=len(tokenizer) + 3)
    write("ckpt.pt", foreign.llama2c(stock, vocab_size=len(tokenizer) + 3))
    main(flags({"model": "ckpt.pt", "output_dir": "bare"}))
    assert "without tokenizer: add --tokenizer" in capsys.readouterr().out
    main(flags({"model": "ckpt.pt", "tokenizer": "tokenizer", "output_dir": "new"}))
    model = AutoModelForCausalLM.from_pretrained("new")
    assert model.generation_config.suppress_tokens == [len(tokenizer) + row for row in range(3)]
    assert (model.config.bos_token_id, model.config.eos_token_id) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    ends = [tokenizer.bos_token_id, tokenizer.eos_token_id]
    assert tokenizer.bos_token_id != tokenizer.eos_token_id and model.generation_config.eos_token_id == ends
    assert AutoTokenizer.from_pretrained("new")("the cat")["input_ids"] == tokenizer("the cat")["input_ids"]


@pytest.mark.parametrize(
    ("options", "key", "facts"),
    [
        ({"model": "ckpt.pt", "characters": "few.txt"}, "characters", ["few.txt", "3 different", str(VOCAB)]),
        ({"model": "ckpt.pt", "characters": "bytes.txt"}, "characters", ["bytes.txt", "UTF-8"]),
        ({"model": "ckpt.pt", "characters": "tokenizer"}, "characters", ["tokenizer"]),
        ({"model": "ckpt.pt", "characters": "few.txt", "tokenizer": "tokenizer"}, "tokenizer", ["characters"]),
        ({"model": "ckpt.pt", "tokenizer": "tokenizer"}, "tokenizer", ["embeddings"]),
        ({"model": "ckpt.pt", "tokenizer": "few.txt"}, "tokenizer", ["few.txt"]),
        ({"model": "ckpt.pt", "heads": 0}, "heads", ["at least 1"]),
        ({"model": "tokenizer", "heads": 4}, "heads", ["tokenizer"]),
        ({"model": "gone.pt"}, "model", ["gone.pt"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_nothing_is_half_written(place, options, key, facts):
    write("ckpt.pt", nano())
    write_tokenizer(place / "tokenizer")
    (place / "few.txt").write_text("abc")
    (place / "bytes.txt").write_bytes(b"\xff")
    with refused(key, *facts):
        main(flags(options | {"output_dir": "new"}))
    assert not (place / "new").exists() and not (place / "new.partial").exists()


def test_code_in_a_checkpoint_is_not_run(place):
    write("ckpt.pt", nano() | {"trap": Trap()})
    with pytest.raises(UserError, match="unpickling it would run code"):
        main(flags({"model": "ckpt.pt", "output_dir": "new"}))
    assert not (place / "new").exists() and not (place / "new.partial").exists()
