import gzip
import itertools
import json

import pytest
from corpora import load, write_texts

from training.common.errors import UserError
from training.corpus import sources
from training.corpus.curation.blocks import BLOCK_BYTES
from training.corpus.curation.config import DataConfig
from training.corpus.curation.fingerprint import corpus_digest


def test_folder_of_texts_is_split_by_document(tmp_path):
    corpus = load(DataConfig(path=str(write_texts(tmp_path / "texts")), validation_fraction=0.2))
    assert len(corpus.train) + len(corpus.validation) == 40
    assert corpus.validation and not {d.id for d in corpus.train} & {d.id for d in corpus.validation}
    assert [d.id for d in corpus.train] == sorted(d.id for d in corpus.train)


def test_single_text_is_split_by_position(tmp_path):
    text = "".join(f"line {number}\n" for number in range(1000))
    (tmp_path / "play.txt").write_text(text)
    corpus = load(DataConfig(path=str(tmp_path / "play.txt"), validation_fraction=0.1))
    (train,), (validation,) = corpus.train, corpus.validation
    assert train.text + validation.text == text
    assert train.text.endswith("\n")
    assert validation.size == pytest.approx(0.1 * len(text), abs=10)


def test_texts_between_end_markers_are_documents(tmp_path):
    (tmp_path / "stories.txt").write_text("one\n<|endoftext|>\ntwo\n<|endoftext|>\nthree")
    (tmp_path / "code.py").write_text('END = "<|endoftext|>"')  # here it is only a string
    corpus = load(DataConfig(path=str(tmp_path), validation_fraction=0.3))
    found = sorted(d.text.strip() for d in corpus.train + corpus.validation)
    assert found == ['END = "<|endoftext|>"', "one", "three", "two"]


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "parquet"])
def test_records_with_a_text_column(tmp_path, ending):
    rows = [{"id": number, "story": f"story {number}"} for number in range(30)] + [{"id": 30, "story": None}]
    file = tmp_path / f"data.{ending}"
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if ending == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), file)
    elif ending == "jsonl":
        file.write_text(lines)
    else:
        file.write_bytes(gzip.compress(lines.encode()))
    corpus = load(DataConfig(path=str(file), text_column="story", validation_fraction=0.2))
    assert {d.text for d in corpus.train + corpus.validation} == {f"story {number}" for number in range(30)}
    assert corpus.funnel.dropped["empty"] == {"documents": 1, "bytes": 0, "step": "reading"}
    with pytest.raises(UserError, match="no column 'stroy'; did you mean 'story'"):
        load(DataConfig(path=str(file), text_column="stroy"))


def test_limit_cuts_text_between_characters(tmp_path):
    (tmp_path / "a.txt").write_text("é" * 1000)
    corpus = load(DataConfig(path=str(tmp_path / "a.txt"), max_bytes=101))
    assert corpus.funnel.kept["bytes"] == 100
    assert "".join(d.text for d in corpus.train + corpus.validation) == "é" * 50


def test_text_funnel_counts_what_it_drops(tmp_path):
    folder = write_texts(tmp_path / "texts", 20)
    (folder / "copy.txt").write_text((folder / "05.txt").read_text())
    (folder / "blank.txt").write_text(" \n")
    (folder / "binary.txt").write_bytes(b"\xff\xfe\x00")
    funnel = load(DataConfig(path=str(folder))).funnel
    assert {reason: row["documents"] for reason, row in funnel.dropped.items()} == {
        "undecodable": 1,
        "empty": 1,
        "duplicate": 1,
    }
    assert funnel.read["documents"] == 23
    assert "23" in str(funnel)


def test_file_digest_follows_contents(tmp_path):
    config = DataConfig(path=str(write_texts(tmp_path / "texts", 3)))
    before = corpus_digest(config)
    (tmp_path / "texts" / "00.txt").write_text("changed")
    assert corpus_digest(config) != before


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.txt", "no such file"),
        ("data/missing.jsonl", "no such file"),
        ("./owner/name", "no such file"),
        ("a/b/c", "no such file"),
        ("nothing*.txt", r"no file of a supported type: .*\.txt"),
        ("image.png", r"unknown file type; .*\.txt"),
        ("empty.txt", "no text left"),
        ("broken.jsonl", "broken.jsonl:2: not valid JSON"),
    ],
)
def test_bad_paths_are_named(tmp_path, monkeypatch, path, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image.png").write_bytes(b"PNG")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "broken.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    with pytest.raises(UserError, match=message):
        load(DataConfig(path=path))


def test_hub_ids_are_told_from_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sources.is_hub_dataset("roneneldan/TinyStories")
    assert not sources.is_hub_dataset("data/stories.txt")
    (tmp_path / "data" / "stories").mkdir(parents=True)
    assert not sources.is_hub_dataset("data/stories")


def test_hub_datasets_are_streamed_up_to_the_limit(monkeypatch):
    datasets = pytest.importorskip("datasets")
    read = []

    def rows():
        for number in itertools.count():
            read.append(number)
            yield {"text": f"story {number:03}\n" * 100}

    def load_dataset(path, name, split, streaming):
        assert (path, name, split, streaming) == ("owner/stories", "small", "train", True)
        return datasets.IterableDataset.from_generator(rows)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    corpus = load(DataConfig(path="owner/stories", subset="small", max_bytes=20_000, validation_fraction=0.2))
    assert len(corpus.train) + len(corpus.validation) == 20
    assert len(read) < 5 * BLOCK_BYTES / 1_000


def test_hub_trouble_is_one_line(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def load_dataset(*_, **__):
        raise ValueError("Unknown split 'training'\nand more")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError, match="owner/stories cannot be read: Unknown split 'training'$"):
        load(DataConfig(path="owner/stories", split="training"))
