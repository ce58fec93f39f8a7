"""Files of records: one reader for all stages that need whole records, and the table of docs/data.md about it."""

import bz2
import gzip
import json
import lzma
import os
from pathlib import Path
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet
import pytest
from messages import refused
from terminal import ROOT

from training.common.errors import UserError
from training.corpus.curation.funnel import Funnel
from training.corpus.dedup.evaluation_items import read_items
from training.corpus.examples.labelled import LabelledConfig, read_labelled
from training.corpus.sources import SourceConfig, SourceReader
from training.corpus.sources.records import read_records
from training.eval.measures.records import read_questions

ROWS = [{"a": "é"}, {"a": [1]}, {"a": None}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
TABLE = "a,b\né,007\nNA,\n"
TABLE_ROWS = [{"a": "é", "b": "007"}, {"a": "NA", "b": ""}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES.encode()),
        ("a.jsonl", LINES.encode("utf-8-sig")),
        ("a.ndjson", LINES.encode("utf-16")),
        ("a.jsonl", gzip.compress(LINES.encode(), mtime=0)),
        ("a.jsonl.gz", gzip.compress(LINES.encode("utf-8-sig"), mtime=0)),
        ("a.jsonl.xz", lzma.compress(LINES.encode())),
        ("a.json", bz2.compress(LINES.encode())),
        ("a.jsonl", json.dumps(ROWS, indent=1).encode("utf-8-sig")),
        ("a.json", json.dumps(ROWS).encode()),
        ("a.json", LINES.encode()),
    ],
)
def test_records_are_read_however_they_are_stored(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert list(read_records(tmp_path / name)) == list(enumerate(ROWS, 1))


@pytest.mark.parametrize(
    ("name", "content", "table"),
    [
        ("a.csv", TABLE.encode(), False),
        ("a.csv.gz", gzip.compress(TABLE.encode("utf-16"), mtime=0), False),
        ("a.csv", TABLE.encode("latin-1"), False),
        ("a.tsv", TABLE.replace(",", "\t").encode(), True),
        ("a.txt", TABLE.encode(), True),
    ],
)
def test_tables_hold_text(tmp_path, name, content, table):
    (tmp_path / name).write_bytes(content)
    assert list(read_records(tmp_path / name, table)) == list(enumerate(TABLE_ROWS, 1))


def test_the_header_of_a_table_is_decoded_as_its_fields_are(tmp_path):
    (tmp_path / "a.csv").write_bytes("größe,b\nStraße,1\n".encode("cp1252"))
    assert list(read_records(tmp_path / "a.csv")) == [(1, {"größe": "Straße", "b": "1"})]
    reader = SourceReader(SourceConfig(path=str(tmp_path), text_column="größe"), "", Funnel())
    assert [document.text for document in reader] == ["Straße"]
    (tmp_path / "a.csv").write_bytes("b,imię\n1,2\n".encode("cp1250"))
    with refused(None, "a.csv:1:", "0xea"):
        list(read_records(tmp_path / "a.csv"))
    reader = SourceReader(SourceConfig(path=str(tmp_path), text_column="b"), "", Funnel())
    assert [document.text for document in reader] == ["1"]


def test_an_undecodable_field_is_located(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'b,c\n1,"2\n3"\n\n4,imi\xea\n')
    with refused(None, "a.csv:5:", "'c'", "0xea"):
        list(read_records(tmp_path / "a.csv"))


def test_rows_of_parquet(tmp_path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(TABLE_ROWS), tmp_path / "a.parquet")
    assert list(read_records(tmp_path / "a.parquet")) == list(enumerate(TABLE_ROWS, 1))


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        ('{"a": \n{"a": 1}', ":1: not valid JSON"),
        ('{"a": 1}\n\n{"a" 2}', ":3: not valid JSON"),
        ('[{"a": 1},\n{"a" 2}]', ":2: not valid JSON"),
        ("[" * 99_999, "nested too deeply"),
        ('{"a": 1}\n' + "[" * 99_999, ":2: not valid JSON"),
        ('{"a": ' + "9" * 5000 + "}", ":1: not valid JSON (a number too long"),
        ('{"a": 1}\n{"a": ["\\ud83e"]}', ":2: half of a surrogate pair (U+D83E)"),
        ('[{"a": 1}, {"\\uDC00": 1}]', ":2: half of a surrogate pair (U+DC00)"),
        (b'{"a": 1}\n{"a": "\xe9"}', ":2: not UTF-8 (byte 0xe9)"),
        ('{"a": "\0"}', ":1: not valid JSON"),
        ("3", ":1: a record must be a JSON object"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n", "Git LFS pointer"),
    ],
)
def test_what_is_wrong_is_located(tmp_path, content, facts):
    (tmp_path / "a.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    with refused(None, facts):
        list(read_records(tmp_path / "a.jsonl"))


def test_whole_surrogate_pairs_are_text(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": "\\ud83e\\udd14"}')
    assert list(read_records(tmp_path / "a.jsonl")) == [(1, {"a": "🤔"})]


def corpus(file: str) -> list[str]:
    counts = SimpleNamespace(drop=lambda reason, size: None)
    return [document.text for document in SourceReader(SourceConfig(path=file), "", counts)]


def tuning(file: str) -> list[dict]:
    from trl import DatasetMixtureConfig
    from trl.scripts.utils import DatasetConfig

    from training.tuning.pipeline.datasets import read_data

    path = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}.get(Path(file.removesuffix(".xz")).suffix, "json")
    script = SimpleNamespace(dataset_train_split="train")
    mixture = DatasetMixtureConfig([DatasetConfig(path, data_files={"train": [file]})])
    training = SimpleNamespace(eval_strategy="no")
    recipe = SimpleNamespace(script=script, datasets=mixture, training=training, where="sft.yaml")
    return list(read_data(recipe)["train"])


def labelled(file: str) -> list[str]:
    return read_labelled(LabelledConfig(file, file, file), 0)["train"].texts


READERS = {
    "`prepare`, `texts`": corpus,
    "`sft` to `rloo`": tuning,
    "`classify`": labelled,
    "`chats`, `pairs`": lambda file: read_questions(file, "chats.a"),
    "`decontamination`": lambda file: list(read_items(Path(file))),
}
RECORDS = [{"text": f"é {label}", "label": label, "question": "q", "answer": "a"} for label in ("x", "y")]
AS_LINES = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in RECORDS)
AS_TABLE = "".join(",".join(row) + "\n" for row in [RECORDS[0], *(record.values() for record in RECORDS)])
FAULT = '{"text": "\\ud83e", "label": "x", "question": "\\ud83e", "answer": "a"}\n' + 100 * AS_LINES
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n"
# Of each row of the table: the files, and what to open.
FILES = {
    "`.jsonl`": {"a.jsonl": AS_LINES, "a.ndjson": AS_LINES},
    "`.json`: a list": {"a.json": json.dumps(RECORDS, indent=1)},
    "`.json`: one": {"a.json": AS_LINES},
    "`.csv`": {"a.csv": AS_TABLE, "a.tsv": AS_TABLE.replace(",", "\t")},
    "`.parquet`": {"a.parquet": RECORDS},
    "JSON and CSV": {
        "a.jsonl": gzip.compress(AS_LINES.encode(), mtime=0),
        "a.csv.xz": lzma.compress(AS_TABLE.encode()),
    },
    "JSON with a byte-order": {"a.jsonl": AS_LINES.encode("utf-8-sig"), "b.jsonl": AS_LINES.encode("utf-16")},
    "CSV in": {"a.csv": AS_TABLE.encode("latin-1")},
    "square": {"chat[v2].jsonl": AS_LINES},
    "a pattern": {"part*.jsonl": AS_LINES},
    "plain text": {"a.txt": "some text\n"},
    "JSON lines with half": {"a.jsonl": FAULT},
    "a pointer": {"a.jsonl": POINTER, "a.parquet": POINTER},
}


