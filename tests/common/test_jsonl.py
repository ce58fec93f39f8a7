"""Records of JSON files as people have them."""

import gzip
import json
import os

import pytest

from training.common.errors import UserError
from training.common.jsonl import read_records

ROWS = [{"a": "é"}, {"a": [1]}, {"a": None}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES.encode()),
        ("a.jsonl", LINES.encode("utf-8-sig")),
        ("a.jsonl", gzip.compress(LINES.encode())),
        ("a.jsonl.gz", gzip.compress(LINES.encode("utf-8-sig"))),
        ("a.jsonl", json.dumps(ROWS, indent=1).encode("utf-8-sig")),
        ("a.json", json.dumps(ROWS).encode()),
        ("a.json", LINES.encode()),
    ],
    ids=["lines", "BOM", "gzip by content", "gzip with BOM", "list in lines", "list", "lines in a list"],
)
def test_records_are_read_however_they_are_stored(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert list(read_records(tmp_path / name)) == list(enumerate(ROWS, 1))


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        ('{"a": \n{"a": 1}', ":1: not valid JSON"),
        ('{"a": 1}\n\n{"a" 2}', ":3: not valid JSON"),
        ("[" * 99_999, "nested too deeply"),
        ('{"a": 1}\n' + "[" * 99_999, ":2: not valid JSON"),
        ("3", ":1: a record must be a JSON object"),
        ("{}\n" + '{"a": ' + "1" * 5000 + "}", ":2: not valid JSON"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n", "Git LFS pointer"),
    ],
)
def test_what_is_wrong_is_located(tmp_path, content, facts):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(UserError, match=facts):
        list(read_records(tmp_path / "a.jsonl"))


def test_what_is_not_a_whole_file(tmp_path):
    """A pipe would wait for ever, and /dev/zero never end."""
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    (tmp_path / "damaged.jsonl").write_bytes(gzip.compress(b'{"a": 1}\n' * 99)[:20] + b"x" * 99)
    for name in ("pipe", "zero", "damaged", "gone"):
        with pytest.raises(UserError, match=f"{name}.jsonl"):
            list(read_records(tmp_path / f"{name}.jsonl"))
