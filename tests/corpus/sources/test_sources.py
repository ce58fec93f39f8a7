import bz2
import codecs
import csv
import dataclasses
import gzip
import io
import itertools
import json
import lzma
import os
import struct
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from messages import refused

from training.common.errors import UserError
from training.corpus.curation.fingerprint import check_distinct, source_digest
from training.corpus.curation.funnel import Funnel
from training.corpus.sources import Position, SourceConfig, SourceReader
from training.corpus.sources import hub as hub_module
from training.corpus.sources import streams as streams_module
from training.stages.recipe import build

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

KINDS = ["txt", "jsonl", "csv", "tsv", "parquet", "arrow", "arrows", "jsonl.gz", "csv.zst", "txt.xz", "jsonl.bz2"]


def compress(data: bytes, ending: str) -> bytes:
    if ending == "zst":
        sink = pyarrow.BufferOutputStream()
        with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(data)
        return sink.getvalue().to_pybytes()
    return {"gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress}[ending](data)


def write(file: Path, texts: list[str | None], column: str = "text") -> Path:
    """The texts as a file of the kind that its ending says, through writers that are not ours."""
    kind, _, ending = file.name.partition(".")[2].partition(".")
    table = pyarrow.table({"n": range(len(texts)), column: pyarrow.array(texts, pyarrow.string())})
    if kind == "parquet":
        parquet.write_table(table, file, row_group_size=3)
    elif kind in ("arrow", "arrows"):  # file and stream share an ending
        file = file.with_suffix(".arrow")
        writer = pyarrow.ipc.new_file if kind == "arrow" else pyarrow.ipc.new_stream
        with pyarrow.OSFile(str(file), "wb") as sink, writer(sink, table.schema) as stream:
            stream.write_table(table, max_chunksize=3)
    else:
        if kind in ("csv", "tsv"):
            buffer = io.StringIO()
            rows = csv.writer(buffer, delimiter=",\t"[kind == "tsv"])
            rows.writerows([["n", column], *enumerate(text or "" for text in texts)])
            data = buffer.getvalue().encode()
        elif kind == "jsonl":
            data = "".join(json.dumps({"n": n, column: text}) + "\n" for n, text in enumerate(texts)).encode()
        else:
            data = "<|endoftext|>".join(text or "" for text in texts).encode()
        file.write_bytes(compress(data, ending) if ending else data)
    return file


def read(path, start: Position = Position(), name: str = "", **options):
    funnel = Funnel()
    reader = SourceReader(SourceConfig(path=str(path), **options), name, funnel, start)
    return list(reader), funnel, reader


def outcomes(funnel: Funnel) -> dict[str, int]:
    return {reason: row["documents"] for reason, row in funnel.dropped.items()}


def check_resumes(config: SourceConfig) -> int:
    """From every position on, the rest of the documents and of the funnel is what a whole reading has there."""
    funnel = Funnel()
    reader = SourceReader(config, "mine", funnel)
    documents, places = [], [(Position(), Funnel().as_dict()["dropped"])]
    for document in reader:
        documents.append(document)
        places.append((reader.position, json.loads(json.dumps(funnel.as_dict()["dropped"]))))
    for number, (position, before) in enumerate(places):
        stored = Position(**json.loads(json.dumps(dataclasses.asdict(position))))
        rest = Funnel()
        resumed = SourceReader(config, "mine", rest, stored)
        assert list(resumed) == documents[number:]
        assert dataclasses.replace(resumed.position, stream=reader.position.stream) == reader.position
        for reason, row in funnel.dropped.items():
            for unit in ("documents", "bytes"):
                first, second = (part.get(reason, {}).get(unit, 0) for part in (before, rest.dropped))
                assert first + second == row[unit]
    assert len({document.id for document in documents}) == len(documents)
    return len(documents)


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_texts(tmp_path, kind):
    texts = [f'story "{number}", é\nwith\ttwo lines' for number in range(10)]
    documents, funnel, reader = read(write(tmp_path / f"a.{kind}", texts, "story"), text_column="story")
    assert [document.text for document in documents] == texts
    assert not funnel.dropped


TEXTS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\r\0", exclude_categories=("Cc",)), max_size=20)
    | st.sampled_from(["", " ", "two\nlines"]),
    max_size=12,
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=TEXTS)
def test_a_reading_goes_on_from_any_document(tmp_path, kind, texts):
    file = write(tmp_path / f"a.{kind}", texts)
    check_resumes(SourceConfig(path=str(file)))


