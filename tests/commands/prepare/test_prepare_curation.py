"""The steps of curation through `scratch prepare`, as a recipe asks for them."""

import json

import pytest
from prepare_inputs import recipe, save_tokenizer, source, write_source

from training.commands import prepare
from training.common.errors import UserError
from training.data.shards import read_manifest

QUESTION = "Which of the two grey cats that live behind the old mill caught the larger fish yesterday"
SECRET = "Write to anna@meier-und-sohn.de soon."


@pytest.fixture
def place(tmp_path):
    save_tokenizer(tmp_path / "tokenizer")
    write_source(tmp_path, "books", 60, 0)
    extra = [
        "Too short.",
        f"It was asked at school: {QUESTION.lower()}? Nobody in the class knew what the right answer to that could be.",
        " ".join(["and"] * 60),
        f"{SECRET} The letter will be read by the people who live in the house on the hill, and by nobody else there.",
    ]
    with (tmp_path / "books.jsonl").open("a") as stream:
        stream.writelines(json.dumps({"text": text}) + "\n" for text in extra)
    (tmp_path / "exam.jsonl").write_text(json.dumps({"question": QUESTION, "answer": "the left one"}) + "\n")
    return tmp_path


def test_every_step_is_counted_and_shown(place, capsys):
    data = {
        "rules": {"set": "none", "limits": {"too_few_words": 10, "duplicate_5_grams": True}},
        "pii": {"kinds": ["email"]},
        "decontamination": {"evaluation": [str(place / "exam.jsonl")]},
    }
    arguments = recipe(place, {"books": source(place, "books")}, **data)
    prepare.main([*arguments, "--explain=2"])
    told = capsys.readouterr().out
    assert "too_few_words: 2 (at least 10)" in told and "books/books.jsonl:61: Too short." in told
    manifest = read_manifest(place / "out")
    dropped = {reason: row["documents"] for reason, row in manifest["funnel"]["dropped"].items()}
    assert dropped == {"too_few_words": 1, "duplicate_5_grams": 1, "contaminated": 1}
    assert manifest["redacted"] == {"email": 1}
    met = json.loads((place / "out" / "contaminated.jsonl").read_text())
    assert met["document"] == "books/books.jsonl:62" and met["item"] == "exam.jsonl:1"
    assert met["words"] in QUESTION.lower()
    prepare.main([*arguments, "--explain=1", "--workers=2"])  # up to date, and still explained
    told = capsys.readouterr().out
    assert "up to date" in told and "too_few_words: 2 (at least 10)" in told


def test_lines_of_many_documents_stay_in_the_first(place):
    footer = "Visit our shop for more stories of this kind, every day of the week."
    texts = [json.loads(line)["text"] for line in (place / "books.jsonl").read_text().splitlines()]
    lines = (json.dumps({"text": f"{text}\n{footer}"}) + "\n" for text in texts)
    (place / "books.jsonl").write_text("".join(lines))
    prepare.main(recipe(place, {"books": source(place, "books")}, dedup={"lines": True}))
    manifest = read_manifest(place / "out")
    assert manifest["funnel"]["trimmed"] == {"repeated lines": (len(texts) - 1) * (len(footer) + 1)}
    assert sum(split["bytes"] for split in manifest["splits"].values()) == manifest["funnel"]["kept"]["bytes"]


def test_what_a_step_lacks_is_one_line(place):
    books = {"books": source(place, "books")}
    for data, message in (
        ({"decontamination": {"evaluation": ["missing.jsonl"]}}, "missing.jsonl: no such file"),
        ({"rules": {"set": "webb"}}, "'data.rules.set' must be one of"),
        ({"rules": {"limits": {"to_few_words": 3}}}, "did you mean 'too_few_words'"),
        ({"rules": {"profanity": "missing.txt"}}, "missing.txt"),
        ({"pii": {"kinds": ["mail"]}}, "mail"),
    ):
        with pytest.raises(UserError, match=message):
            prepare.main(recipe(place, books, **data))
        assert not (place / "out").exists()


def test_what_was_not_utf_8_is_told(place, capsys):
    (place / "pages").mkdir()
    for number in range(20):
        text = f"Page {number}: le garçon déjà vu, là-bas, à côté du château."
        (place / "pages" / f"{number:02}.txt").write_bytes(text.encode("cp1252" if number < 3 else "utf-8"))
    prepare.main(recipe(place, {"pages": {"path": str(place / "pages"), "encoding": "cp1252"}}))
    assert "documents that were not UTF-8: 3 cp1252" in capsys.readouterr().out
    assert read_manifest(place / "out")["encodings"] == {"cp1252": 3}
    assert "Decoded from what is not UTF-8: 3 cp1252" in (place / "out" / "README.md").read_text()


def test_items_too_short_to_look_for_are_told(place, capsys):
    with (place / "exam.jsonl").open("a") as stream:
        stream.writelines('{"question": "Why not?", "answer": "Because."}\n' for _ in range(4))
    data = {"decontamination": {"evaluation": [str(place / "exam.jsonl")]}}
    prepare.main(recipe(place, {"books": source(place, "books")}, **data))
    told = "evaluation items: 1 searched, 4 too short to search for (no text of 8 words)"
    assert told in capsys.readouterr().out
    assert read_manifest(place / "out")["evaluation_items"] == {"searched": 1, "too short": 4}
    card = (place / "out" / "README.md").read_text()
    assert "with one of 1 evaluation items are dropped (4 more items are too short)" in card
