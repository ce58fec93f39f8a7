"""Readers by format: tables strictly as text, JSON lists, compression told by content, pointers of Git LFS."""

import csv
import gzip
import io
import json

import pytest

from training.common.errors import UserError
from training.corpus.curation.funnel import Funnel
from training.corpus.sources import Position, SourceConfig, SourceReader


def read(path, start: Position = Position(), **options):
    funnel = Funnel()
    documents = list(SourceReader(SourceConfig(path=str(path), **options), "", funnel, start))
    return documents, {reason: row["documents"] for reason, row in funnel.dropped.items()}


def texts(path, **options) -> list[str]:
    return [document.text for document in read(path, **options)[0]]


SWALLOWED = ['"WIN now', "two", "three", 'a 5" pipe']  # as the quoting of CSV has it, one field of four lines


@pytest.mark.parametrize("others", [[], ['"so what" she said'], ['"'], ['""'], ['"never closed']])
def test_a_quote_in_a_tsv_does_not_swallow_rows(tmp_path, others):
    expected = [f"message {number}" for number in range(9)] + SWALLOWED + others + ["last"]
    lines = [f"{'spam' if number % 2 else 'ham'}\t{text}\n" for number, text in enumerate(expected)]
    (tmp_path / "a.tsv").write_text("label\ttext\n" + "".join(lines))
    found, dropped = read(tmp_path / "a.tsv")
    assert len(found) == len(expected) - others.count('""') and sum(dropped.values()) == others.count('""')
    assert [document.text for document in found][:13] == expected[:13] and found[-1].text == "last"
    assert found[-1].id == f"a.tsv:{len(expected) + 1}"


def test_quoted_fields_of_a_tsv_are_one_text(tmp_path):
    rows = [["n", "text"], [1, "two\nlines"], [2, 'a\ttab and "quotes"'], [3, 'a\t"b"\nand c\td'], [4, "d"]]
    buffer = io.StringIO()
    csv.writer(buffer, delimiter="\t").writerows(rows)
    (tmp_path / "a.tsv").write_text(buffer.getvalue(), newline="")
    assert texts(tmp_path / "a.tsv") == [text for _, text in rows[1:]]


def test_a_broken_quote_in_a_csv_breaks_its_row_alone(tmp_path):
    (tmp_path / "a.csv").write_text('n,text\n1,"open\n2,two\n3,three\n4,"four" more\n5,five\n')
    found, dropped = read(tmp_path / "a.csv", max_broken=1)
    assert [document.text for document in found] == ["two", "three", "five"] and dropped == {"broken record": 2}


def test_a_broken_quote_breaks_its_row_alone_beside_other_broken_rows(tmp_path):
    rows = [f"{number},text {number}" for number in range(1000)]
    rows[10], rows[500] = '10,"open', "500"
    (tmp_path / "a.csv").write_text("\n".join(["n,text", *rows]) + "\n")
    found, dropped = read(tmp_path / "a.csv")
    assert len(found) == 998 and dropped == {"broken record": 2}


@pytest.mark.parametrize("row_bytes", [1_000_000, 2_000])  # the row is parsed, or skipped
@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_a_long_text_of_many_lines_is_one_record(tmp_path, monkeypatch, delimiter, row_bytes):
    monkeypatch.setattr("training.corpus.sources.records.ROW_BYTES", row_bytes)
    file = tmp_path / ("a.csv" if delimiter == "," else "a.tsv")
    long, characters = 'A line of "prose", with commas, and more.\n' * 200, "é" * 600
    rows = [["n", "text"], [1, "before"], [2, long], [3, "between"], [4, characters], [5, "after"]]
    with file.open("w", newline="") as stream:
        csv.writer(stream, delimiter=delimiter).writerows(rows)
    found, dropped = read(file, max_document_bytes=1_000)
    assert [document.text for document in found] == ["before", "between", "after"] and dropped == {"too large": 2}
    assert [document.id for document in found] == [f"{file.name}:{line}" for line in (2, 204, 206)]


def test_tables_hold_text(tmp_path):
    words = ["NA", "null", "None", "nan", "007", "1e3", "2024-01-01", "true"]
    for name, delimiter in {"a.csv": ",", "a.tsv": "\t"}.items():
        (tmp_path / name).write_text("\n".join(["n" + delimiter + "text", *(f"1{delimiter}{word}" for word in words)]))
        assert texts(tmp_path / name) == words


@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_list_is_read_element_by_element(tmp_path, monkeypatch, indent):
    monkeypatch.setattr("training.corpus.sources.records.CHUNK", 50)
    rows = [{"text": f'"story" {number}, é 🦊', "tags": [[1], {}]} for number in range(40)] + [3, {"text": None}]
    (tmp_path / "a.json").write_text("\n " + json.dumps(rows, indent=indent, ensure_ascii=False) + "\n")
    found, dropped = read(tmp_path / "a.json", max_broken=0.5)
    assert [document.text for document in found] == [row["text"] for row in rows[:40]]
    assert dropped == {"broken record": 1, "empty": 1}
    start = Position(last=found[9].id, records=10)
    assert read(tmp_path / "a.json", start, max_broken=0.5)[0] == found[10:]
    (tmp_path / "a.json").write_text(json.dumps(rows)[:900])
    with pytest.raises(UserError, match=r"a.json: damaged \(a JSON list that is not valid"):
        texts(tmp_path / "a.json")