def test_a_folder_of_everything_goes_on_from_any_document(tmp_path):
    for kind in KINDS:
        folder = tmp_path / "all" / kind.replace(".", "-")
        folder.mkdir(parents=True)
        write(folder / f"a.{kind}", [f"{kind} {number}" * (number % 4) for number in range(9)])
    (tmp_path / "all" / "broken.jsonl").write_text('{"text": "a"}\n{"text": 3}\n\n[]\n{"text": "b"}\n{"te\n')
    (tmp_path / "all" / "binary.txt").write_bytes(bytes(range(256)) * 9)
    (tmp_path / "all" / "old.md").write_bytes("Der Fluß führt über die Höhe, grüne Bäume. ".encode("cp1252") * 9)
    (tmp_path / "all" / "empty.txt").touch()
    pytest.importorskip("resiliparse")
    assert check_resumes(SourceConfig(path=str(tmp_path / "all"), max_broken=0.5)) > 60


def test_python_source_goes_on_from_any_document(tmp_path, monkeypatch):
    for number in range(6):
        (tmp_path / f"m{number}.py").write_text(f"x = {number}\n" * (number % 3))
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    assert check_resumes(SourceConfig()) == 8  # each of four as standard library and as package


def test_order_is_that_of_the_paths_and_not_of_the_file_system(tmp_path, monkeypatch):
    for name in ("b/2.txt", "a/10.txt", "a/9.txt", "B.txt", "a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    names = [document.id for document in read(tmp_path)[0]]
    assert names == ["B.txt", "a/10.txt", "a/9.txt", "a.txt", "b/2.txt"]
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda *_, **__: ((a, b[::-1], c[::-1]) for a, b, c in list(walk(tmp_path))[::-1]))
    assert [document.id for document in read(tmp_path)[0]] == names
    assert [document.id for document in read(tmp_path / "**" / "*.txt")[0]] == names
    assert [document.id for document in read(tmp_path, name="mine")[0]] == [f"mine/{name}" for name in names]


def test_globs_tell_files_of_one_name_apart(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "part.jsonl", [folder])
    documents = read(tmp_path / "*" / "part.jsonl")[0]
    assert [(document.id, document.group) for document in documents] == [
        ("a/part.jsonl:1", "a"),
        ("b/part.jsonl:1", "b"),
    ]


def test_json_is_lines_where_it_is_named(tmp_path):
    """Below a folder it is more often about the data."""
    (tmp_path / "notes.json").write_text('{"about": "the data"}')
    write(tmp_path / "a.jsonl.gz", ["text"]).rename(tmp_path / "c4.json.gz")
    assert [document.text for document in read(tmp_path / "*.json.gz")[0]] == ["text"]
    assert [document.text for document in read(tmp_path / "c4.json.gz")[0]] == ["text"]
    with pytest.raises(UserError, match=r"no file of a supported type: .*\.txt"):
        read(tmp_path)


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "arrow"])
def test_nested_columns(tmp_path, kind):
    rows = [{"doc": {"body": "inside"}, "text": "outside"}]
    file = tmp_path / f"a.{kind}"
    if kind == "jsonl":
        file.write_text(json.dumps(rows[0]))
    elif kind == "parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    else:
        table = pyarrow.Table.from_pylist(rows)
        with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as stream:
            stream.write_table(table)
    assert [document.text for document in read(file, text_column="doc.body")[0]] == ["inside"]
    with pytest.raises(UserError, match="no column 'doc.boddy'; did you mean 'doc.body'"):
        read(file, text_column="doc.boddy")
    with pytest.raises(UserError, match="'doc' holds"):
        read(file, text_column="doc")