def table_of_files() -> list[tuple[str, str, bool]]:
    """Row, column and answer of each cell of the table in docs/data.md."""
    section = (ROOT / "docs" / "data.md").read_text().partition("## Files of records")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "|" in line]
    header, _, *rows = rows
    return [(row[0], column, cell) for row in rows for column, cell in zip(header[1:], row[1:], strict=True)]


def write(folder: Path, name: str, content: str | bytes | list) -> None:
    if isinstance(content, list):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(content), folder / name)
    else:
        (folder / name.replace("*", "1")).write_bytes(content if isinstance(content, bytes) else content.encode())


def test_the_table_in_the_documentation(tmp_path, monkeypatch):
    """Each cell is tried: a stage reads the records, or rejects the file in one line."""
    monkeypatch.chdir(tmp_path)
    cells = table_of_files()
    assert len(cells) == len(FILES) * len(READERS)
    for row, column, says in cells:
        (files,) = (files for begin, files in FILES.items() if row.startswith(begin))
        for name, content in files.items():
            write(tmp_path, name, content)
            if says == "no":
                with refused(None):
                    READERS[column](name)
            else:
                assert READERS[column](name), (row, column)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"gone.jsonl: no such file"):
        list(read_records(tmp_path / "gone.jsonl"))


def test_what_is_not_a_whole_file(tmp_path):
    """A pipe would wait for ever, and /dev/zero never end."""
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    (tmp_path / "damaged.jsonl").write_bytes(gzip.compress(b'{"a": 1}\n' * 99)[:20] + b"x" * 99)
    for name in ("pipe", "zero", "damaged"):
        with pytest.raises(UserError, match=f"{name}.jsonl"):
            list(read_records(tmp_path / f"{name}.jsonl"))