@pytest.mark.parametrize("content", ["[]", " [\n ]\n"])
def test_an_empty_json_list_has_no_records(tmp_path, content):
    (tmp_path / "a.jsonl").write_text(content)
    assert read(tmp_path / "a.jsonl") == ([], {})


def test_text_after_a_json_list_is_reported(tmp_path):
    (tmp_path / "a.jsonl").write_text('[{"text": "a"}]\n[{"text": "b"}]\n')
    with pytest.raises(UserError, match=r"a.jsonl: damaged \(more text after a JSON list"):
        texts(tmp_path / "a.jsonl")


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.csv", "a.jsonl.gz"])
def test_compression_is_told_by_the_content(tmp_path, name):
    content = {"a.txt": "hello", "a.csv": "text\nhello\n"}.get(name, '{"text": "hello"}\n')
    (tmp_path / name).write_bytes(gzip.compress(content.encode()))
    assert texts(tmp_path / name) == ["hello"]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet", "a.arrow"])
def test_pointers_of_git_lfs_are_not_data(tmp_path, name):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(UserError, match=f"{name} is a Git LFS pointer, not the data; run `git lfs pull`"):
        texts(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        ("naïve café\n".encode() * 9 + b"\xff", ("byte 118, 0xff, is not UTF-8", "line 10", "1 in all", "118 bytes")),
        (b"some text\0and\0more" + b" text" * 20, ("a NUL at byte 10", "line 1", "2 in all", "118 bytes")),
    ],
)
def test_a_flaw_that_costs_a_file_is_located_and_can_be_replaced(tmp_path, capsys, content, facts):
    (tmp_path / "a.txt").write_bytes(content)
    assert read(tmp_path / "a.txt")[0] == []
    said = capsys.readouterr().err
    assert all(fact in said for fact in ("a.txt", "'data.invalid_bytes'", *facts))
    (document,) = read(tmp_path / "a.txt", invalid_bytes="replace")[0]
    assert document.text == content.decode(errors="replace").replace("\0", "\ufffd")


def test_a_byte_that_is_not_of_the_named_encoding(tmp_path, capsys):
    (tmp_path / "a.txt").write_bytes("Żółć".encode("cp1250") + b"\n\x81")
    assert read(tmp_path / "a.txt", encoding="cp1250")[0] == []
    assert "byte 6, 0x81, is not CP1250 (line 2, 1 in all)" in capsys.readouterr().err
    assert read(tmp_path / "a.txt", encoding="cp1250", invalid_bytes="replace")[0][0].text == "Żółć\n\ufffd"


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.html"])
def test_invalid_bytes_are_replaced_in_every_format(tmp_path, name):
    content = {"a.csv": b"text\nna\xc3\xafve \xff\n", "a.html": b"<p>na\xc3\xafve \xff"}
    record = b'{"text": "na\xc3\xafve \xff"}\n'
    (tmp_path / name).write_bytes(content.get(name, b"[" + record + b"]" if name == "a.json" else record))
    assert [text.strip() for text in texts(tmp_path / name, invalid_bytes="replace")] == ["naïve \ufffd"]


@pytest.mark.parametrize(
    ("line", "pieces"),
    [
        ("one two three four five ", ["one two ", "three ", "four five "]),
        ("acgt" * 5, ["acgtacgtac", "gtacgtacgt"]),
        ("ääääääää", ["äääää", "äää"]),
        ("𝄞𝄞𝄞", ["𝄞𝄞", "𝄞"]),
        ("one\ntwo three four\nfive", ["one\n", "two three ", "four\nfive"]),
    ],
)
def test_long_lines_are_cut_at_spaces_or_between_characters(tmp_path, line, pieces):
    (tmp_path / "a.txt").write_text(line)
    assert texts(tmp_path / "a.txt", max_document_bytes=10) == pieces


def test_long_lines_are_cut_at_separators(tmp_path):
    stories = ["a" * 50, "b c " * 10, "d" * 60]
    (tmp_path / "a.txt").write_text("<|endoftext|>".join(stories))
    assert texts(tmp_path / "a.txt", max_document_bytes=100) == stories


def test_long_texts_are_cut_between_paragraphs(tmp_path):
    paragraphs = [f"Paragraph {number} goes\non for some lines.\n\n" for number in range(40)]
    (tmp_path / "a.txt").write_text("".join(paragraphs))
    pieces = texts(tmp_path / "a.txt", max_document_bytes=200)
    assert "".join(pieces) == "".join(paragraphs) and len(pieces) > 5
    assert all(piece.endswith("\n\n") and len(piece) <= 200 for piece in pieces)
