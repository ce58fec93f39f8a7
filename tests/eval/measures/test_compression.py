"""Bytes per token by kind of text, as `scratch tokenizer --compare` prints them."""

import huggingface_hub
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from modeling_scratch.tokenization_character import CharacterTokenizer
from modeling_scratch.tokenization_scratch import ScratchTokenizer
from training.cli import main
from training.eval.measures import compression
from training.eval.measures.compression import compare, measure

CODE = "def f(x):\n            return [x, 2024, 2024]\n"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Tokenizers of the same text and size with different options, and one of characters."""
    place = tmp_path_factory.mktemp("tokenizers")
    for name, options in {"default": {}, "digits": {"digits": 1}, "whitespace": {"whitespace": "single"}}.items():
        ScratchTokenizer.train([CODE, CODE], 330, **options).save(place / name)
    ScratchTokenizer([]).save(place / "bytes")
    CharacterTokenizer.train([CODE]).save(place / "characters")
    return place


def opened(folders, *names):
    return {name: AutoTokenizer.from_pretrained(folders / name) for name in names}


def figures(table: str, kind: str) -> list[str]:
    """The cells of a row after its name and size."""
    (row,) = [line for line in table.splitlines() if line.startswith(kind + " ")]
    return row[len(kind) :].split()[1:]


def test_bytes_per_token_by_hand(folders):
    tokenizer = opened(folders, "bytes")["bytes"]
    assert measure(tokenizer, ["four", "", "é"])[0] == 1
    assert measure(opened(folders, "default")["default"], [CODE])[0] == len(CODE) / 17


def test_the_effect_of_the_options(folders):
    kinds = {"code": [CODE], "numbers": ["2024"], "indented": ["\n            return"], "words": ["return def return"]}
    table = compare(opened(folders, "default", "digits", "whitespace"), kinds)
    assert figures(table, "numbers") == ["2.00", "1.00", "(-50%)", "2.00", "(+0%)"]
    assert figures(table, "indented")[0] == figures(table, "indented")[1] == "6.33"
    assert figures(table, "indented")[3:] == ["1.46", "(-77%)"]
    assert len(set(figures(table, "words")[:2])) == 1
    assert "A: default (285 tokens; encodes " in table and "C: whitespace (" in table and "MB/s)" in table


def test_text_that_a_tokenizer_cannot_write(folders):
    lossy = Tokenizer(models.WordLevel({"return": 0, "[UNK]": 1}, unk_token="[UNK]"))
    lossy.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizers = opened(folders, "bytes", "characters")
    tokenizers["lossy"] = PreTrainedTokenizerFast(tokenizer_object=lossy, unk_token="[UNK]")
    table = compare(tokenizers, {"code": [CODE], "Chinese": ["早上"], "word": ["return"], "none": []})
    assert figures(table, "Chinese") == ["1.00", "-", "-"]
    assert figures(table, "code") == ["1.00", "1.00", "(+0%)", "-"]
    assert figures(table, "word")[-2:] == ["6.00", "(+500%)"]
    assert "-: it cannot encode this text" in table and "none" not in table
    assert "cannot" not in compare(opened(folders, "bytes"), {"code": [CODE]})


def test_the_verb(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compression, "PYTHON_BYTES", 2_000_000)
    (tmp_path / "mine.txt").write_text("one text of mine\n" * 50)
    names = [str(folders / name) for name in ("bytes", "default")]
    assert main(["tokenizer", "--compare", *names, "--data.path", str(tmp_path / "mine.txt")]) == 0
    table = capsys.readouterr().out
    kinds = ["Python source", "its deeply indented lines", "English manual", "numbers, dates", "symbols, emoji"]
    for kind in [*kinds, "Russian, Greek", str(tmp_path / "mine.txt")]:
        cells = figures(table, kind)
        assert cells[0] == "1.00" and float(cells[1]) >= 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--compare", "gone"], "error: 'compare': no tokenizer at gone ("),
        (["--compare", "torn"], "error: 'compare': torn/tokenizer.json is damaged ("),
        (["--compare", "whole", "--data.path", "gone.txt"], "error: 'data.path': no such file or folder: gone.txt"),
    ],
)
def test_mistakes_are_one_line(folders, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "whole").symlink_to(folders / "default")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "tokenizer.json").write_text("{")
    assert main(["tokenizer", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(message) and error.count("\n") == 1