def test_folders_of_save_to_disk(tmp_path):
    datasets = pytest.importorskip("datasets")
    splits = {
        name: datasets.Dataset.from_dict({"text": [f"{name} {n}" for n in range(5)]}) for name in ("train", "test")
    }
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved", num_shards={"train": 2, "test": 1})
    write(tmp_path / "saved" / "train" / "cache-1f.arrow", ["train 0"])
    documents = read(tmp_path / "saved")[0]
    assert [document.text for document in documents] == [f"train {number}" for number in range(5)]
    assert read(tmp_path / "saved", split="test")[0][0].text == "test 0"
    with pytest.raises(UserError, match="'data.split'.* no split 'tset'; did you mean 'test'"):
        read(tmp_path / "saved", split="tset")
    for damage in ('{"a":' * 5000, '{"splits": 1}', "x"):
        (tmp_path / "saved" / "dataset_dict.json").write_text(damage)
        with pytest.raises(UserError, match="'data.path': .*saved: damaged; write it again with save_to_disk"):
            read(tmp_path / "saved")


def test_standard_input_is_json_lines_or_text(monkeypatch):
    def pipe(data):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))
        return read("-")[0]

    assert [document.text for document in pipe(b'\n{"text": "a"}\n{"text": "b"}\n')] == ["a", "b"]
    assert [document.text for document in pipe(b'[\n {"text": "a"}, {"text": "b"}]')] == ["a", "b"]
    assert [document.text for document in pipe(b"[1] one<|endoftext|>two")] == ["[1] one", "two"]
    assert pipe(b"[ ]\n") == []
    assert [document.text for document in pipe("é".encode("utf-16"))] == ["é"]


def test_html_gives_its_main_text(tmp_path):
    pytest.importorskip("resiliparse")
    paragraphs = "".join(
        f"<p>Paragraph {number} tells of a fox &amp; a café at some length.</p>" for number in range(9)
    )
    page = (
        "<html><head><meta charset='{}'><title>T</title><script>var x = 1</script></head><body><nav><a href='/'>Home"
        f"</a></nav><main><h1>The fox</h1>{paragraphs}</main><footer>Imprint</footer></body></html>"
    )
    (tmp_path / "a.html").write_bytes(page.format("utf-8").encode())
    (tmp_path / "b.htm").write_bytes(page.format("iso-8859-1").encode("iso-8859-1"))
    (tmp_path / "deep.html").write_text("<div>" * 200_000 + "hello")  # would end the process in the parser
    documents, funnel, reader = read(tmp_path, max_broken=0.4)
    assert len(documents) == 2 and documents[0].text == documents[1].text
    assert "The fox" in documents[0].text and "Paragraph 8 tells of a fox & a café" in documents[0].text
    assert not any(word in documents[0].text for word in ("Home", "Imprint", "var x"))
    assert outcomes(funnel) == {"broken record": 1}


def test_long_text_files_are_cut_at_line_ends(tmp_path):
    lines = [f"line {number}\n" for number in range(50)]
    (tmp_path / "a.md").write_text("".join(lines))
    documents, funnel, _ = read(tmp_path / "a.md", max_document_bytes=64)
    assert len(documents) > 1 and "".join(document.text for document in documents) == "".join(lines)
    assert all(document.size <= 64 and document.text.endswith("\n") for document in documents)
    assert not funnel.dropped
    assert check_resumes(SourceConfig(path=str(tmp_path / "a.md"), max_document_bytes=64)) == len(documents)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "arrow"])
def test_records_that_are_too_large_are_counted(tmp_path, kind):
    file = write(tmp_path / f"a.{kind}", ["before", "x" * 5000, "after"])
    documents, funnel, _ = read(file, max_document_bytes=1000)
    assert outcomes(funnel) == {"too large": 1}
    assert funnel.dropped["too large"]["bytes"] >= 5000
    assert [document.text for document in documents] == ["before", "after"]


@pytest.mark.parametrize("kind", ["jsonl", "txt", "csv"])
def test_a_giant_line_is_not_held_in_memory(tmp_path, kind):
    file = tmp_path / f"a.{kind}.gz"
    header, begin, end = {"jsonl": ("", '{"text": "', '"}'), "csv": ("text\n", "", ""), "txt": ("", "", "")}[kind]
    with gzip.open(file, "wt", compresslevel=1) as stream:
        stream.write(f"{header}{begin}short{end}\n{begin}")
        for number in range(100):
            stream.write(f"{number:08}" * 125_000)
        stream.write(f"{end}\n{begin}last{end}\n")
    funnel = Funnel()
    tracemalloc.start()
    reader = SourceReader(SourceConfig(path=str(file), max_document_bytes=1_000_000), "", funnel)
    read = [(document.text[:5].strip(), document.size) for document in reader]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000
    if kind == "txt":  # text is split
        assert not funnel.dropped and sum(size for _, size in read) == 100_000_012
        return
    assert outcomes(funnel) == {"too large": 1} and funnel.dropped["too large"]["bytes"] >= 100_000_000
    assert [text for text, _ in read] == ["short", "last"]


