"""What `scratch prepare` leaves to look at and to publish: the funnel with tokens, its picture, samples, the card."""

import html
import json
import re

import numpy as np
import pytest
import yaml
from corpora import load
from prepare_inputs import recipe, save_tokenizer, source, write_source

from training.commands import prepare
from training.corpus.curation.config import DataConfig
from training.corpus.curation.funnel import Funnel
from training.corpus.output.card import changes, describe_split, licences
from training.corpus.output.histogram import by_powers_of_two
from training.corpus.output.samples import plain
from training.corpus.sources import SourceConfig
from training.data.shards import open_shards, read_manifest
from training.plots.funnel import visible_losses

QUESTION = "Which of the two grey cats that live behind the old mill caught the larger fish yesterday"
MAIL = "anna@meier-und-sohn.de"
KEY = "AKIAQZ7MXP2LKD93HTUV"
REASONS = {"too_few_words", "duplicate", "near duplicate", "contaminated"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A corpus in which every kind of reason dropped something, with personal data in what was dropped."""
    place = tmp_path_factory.mktemp("private-folder")
    save_tokenizer(place / "tokenizer")
    write_source(place, "books", 80, 0)
    texts = [json.loads(line)["text"] for line in (place / "books.jsonl").read_text().splitlines()]
    long = " ".join(texts[:4])
    extra = [
        f"Mail {MAIL}",
        f"<b>{KEY}</b> | *now*",
        *texts[5:8],  # copies
        long,
        long.replace("books", "tales", 1),
        f"It was asked at school: {QUESTION.lower()}? Nobody in the class knew what the right answer could be.",
    ]
    # The e-mail address stands on the border of what is kept of a dropped text.
    extra.append("x" * 990 + f" {MAIL} and")
    with (place / "books.jsonl").open("a") as stream:
        stream.writelines(json.dumps({"text": text}) + "\n" for text in extra)
    (place / "exam.jsonl").write_text(json.dumps({"question": QUESTION, "answer": "the left one"}) + "\n")
    data = {
        "rules": {"limits": {"too_few_words": 10}, "languages": []},
        "pii": {"kinds": ["email", "secret"]},
        "dedup": {"near": True},
        "decontamination": {"evaluation": [str(place / "exam.jsonl")]},
    }
    prepare.main(recipe(place, {"books": source(place, "books", license="CC-BY-4.0")}, **data))
    return place / "out"


def head(folder):
    text = (folder / "README.md").read_text()
    return yaml.safe_load(text.split("---\n")[1]), text


def test_tokens_are_counted_where_they_are_and_estimated_where_not(prepared):
    funnel = read_manifest(prepared)["funnel"]
    tokens = {split: len(open_shards(prepared, split)) for split in ("train", "validation")}
    assert {split: row["tokens"] for split, row in funnel["splits"].items()} == tokens
    assert funnel["kept"]["tokens"] == sum(tokens.values())
    assert set(funnel["dropped"]) == REASONS
    rate = sum(tokens.values()) / funnel["kept"]["bytes"]
    assert all(row["tokens"] == round(row["bytes"] * rate) for row in funnel["dropped"].values())
    lost = sum(row["tokens"] for row in funnel["dropped"].values())
    trimmed = sum(round(size * rate) for size in funnel["trimmed"].values())
    assert funnel["read"]["tokens"] == funnel["kept"]["tokens"] + lost + trimmed


def test_the_table_says_what_is_estimated():
    funnel = Funnel()
    funnel.keep(100)
    funnel.drop("too short", 50)
    funnel.trim("cleaning", 10)
    funnel.splits = {"train": {"documents": 1, "bytes": 100}}
    assert "~" not in str(funnel)
    funnel.count_tokens({"train": 20})
    rows = {line.split("  ")[0]: line.split() for line in str(funnel).splitlines()}
    assert [rows[name][-1] for name in ("read", "- cleaning", "- too short", "kept", "train")] == (
        ["~32", "~2", "~10", "20", "20"]
    )
    assert "estimated" in str(funnel).splitlines()[-1]


def test_what_a_limit_cuts_off_stands_with_the_documents_beyond_it():
    funnel = Funnel()
    funnel.keep(100)
    funnel.keep(50)
    funnel.trim_kept("beyond the limit", 10)
    funnel.drop_kept("beyond the limit", 50, "limit", documents=1)
    funnel.splits = {"train": {"documents": 1, "bytes": 90}}
    assert funnel.losses() == {"beyond the limit": {"documents": 1, "bytes": 60, "step": "limit"}}
    funnel.count_tokens({"train": 9})
    assert funnel.losses()["beyond the limit"]["tokens"] == 6
    assert funnel.read == {"documents": 2, "bytes": 150, "tokens": 15}


def test_distributions(prepared):
    assert by_powers_of_two(np.array([1, 2, 3, 4, 7, 8, 1024])) == {"1": 1, "2": 2, "4": 2, "8": 1, "1024": 1}
    manifest = read_manifest(prepared)
    assert sum(manifest["lengths"].values()) == manifest["funnel"]["kept"]["documents"]
    assert manifest["copies"] == {"exact": {"1": 3}, "near": {"1": 1}}


def test_small_losses_share_a_row_of_the_picture():
    funnel = Funnel()
    funnel.keep(100_000)
    for size in (1, 2, 3):
        funnel.drop(f"rule {size}", size, documents=0)
    funnel.drop("a whole lot", 50_000)
    funnel.drop("duplicate", 1, "duplicates", documents=0)
    shown = visible_losses(funnel)
    assert list(shown) == ["a whole lot", "3 more (rules)", "duplicate"]
    assert shown["3 more (rules)"] == {"documents": 0, "bytes": 6, "step": "rules"}
    assert sum(row["bytes"] for row in shown.values()) == funnel.read["bytes"] - funnel.kept["bytes"]


def test_samples_show_every_reason_and_no_personal_data(prepared):
    page = (prepared / "samples.md").read_text()
    rows = [re.split(r" \| ", line[2:-2]) for line in page.splitlines() if line.startswith("| ")][2:]
    why = [html.unescape(row[2]) for row in rows]
    assert {text.partition(":")[0] for text in why} == REASONS
    assert "too_few_words: 2 (at least 10)" in why and "duplicate: the text of books.jsonl:6" in why
    assert any(re.fullmatch(r"near duplicate: 0\.\d+ similar to books\.jsonl:86 \(below 0\.75\)", text) for text in why)
    train = open_shards(prepared, "train")
    assert len(train.document_ends) >= len(rows) and all(row[0].startswith("**books.jsonl") for row in rows)
    shown = html.unescape(page)
    assert MAIL not in shown and "email@example.com" in shown
    assert KEY not in shown and "AKIAXXXXXXXX" in shown
    assert QUESTION.lower() not in shown.lower()
    dropped = (prepared / "dropped.jsonl").read_text()
    assert "anna" not in dropped and "meier" not in dropped and KEY not in dropped


def test_nothing_of_a_text_is_interpreted():
    text = "| <b>*x*</b> [a](http://b) `c` $d$ ![e](f) www.g.de h@i.de &amp; \\ ~~j~~ \u202e\n# k\n\n- l"
    safe = plain(text)
    assert not set(safe.replace("&#", "").replace(";", "")) & set("|<>*[]`$!@\\~#\n\u202e:_")
    assert "www." not in safe
    assert html.unescape(safe) == " ".join(text.replace("\u202e", " ").split())


def test_the_card(prepared):
    metadata, text = head(prepared)
    assert metadata["license"] == ["cc-by-4.0"] and metadata["size_categories"] == ["n<1K"]
    assert metadata["viewer"] is False and "language" not in metadata
    manifest = read_manifest(prepared)
    kept = manifest["funnel"]["kept"]
    assert f"| books | books.jsonl | CC-BY-4.0 | {kept['documents']:,} | {kept['bytes'] / 1e6:,.2f} |" in text
    assert manifest["sources"]["books"]["license"] == "CC-BY-4.0"
    assert f"| kept | {kept['documents']:,} | {kept['bytes'] / 1e6:,.2f} | {kept['tokens']:,} |" in text
    assert "at least 10" in text and "MinHash of runs of 5 words" in text
    shown = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert shown["data"]["sources"] == {"books": {"path": "books.jsonl", "license": "CC-BY-4.0"}}
    assert shown["data"]["decontamination"] == {"evaluation": ["exam.jsonl"]}
    for name in ("README.md", "samples.md", "manifest.json"):
        assert "private-folder" not in (prepared / name).read_text()


def test_a_folder_is_not_named(tmp_path):
    save_tokenizer(tmp_path / "tokenizer")
    (tmp_path / "secret-plans" / "inner").mkdir(parents=True)
    write_source(tmp_path / "secret-plans" / "inner", "a", 60, 0)
    options = {"output_dir": "out", "tokenizer": "tokenizer", "data.path": "secret-plans"}
    prepare.main([f"--{key}={tmp_path / value}" for key, value in options.items()])
    metadata, text = head(tmp_path / "out")
    assert metadata["license"] == ["unknown"] and "| text | a folder | not stated |" in text
    for name in ("README.md", "samples.md", "manifest.json"):
        content = (tmp_path / "out" / name).read_text()
        assert "secret-plans" not in content and "inner" not in content


def test_records_are_what_the_hub_shows(tmp_path):
    from prepare_inputs import function

    save_tokenizer(tmp_path / "tokenizer")
    for package in range(8):
        folder = tmp_path / "source" / f"package{package}"
        folder.mkdir(parents=True)
        (folder / "a.py").write_text("\n\n".join(function(10 * package + number) for number in range(10)))
    options = {"data.split_by": "package", "data.validation_fraction": 0.25, "max_tokens": 600}
    options |= {"instructions.train": 10, "output_dir": tmp_path / "out", "tokenizer": tmp_path / "tokenizer"}
    prepare.main([f"--{key}={value}" for key, value in (options | {"data.path": tmp_path / "source"}).items()])
    metadata, _ = head(tmp_path / "out")
    files = [{"split": "train", "path": "instructions/train.jsonl"}]
    assert metadata["configs"] == [{"config_name": "instructions", "data_files": files}] and "viewer" not in metadata


def test_licences_are_those_of_the_hub():
    sources = {"a": SourceConfig("a", license="public domain"), "b": SourceConfig("b", license="MIT")}
    assert licences(DataConfig(sources=sources)) == ["mit", "other"]
    assert licences(DataConfig(sources={"a": SourceConfig("a")})) == ["unknown"]
    assert licences(DataConfig()) == ["other"]


def test_changes_are_what_differs_from_the_defaults():
    assert changes(DataConfig()) == {}
    config = DataConfig(sources={"a": SourceConfig("a.txt", weight=2.0)}, seed=3)
    assert changes(config) == {"sources": {"a": {"path": "a.txt", "weight": 2.0}}, "seed": 3}


@pytest.mark.parametrize(
    ("sizes", "description"),
    [
        ([9_000], "the end of the text"),
        ([500] * 40, "whole documents, drawn by seed 3"),
        ([60_000] * 2, "the ends of long documents"),
        ([60_000] * 2 + [300] * 100, "the ends of long documents and whole documents, drawn by seed 3"),
    ],
)
def test_the_card_names_what_is_held_out(tmp_path, sizes, description):
    for number, size in enumerate(sizes):
        (tmp_path / f"{number:03}.txt").write_text(f"{number:03} is it\n" * (size // 10))
    assert describe_split(load(DataConfig(path=str(tmp_path), seed=3)).corpus) == description
