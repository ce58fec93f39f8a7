"""Merges of `scratch tokenizer --show`: replayed with any tokenizer, and in one line what cannot be."""

import json

import pytest
from character_tokenizers import character_tokenizer
from foreign_tokenizers import byte_level, foreign
from messages import refused
from tiny_stages import LINES, write_tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from modeling_scratch.tokenization_scratch import ScratchTokenizer, split_pattern
from training.commands import tokenizer
from training.model_io.token_merges import MOST_CHARACTERS, cut, describe, open_backend
from training.plots.merges import draw_merges

SHOWN = "the cat sat under\n  another table 77 naïve €<|im_end|>cat"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("show") / "tokenizer")


def trained(model, trainer, pre_tokenizer=None, normalizer=None) -> Tokenizer:
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizer or pre_tokenizers.Whitespace()
    if normalizer:
        backend.normalizer = normalizer
    backend.train_from_iterator(LINES, trainer)
    return backend


def sentencepiece() -> Tokenizer:
    steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    return foreign(normalizer=normalizers.Sequence(steps), byte_level=False).backend_tokenizer


def ignoring_merges() -> Tokenizer:
    content = json.loads(foreign(byte_level(split_pattern())).backend_tokenizer.to_str())
    content["model"]["ignore_merges"] = True
    return Tokenizer.from_str(json.dumps(content))


FOREIGN = {
    "byte level": lambda: foreign(byte_level(split_pattern())).backend_tokenizer,
    "ignore_merges": ignoring_merges,
    "SentencePiece": sentencepiece,
    "end of word": lambda: trained(
        models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"),
        trainers.BpeTrainer(vocab_size=90, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False),
    ),
    "continuing prefix": lambda: trained(
        models.BPE(unk_token="<unk>", continuing_subword_prefix="##"),
        trainers.BpeTrainer(
            vocab_size=90, special_tokens=["<unk>"], continuing_subword_prefix="##", show_progress=False
        ),
    ),
}
TRAINED_ON_LINES = ("end of word", "continuing prefix")
WITHOUT_MERGES = {
    "WordPiece": lambda: trained(
        models.WordPiece(unk_token="<unk>"),
        trainers.WordPieceTrainer(vocab_size=90, special_tokens=["<unk>"], show_progress=False),
    ),
    "Unigram": lambda: trained(
        models.Unigram(), trainers.UnigramTrainer(vocab_size=60, special_tokens=["<unk>"], show_progress=False)
    ),
}


def test_the_merges_of_our_tokenizer(folder):
    ours, found = ScratchTokenizer.load(folder), cut(open_backend(folder, "tokenizer"), SHOWN)
    assert [index for word in found.words for index in word.ids] == ours.encode(SHOWN)
    assert "".join(word.text for word in found.words) == SHOWN.replace(" ", "·").replace("\n", "\\n")
    assert found.words[-2].tokens == ["<|im_end|>"] and not found.words[-2].merges
    learned, made = ours.merges, 0
    for word in found.words:
        ranks = [merge.rank for merge in word.merges]
        assert ranks == sorted(ranks) and word.states()[-1] == word.tokens
        for merge in word.merges:
            left, right = learned[merge.rank]
            assert (merge.left, merge.right) == (left.replace("Ġ", "·"), right.replace("Ġ", "·"))
            made += 1
    assert made > 15


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_byte_pairs(kind):
    backend = FOREIGN[kind]()
    text = "the cat sat under another table" if kind in TRAINED_ON_LINES else "system user assistant tool, an item"
    found = cut(backend, text)
    assert [index for word in found.words for index in word.ids] == backend.encode(text).ids
    assert all(word.states()[-1] == word.tokens for word in found.words)
    assert sum(len(word.merges) for word in found.words) > 10
    plain = "".join(word.text for word in found.words).replace("·", "").replace("##", "")
    assert plain == text.replace(" ", "").replace(",", "\\x2c" if kind == "SentencePiece" else ",")


@pytest.mark.parametrize("kind", WITHOUT_MERGES)
def test_models_without_merges(kind):
    found = cut(WITHOUT_MERGES[kind](), "the cat sat")
    assert found.model == kind and not any(word.merges for word in found.words)
    assert all(word.pieces == word.tokens for word in found.words)


def test_printed_and_drawn(folder, tmp_path, capsys):
    output = tmp_path / "tokens.png"
    tokenizer.main(["--show", SHOWN, "--tokenizer", str(folder / "tokenizer.json"), "--output", str(output)])
    printed = capsys.readouterr().out
    assert f"{len(SHOWN.encode())} bytes" in printed and max(map(len, printed.splitlines())) <= 110
    assert "\\xe2" in printed and "as above" not in printed
    assert output.read_bytes().startswith(b"\x89PNG")


def test_a_long_text_is_drawn_as_far_as_there_is_room(folder, tmp_path):
    found = cut(open_backend(folder, "tokenizer"), "cat sat " * 200 + "-" * 400)
    assert describe(found).count("as above") == 397
    assert draw_merges(tmp_path / "tokens.png", found, "tokens") > 100


def test_bad_input_is_one_line_and_writes_nothing(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged.json").write_text("{")
    character_tokenizer(tmp_path / "ascii", unknown=False)
    backend = open_backend(folder, "tokenizer")
    with refused("show", "empty"):
        cut(backend, "")
    with refused("show", f"{MOST_CHARACTERS:,}"):
        cut(backend, "a" * (MOST_CHARACTERS + 1))
    with refused("show", "rejects"):
        cut(open_backend("ascii", "tokenizer"), "ä")
    with refused("tokenizer", "damaged.json"):
        open_backend("damaged.json", "tokenizer")
    with refused("tokenizer", "nowhere"):
        tokenizer.main(["--show", "text", "--tokenizer", str(tmp_path / "nowhere")])
    with refused("output", "tokens.gif"):
        tokenizer.main(["--show", "text", "--tokenizer", str(folder), "--output", "tokens.gif"])
    with refused("tokenizer", "missing"):
        tokenizer.main(["--show", "text"])
    assert not list(tmp_path.glob("tokens.*"))