@pytest.mark.parametrize("ending", ["gz", "zst", "xz", "bz2"])
def test_decompression_bombs_stop_early(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(streams_module, "FREE_BYTES", 1_000_000)
    (tmp_path / f"bomb.txt.{ending}").write_bytes(compress(b"x" * 30_000_000, ending))
    with pytest.raises(UserError, match=f"bomb.txt.{ending}: damaged .*500 times its size.*remove it"):
        read(tmp_path)
    for number in range(20):
        (tmp_path / f"{number:02}.txt").write_text(f"text {number}")
    documents, funnel, reader = read(tmp_path, max_broken=0.05)
    assert len(documents) == 20 and outcomes(funnel) == {"damaged file": 1}
    assert reader.position.damaged == 1


def test_wrong_offsets_in_an_arrow_file_are_damage(tmp_path):
    """pyarrow follows them out of the file, which ends the process."""
    file = write(tmp_path / "a.arrow", ["one", "two", "three"])
    offsets = struct.pack("<4i", 0, 3, 6, 11)
    assert file.read_bytes().count(offsets) == 1
    for wrong in (struct.pack("<4i", 0, 3, 2**30, 2**30 + 5), struct.pack("<4i", 0, 3, -(2**30), 11)):
        (tmp_path / "b.arrow").write_bytes(file.read_bytes().replace(offsets, wrong))
        with pytest.raises(UserError, match="b.arrow: damaged .*; download it again"):
            read(tmp_path / "b.arrow")


@pytest.mark.parametrize("kind", ["jsonl.gz", "jsonl.zst", "jsonl.xz", "jsonl.bz2", "parquet", "arrow", "txt.gz"])
def test_damaged_files_are_named(tmp_path, kind, capsys):
    file = write(tmp_path / f"a.{kind}", [f"story {number} {'abcdefgh'[number % 8] * 99}" for number in range(2000)])
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=f"a.{kind}: damaged .*; download it again") as caught:
        read(file)
    assert "\n" not in str(caught.value)
    documents, funnel, _ = read(file, max_broken=1)
    assert outcomes(funnel).get("damaged file") == 1
    assert "the rest of it is skipped" in capsys.readouterr().err


def test_broken_records_are_shown_counted_and_limited(tmp_path, capsys):
    good = [json.dumps({"text": f"story {number}"}) for number in range(2000)]
    broken = ['{"text": ', '{"text": 3}', '"text"', '{"txet": "a"}', '{"text": "\\ud83e"}', "[" * 99_999, "{}"]
    lines = good[:500] + broken + good[500:]
    file = tmp_path / "a.jsonl"
    file.write_bytes("\n".join(lines).encode() + b'\n{"text": "\xff"}\n')
    documents, funnel, reader = read(file)
    assert len(documents) == 2000 and outcomes(funnel) == {"broken record": 8}
    assert funnel.dropped["broken record"]["bytes"] == sum(len(line) + 1 for line in broken) + 14
    shown = capsys.readouterr().err
    assert f"{file}:501: not valid JSON" in shown and f"{file}:503: a record is an object" in shown
    assert "half of a surrogate pair" in shown and shown.count("skipped") == 5 and "only counted" in shown
    assert documents[-1].id == "a.jsonl:2007"  # its line
    with pytest.raises(
        UserError, match=r"'data.max_broken': 8 of 2,008 records.*0.10%; such as .*a.jsonl:501: not val"
    ):
        read(file, max_broken=0.001)
    with pytest.raises(UserError, match="1 of 501 records"):
        read(file, max_broken=0)
    file.write_text("\n".join([*good[:20], *['{"text"'] * 1000, *good]))
    with pytest.raises(UserError, match="11 of 31 records"):  # long before its end
        read(file)


