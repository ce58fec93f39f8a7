import json

import numpy as np
import pytest

from training.common.errors import UserError
from training.data import shards

DOCUMENTS = [[5, 6, 7, 0], [8, 0], [300, 0]]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{}")
    folder = tmp_path / "data"
    folder.mkdir()
    entry = shards.write_shard(folder, "train", DOCUMENTS, 512, "tokenizer") | {"bytes": 20}
    shards.write_manifest(folder, {"train": entry}, tmp_path / "tokenizer", 512, {})
    return folder


def test_round_trip(folder):
    opened = shards.open_shards(folder, "train")
    assert len(opened) == 8
    assert opened.tokens.dtype == np.uint16
    assert opened.tokens.tolist() == sum(DOCUMENTS, [])
    assert opened.document_ends.tolist() == [4, 6, 8]
    assert (opened.text_bytes, opened.vocab_size) == (20, 512)


def test_layout_is_datatroves(folder):
    """Raw little-endian tokens; the index counts tokens, as uint64, without a leading zero; three lines of metadata."""
    assert (folder / "train-00000.ds").read_bytes() == b"\5\0\6\0\7\0\0\0\10\0\0\0\54\1\0\0"
    index = (folder / "train-00000.ds.index").read_bytes()
    assert index == b"".join(end.to_bytes(8, "little") for end in (4, 6, 8))
    name, count, _ = (folder / "train-00000.ds.metadata").read_text().split("\n")
    assert (name, count) == ("tokenizer|2", "8")


def test_large_vocabularies_take_four_bytes(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    entry = shards.write_shard(tmp_path, "train", [[70_000, 0]], 100_000, "t") | {"bytes": 4}
    shards.write_manifest(tmp_path, {"train": entry}, tmp_path, 100_000, {})
    opened = shards.open_shards(tmp_path, "train")
    assert opened.tokens.dtype == np.uint32
    assert opened.tokens.tolist() == [70_000, 0]
    assert shards.token_dtype(65_536) == np.uint16


@pytest.mark.parametrize("name", ["train-00000.ds", "train-00000.ds.index"])
def test_damaged_shards_are_refused(folder, name):
    file = folder / name
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(UserError, match="damaged"):
        shards.open_shards(folder, "train")
    file.unlink()
    with pytest.raises(UserError, match="missing"):
        shards.open_shards(folder, "train")


def test_index_of_other_tokens_is_refused(folder):
    np.asarray([4, 6, 9], dtype="<u8").tofile(folder / "train-00000.ds.index")
    with pytest.raises(UserError, match="train-00000.ds.index is damaged: its offsets"):
        shards.open_shards(folder, "train")


def test_folders_without_shards_are_refused(folder, tmp_path):
    with pytest.raises(UserError, match="holds no token shards"):
        shards.open_shards(tmp_path / "elsewhere", "train")
    with pytest.raises(UserError, match="no split 'test'; it holds train"):
        shards.open_shards(folder, "test")
    whole = json.loads((folder / shards.MANIFEST).read_text())
    (folder / shards.MANIFEST).write_text(json.dumps(whole | {"vocab_size": "512"}))
    with pytest.raises(UserError, match="manifest.json is damaged"):
        shards.open_shards(folder, "train")
    (folder / shards.MANIFEST).write_text("{")
    with pytest.raises(UserError, match="manifest.json is damaged"):
        shards.open_shards(folder, "train")


def test_another_tokenizer_is_refused(folder, tmp_path):
    shards.check_tokenizer(folder, tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "tokenizer.json").write_text(json.dumps({"other": 1}))
    with pytest.raises(UserError, match="is not the tokenizer that made the shards"):
        shards.check_tokenizer(folder, tmp_path / "tokenizer")
    with pytest.raises(UserError, match="no tokenizer.json"):
        shards.check_tokenizer(folder, tmp_path / "nowhere")
