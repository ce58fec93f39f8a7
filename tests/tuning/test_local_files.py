"""Local files of a tuning recipe: every way to name them, and what `datasets` would misread."""

import gzip
import json
import os
from pathlib import Path

import pytest
from messages import refused

from training.stages.provenance import digest
from training.tuning.dataset_formats import UNPAIRED, convert_record
from training.tuning.pipeline import local_files
from training.tuning.pipeline.local_files import data_files, digest_files, readable_files

RECORD = '{"prompt": "a", "completion": "b"}\n'


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for name in ("part1.jsonl", "part2.jsonl", "chat[v2].jsonl", "run [1]/a.jsonl"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(RECORD)
    return tmp_path


PARTS = ["part1.jsonl", "part2.jsonl"]


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ("part1.jsonl", {"train": PARTS[:1]}),
        (PARTS, {"train": PARTS}),
        ("part*.jsonl", {"train": PARTS}),
        ({"train": "part*.jsonl", "test": ["part1.jsonl"]}, {"train": PARTS, "test": PARTS[:1]}),
        ("chat[v2].jsonl", {"train": ["chat[v2].jsonl"]}),
        ("run [1]/a.jsonl", {"train": ["run [1]/a.jsonl"]}),
        ("**/a.jsonl", {"train": ["run [1]/a.jsonl"]}),
    ],
)
def test_every_way_to_name_files(place, named, found):
    entry = {"path": "json", "data_files": named}
    assert data_files(entry) == {split: list(map(Path, names)) for split, names in found.items()}
    assert set(digest_files([entry])) == {name for names in found.values() for name in names}


def test_names_are_relative_to_the_folder_of_an_entry(place):
    assert data_files({"path": "json", "data_dir": "run [1]", "data_files": "a.jsonl"}) == {
        "train": [Path("run [1]/a.jsonl")]
    }
    assert data_files({"path": "run [1]", "data_files": "*.jsonl"}) == {"train": [Path("run [1]/a.jsonl")]}
    assert digest_files([{"path": "run [1]"}]) == {"run [1]": digest("run [1]")}
    assert data_files({"path": "owner/name"}) == digest_files([{"path": "owner/name"}]) == {}


@pytest.mark.parametrize(
    ("named", "fact"),
    [("part9*.jsonl", "no file matches part9*.jsonl"), ("run [1]", "run [1]/*.jsonl"), ([3], "not 3"), ("no", "no")],
)
def test_names_without_a_file(place, named, fact):
    with refused("datasets.data_files", fact):
        digest_files([{"path": "json", "data_files": named}])


def read(path: str, file: str) -> list[dict]:
    from datasets import load_dataset

    files = readable_files({"path": path, "data_files": file})
    return load_dataset("json", data_files=files, split="train", cache_dir="read").to_list()


def test_a_pipe_is_no_file(place):
    os.mkfifo("pipe.jsonl")
    with refused("datasets.data_files", "pipe.jsonl: not a file"):
        readable_files({"path": "json", "data_files": "pipe.jsonl"})


def test_words_of_a_table_are_text(place):
    Path("a.csv").write_text("prompt,completion,label\nNA,007,true\nnull,1.50,False\n")
    rows = read("csv", "a.csv")
    assert rows[0] == {"prompt": "NA", "completion": "007", "label": "true"} and rows[1]["completion"] == "1.50"
    assert [convert_record(row, 1, UNPAIRED[0], "")["label"] for row in rows] == [True, False]


def test_a_compressed_file_is_read_as_it_is_now(place):
    """`datasets` would keep the content that a file of this name had before."""
    for prompt in ("old", "new"):
        Path("a.jsonl").write_bytes(gzip.compress(json.dumps({"prompt": prompt}).encode()))
        assert read("json", "a.jsonl") == [{"prompt": prompt}]


def test_a_copy_of_another_version_is_not_read(place, monkeypatch):
    Path("a.csv").write_text("prompt\nnew\n")
    names = []
    for version in (1, 2):
        monkeypatch.setattr(local_files, "CONVERSION", version)
        names += readable_files({"path": "csv", "data_files": "a.csv"})["train"]
    assert len(set(names)) == 2


@pytest.mark.parametrize(("content", "fact"), [("\n \n", "no records"), (RECORD + '{"a": "\\ud83e"}', "a.jsonl:2")])
def test_faults_name_key_and_place(place, content, fact):
    Path("a.jsonl").write_text(content)
    with refused("datasets.data_files", fact):
        readable_files({"path": "json", "data_files": "a.jsonl"})