def test_rows_of_csv_have_as_many_fields_as_the_header(tmp_path):
    (tmp_path / "a.csv").write_text('id,text\n1,a\n2\n3,"b\nc"\n4,d,e\n5,"f" g\n6,h\n7,"never closed\n')
    documents, funnel, _ = read(tmp_path / "a.csv", max_broken=0.9)
    assert [(document.id, document.text) for document in documents] == [
        ("a.csv:2", "a"),
        ("a.csv:4", "b\nc"),
        ("a.csv:8", "h"),
    ]
    assert outcomes(funnel) == {"broken record": 4}


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "arrow"])
def test_a_missing_column_names_the_nearest(tmp_path, kind):
    with pytest.raises(UserError, match=r"'data.text_column': .*no column 'text'; did you mean 'texts'"):
        read(write(tmp_path / f"a.{kind}", ["a"], "texts"))


def test_long_names_of_columns_are_cut(tmp_path):
    with pytest.raises(UserError, match=r"'data.text_column': .*no column 'text'; known: n, q+ \.\.\. q+$") as caught:
        read(write(tmp_path / "a.csv", ["a"], "q" * 50_000))
    assert len(str(caught.value)) < 5000


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_column_of_numbers_is_no_text(tmp_path, kind):
    with pytest.raises(UserError, match="'n' holds int64, not text"):
        read(write(tmp_path / f"a.{kind}", ["a"]), text_column="n")


SAMPLES = {
    "cp1252": "“Der Fluß führt über die Höhe”, und die Bäume grünen schön – Übermut tut selten gut. ",
    "cp1251": "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему. ",
    "koi8-r": "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему. ",
    "gb18030": "学而时习之，不亦说乎？有朋自远方来，不亦乐乎？人不知而不愠，不亦君子乎？",
    "shift_jis": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。",
    "big5": "學而時習之，不亦說乎？有朋自遠方來，不亦樂乎？人不知而不慍，不亦君子乎？",
}


