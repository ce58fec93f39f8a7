"""Text as tokens on disk: characters that a tokenizer does not know count no bytes."""

import pytest
from character_tokenizers import character_tokenizer
from messages import refused

from training.corpus.output.encoding import Encoder
from training.corpus.sources import Document
from training.data.shards import open_shard


def documents(*texts: str) -> list[Document]:
    return [Document(str(number), "group", text) for number, text in enumerate(texts)]


def test_unknown_characters_count_no_bytes(tmp_path, capsys):
    tokenizer = character_tokenizer(tmp_path / "tokenizer", unknown=True)
    encoder = Encoder(tmp_path / "tokenizer", 0, len(tokenizer))
    entry, sizes = encoder.write(tmp_path, "train", documents("café 😀", "tea"))
    assert entry["bytes"] == 7 and sizes.tolist() == [4, 3]
    assert "6 of 13 bytes are characters that the tokenizer" in capsys.readouterr().out
    tokens = open_shard(tmp_path / entry["file"], entry, len(tokenizer)).tokens
    assert list(tokens).count(tokenizer.unk_token_id) == 2 and len(tokens) == 6 + 3 + 2
    assert encoder.size(tokens[:6]) == 4


@pytest.mark.parametrize("unknown", [True, False])
def test_known_text_counts_all_its_bytes(tmp_path, capsys, unknown):
    tokenizer = character_tokenizer(tmp_path / "tokenizer", unknown)
    encoder = Encoder(tmp_path / "tokenizer", 0, len(tokenizer))
    entry, _ = encoder.write(tmp_path, "train", documents("tea <|unknown|>"))
    assert entry["bytes"] == 15 and "does not know" not in capsys.readouterr().out


def test_without_a_token_for_them_they_are_an_error(tmp_path):
    tokenizer = character_tokenizer(tmp_path / "tokenizer", unknown=False)
    with refused("tokenizer", tmp_path / "tokenizer", "train it on the same text"):
        Encoder(tmp_path / "tokenizer", 0, len(tokenizer)).write(tmp_path, "train", documents("café"))
