"""`scratch tokenizer`: a folder of text in, a tokenizer folder out."""

import json

import pytest
from messages import refused
from transformers import AutoTokenizer

from modeling_scratch import tokenization_base
from training.commands.tokenizer import SPECIAL_TOKENS, TokenizerConfig, main
from training.common.errors import UserError
from training.stages.recipe import STAGES, build
from training.stages.yaml_values import read_yaml

WORDS = "the cat sat on a mat and looked at another cat that sat under another table".split()


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(12):
        lines = (" ".join(WORDS[(number + line) % 7 :]) for line in range(20))
        (folder / f"{number}.txt").write_text("\n".join(lines) + f"\nstory {number}\n")
    return folder


def arguments(texts, output, **options):
    options = {"data.path": texts, "output_dir": output, "data.validation_fraction": 0.2, **options}
    return [part for key, value in options.items() for part in (f"--{key}", str(value))]


def provenance(folder):
    return json.loads((folder / "provenance.json").read_text())


def test_bpe_end_to_end(texts, tmp_path, capsys):
    output = tmp_path / "tokenizer"
    main(arguments(texts, output, vocab_size=300))
    tokenizer = AutoTokenizer.from_pretrained(output)
    assert len(tokenizer) == 300 and tokenizer.chat_template
    record = provenance(output)
    assert record["stage"] == "tokenizer" and record["stage"] in STAGES
    metrics = record["metrics"]
    assert metrics["vocab_size"] == 300 and metrics["bytes_per_token"] > 2
    printed = capsys.readouterr().out
    assert f"{metrics['bytes_per_token']:.2f} bytes per token on" in printed
    assert "requested" not in printed

    main(arguments(texts, output, vocab_size=300))
    assert "up to date, skipped" in capsys.readouterr().out


def test_says_when_the_text_cannot_fill_the_vocabulary(texts, tmp_path, capsys):
    output = tmp_path / "tokenizer"
    main(arguments(texts, output, vocab_size=5000))
    size = len(AutoTokenizer.from_pretrained(output))
    assert 256 + SPECIAL_TOKENS < size < 5000
    assert f"{size} tokens, not the 5000 requested" in capsys.readouterr().out
    assert provenance(output)["metrics"]["vocab_size"] == size


def test_max_bytes_limits_what_it_learns_from(texts, tmp_path):
    main(arguments(texts, tmp_path / "all", vocab_size=5000))
    main(arguments(texts, tmp_path / "few", vocab_size=5000, max_bytes=40))
    assert len(AutoTokenizer.from_pretrained(tmp_path / "few")) < len(AutoTokenizer.from_pretrained(tmp_path / "all"))


def test_character_level_covers_the_whole_corpus(texts, tmp_path):
    output = tmp_path / "tokenizer"
    main(arguments(texts, output, kind="character"))
    tokenizer = AutoTokenizer.from_pretrained(output)
    everything = "".join(file.read_text() for file in texts.iterdir())
    assert len(tokenizer) == SPECIAL_TOKENS + len(set(everything)) + 1 and tokenizer.unk_token == "<|unknown|>"
    assert len(tokenizer(everything)["input_ids"]) == len(everything)
    assert provenance(output)["metrics"]["bytes_per_token"] == 1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"vocab_size": 200}, "'vocab_size' must be at least 264"),
        ({"max_bytes": 0}, "'max_bytes' must be at least 1, not 0"),
        ({"kind": "words"}, "'kind' must be one of bpe, character"),
        ({"vocab_sise": 300}, "did you mean 'vocab_size'?"),
    ],
)
def test_bad_options_are_one_line_and_write_nothing(texts, tmp_path, options, message):
    with pytest.raises(UserError) as error:
        main(arguments(texts, tmp_path / "out" / "tokenizer", **options))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_what_has_no_effect_on_byte_pairs_is_not_in_their_identity(texts, tmp_path, capsys):
    bpe, character = ({"kind": kind, "vocab_size": 300} for kind in ("bpe", "character"))
    for options in (bpe, character):
        main(arguments(texts, tmp_path / options["kind"], **options))
    main(arguments(texts, tmp_path / "bpe", unknown="false", **bpe))
    assert capsys.readouterr().out.endswith("is up to date, skipped\n")
    with refused("output_dir", "unknown"):
        main(arguments(texts, tmp_path / "character", unknown="false", **character))


def test_missing_text_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        main(arguments(tmp_path / "nowhere", tmp_path / "out" / "tokenizer"))
    assert not (tmp_path / "out").exists()


def test_the_number_of_special_tokens_is_that_of_the_tokenizers():
    """It stands in the command, which imports no tokenizer before it has read the recipe."""
    assert SPECIAL_TOKENS == len(tokenization_base.SPECIAL_TOKENS)


def test_quickstart_recipe_parses():
    path = "recipes/quickstart/tokenizer.yaml"
    config = build(TokenizerConfig, read_yaml(path), path)
    assert config.data.path == "python" and config.kind == "bpe"