@pytest.mark.parametrize("kind", ["txt", "tsv"])
def test_other_encodings_are_decoded_and_counted(tmp_path, kind):
    pytest.importorskip("resiliparse")
    for name, text in SAMPLES.items():
        (tmp_path / f"{name}.{kind}").write_bytes(("text\n" * (kind == "tsv") + text).encode(name))
    documents, funnel, reader = read(tmp_path)
    assert [document.text for document in documents] == [SAMPLES[name] for name in sorted(SAMPLES)]
    assert sum(reader.position.encodings.values()) == len(SAMPLES) and "cp1251" in reader.position.encodings
    documents, funnel, _ = read(tmp_path, encoding="utf-8")
    assert not documents and outcomes(funnel) == {"undecodable": len(SAMPLES)}
    assert read(tmp_path / f"cp1251.{kind}", encoding="cp1251")[0][0].text == SAMPLES["cp1251"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-be"])
@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv", "md.gz"])
def test_byte_order_marks_tell_the_encoding(tmp_path, kind, encoding):
    file = tmp_path / f"a.{kind}"
    text = {"jsonl": '{"text": "naïve 狐 🦊"}', "csv": "text\nnaïve 狐 🦊"}.get(kind, "naïve 狐 🦊")
    data = (codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b"") + text.encode(encoding)
    file.write_bytes(gzip.compress(data) if kind.endswith("gz") else data)
    documents, _, reader = read(file)
    assert [document.text for document in documents] == ["naïve 狐 🦊"]
    name = encoding.removesuffix("-sig").removesuffix("-be")
    assert reader.position.encodings == ({} if name == "utf-8" else {name: 1})


def test_damaged_utf8_is_not_read_as_something_else(tmp_path):
    pytest.importorskip("resiliparse")
    (tmp_path / "cut.txt").write_bytes("Der Fluß führt über die Höhe".encode() + b"\xc3")
    (tmp_path / "two.txt").write_bytes(b"plain caf\xe9 and more text " + "é".encode())  # of two encodings
    assert outcomes(read(tmp_path)[1]) == {"undecodable": 2}


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    for name in ("resiliparse.parse.encoding", "resiliparse.extract.html2text"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "a.txt").write_bytes(SAMPLES["cp1251"].encode("cp1251"))
    (tmp_path / "b.html").write_text("<p>hello")
    for name in ("a.txt", "b.html"):
        with pytest.raises(UserError, match=r'pip install -e "\.\[data\]"'):
            read(tmp_path / name)


def test_binary_files_and_empty_ones_are_counted(tmp_path):
    (tmp_path / "nul.txt").write_bytes(b"text with a \0 in it")
    (tmp_path / "control.md").write_bytes(b"\1\2\3\4 some text that goes on a little")
    (tmp_path / "colour.txt").write_bytes(b"\x1b[31mred\x1b[0m\tand\x0cfine")
    (tmp_path / "blank.txt").write_text(" \n")
    for name in ("a.txt", "b.jsonl", "c.csv", "d.parquet", "e.arrow", "f.html", "g.txt.gz"):
        (tmp_path / name).touch()
    documents, funnel, _ = read(tmp_path)
    assert [document.id for document in documents] == ["colour.txt"]
    assert outcomes(funnel) == {"binary": 2, "empty": 8}


def test_files_that_vanish_are_named(tmp_path):
    for name in ("a.txt", "b.jsonl", "c.parquet", "d.arrow", "e.txt.gz"):
        write(tmp_path / name, ["text"])
    for name in ("b.jsonl", "c.parquet", "d.arrow", "e.txt.gz"):
        reader = SourceReader(SourceConfig(path=str(tmp_path)), "", Funnel())
        kept = next(reader), (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()
        with pytest.raises(UserError, match=f"{name} was deleted after"):
            list(reader)
        (tmp_path / name).write_bytes(kept[1])


@pytest.mark.parametrize("kind", ["txt", "jsonl.gz", "parquet", "arrow"])
def test_files_that_may_not_be_read_are_named(tmp_path, monkeypatch, kind):
    file = write(tmp_path / f"a.{kind}", ["text"])
    if os.geteuid():
        file.chmod(0)
    else:  # who may read everything
        denied = PermissionError(13, "Permission denied", str(file))

        def refuse(*_, **__):
            raise denied

        monkeypatch.setattr(Path, "open", refuse)
        monkeypatch.setattr(pyarrow, "memory_map", refuse)
        monkeypatch.setattr("pyarrow.parquet.ParquetFile", refuse)
    with pytest.raises(UserError, match=f"a.{kind} cannot be read \\(Permission denied\\)"):
        read(file)


def test_folders_that_may_not_be_listed_are_named(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("a")
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    (tmp_path / "closed").mkdir()
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="closed cannot be listed"):
        read(tmp_path)


def test_the_same_file_is_read_once(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "b.txt").symlink_to(tmp_path / "a.txt")
    documents, funnel, _ = read(tmp_path)
    assert [document.id for document in documents] == ["a.txt"]
    assert funnel.dropped == {"same file twice": {"documents": 1, "bytes": 5, "step": "rules"}}
    assert "b.txt: the same file as a.txt" in capsys.readouterr().err
    one, other = SourceConfig(path=str(tmp_path / "a.txt")), SourceConfig(path=str(tmp_path / "*.txt"))
    with pytest.raises(UserError, match="'data.all.path': .*.txt is read by 'data.one' already"):
        check_distinct({"data.one": one, "data.all": other})
    with pytest.raises(UserError, match="'data.b.path': python is read by 'data.a' already"):
        check_distinct({"data.a": SourceConfig(), "data.b": SourceConfig()})
    check_distinct({"data.a": SourceConfig(path="o/n"), "data.b": SourceConfig(path="o/n", subset="other")})


def test_a_position_of_other_files_is_refused(tmp_path):
    write(tmp_path / "a.jsonl", ["a", "b"])
    _, _, reader = read(tmp_path)
    (tmp_path / "a.jsonl").rename(tmp_path / "b.jsonl")
    with pytest.raises(UserError, match="a.jsonl, where reading stopped, is missing"):
        read(tmp_path, start=reader.position)


def test_digests_follow_contents_names_and_subsets(tmp_path):
    file = write(tmp_path / "a.jsonl", ["a"])
    digests = {source_digest(SourceConfig(path=str(file)))}
    assert digests == {source_digest(SourceConfig(path=str(file)))}
    write(file, ["b"])
    digests |= {source_digest(config) for config in (SourceConfig(path=str(file)), SourceConfig())}
    digests |= {source_digest(SourceConfig(path="o/n", subset=subset)) for subset in (None, "x")}
    digests |= {source_digest(SourceConfig(path="-")) for _ in range(2)}
    assert len(digests) == 7


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"max_documents": 0}, ("at least 1", "0")),
        ({"weight": -1.0}, ("above 0", "-1.0")),
        ({"max_epochs": "nan"}, ("above 0", "nan")),
        ({"max_broken": 2.0}, ("at least 0, at most 1", "2.0")),
        ({"encoding": "utf-9"}, ("'utf-9'",)),
        ({"encoding": "rot13"}, ("'rot13'",)),
        ({"text_colum": "a"}, ("unknown key 'text_colum'; did you mean 'text_column'",)),
        ({"path": "-", "mine_beyond_limits": True}, ("standard input",)),
    ],
)
def test_options_are_checked(options, facts):
    with refused([*options][-1], *facts):
        build(SourceConfig, options, "recipe.yaml")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A dataset of four shards in a folder, as `owner/stories`, whose bytes come through a connection that fails."""
    datasets = pytest.importorskip("datasets")
    (tmp_path / "stories").mkdir()
    for shard in range(4):
        texts = [f"story {25 * shard + number}" for number in range(25)]
        file = tmp_path / "stories" / f"train-{shard:05}.parquet"
        parquet.write_table(pyarrow.table({"text": texts}), file, row_group_size=5)
    load, failures, given_rows = datasets.load_dataset, [], []

    def load_dataset(path, name, split, streaming):
        assert (path, name, split, streaming) == ("owner/stories", None, "train", True)
        dataset = load(str(tmp_path / "stories"), split=split, streaming=True)
        iterate = type(dataset).__iter__

        class Failing(type(dataset)):
            def __iter__(self):
                for row in iterate(self):
                    if failures and row["text"] == f"story {failures[0]}":
                        failures.pop(0)
                        raise ConnectionError("reset by peer\nand more")
                    given_rows.append(row["text"])
                    yield row

        dataset.__class__ = Failing
        return dataset

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(hub_module, "WAITS", (0, 0, 0))
    monkeypatch.setattr(hub_module, "KEEP_EVERY", 7)
    return failures, given_rows


def test_hub_streams_go_on_from_any_document(hub):
    _, rows = hub
    documents, _, reader = read("owner/stories")
    assert [document.text for document in documents] == [f"story {number}" for number in range(100)]
    before = SourceReader(SourceConfig(path="owner/stories"), "", Funnel())
    partway = list(itertools.islice(before, 60))
    rows.clear()
    assert partway + read("owner/stories", start=before.position)[0] == documents
    assert rows == [f"story {number}" for number in range(60, 100)]  # none is given again


def test_hub_streams_that_break_off_are_taken_up_again(hub, capsys):
    failures, _ = hub
    failures += [0, 3, 3, 3, 77]
    documents, _, _ = read("owner/stories")
    assert [document.text for document in documents] == [f"story {number}" for number in range(100)]
    assert "owner/stories disconnected after 77 records (reset by peer); retrying" in capsys.readouterr().err
    failures += [50] * 4
    with pytest.raises(UserError, match="after 50 records .*; rerun the same command to resume there$"):
        read("owner/stories")


def test_hub_data_that_is_broken_is_not_tried_again(hub, monkeypatch):
    def iterate(self):
        yield {"text": "one"}
        raise ValueError("cannot cast\nand more")

    datasets = pytest.importorskip("datasets")
    load = datasets.load_dataset

    def load_dataset(*positional, **named):
        dataset = load(*positional, **named)
        type(dataset).__iter__ = iterate
        return dataset

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError, match="owner/stories cannot be read after 1 records: cannot cast$"):
        read("owner/stories")


def test_hub_columns_are_checked(hub):
    with pytest.raises(UserError, match="owner/stories has no column 'txt'; did you mean 'text'"):
        read("owner/stories", text_column="txt")
