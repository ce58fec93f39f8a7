import pytest
from prepare_inputs import recipe, save_tokenizer, source, write_source

from training.commands import prepare
from training.common.errors import UserError
from training.data.shards import open_shards, read_manifest


@pytest.fixture
def place(tmp_path):
    save_tokenizer(tmp_path / "tokenizer")
    write_source(tmp_path, "books", 400, 0)
    write_source(tmp_path, "code", 100, 1)
    return tmp_path


def documents(folder, split="train"):
    shards = open_shards(folder, split)
    starts = [0, *shards.document_ends[:-1]]
    return [tuple(shards.tokens[start:end].tolist()) for start, end in zip(starts, shards.document_ends, strict=True)]


def test_shares_are_those_that_were_requested(place, capsys):
    sources = {"books": source(place, "books", weight=1), "code": source(place, "code", weight=1, max_epochs=3)}
    prepare.main(recipe(place, sources))
    shares = read_manifest(place / "out")["sources"]
    assert shares["books"]["share"] == pytest.approx(0.5, abs=0.01) and shares["books"]["requested"] == 0.5
    assert shares["code"]["epochs"] == pytest.approx(3, abs=0.01)
    assert "50.00%" in capsys.readouterr().out
    train = documents(place / "out")
    counts = {document: train.count(document) for document in train}
    assert set(counts.values()) == {1, 3}
    assert {document[-1] for document in train} == {0}  # the end of the text, that of the one that was cut too
    manifest = read_manifest(place / "out")["splits"]["train"]
    assert manifest["tokens"] == sum(map(len, train)) and manifest["documents"] == len(train)
    assert not set(train) & set(documents(place / "out", "validation"))
    # Spread evenly: each tenth of the corpus has its part of both.
    tenth = len(train) // 10
    repeated = [sum(counts[document] == 3 for document in train[i * tenth : (i + 1) * tenth]) for i in range(10)]
    assert max(repeated) - min(repeated) <= 4


def test_without_weights_everything_is_taken_once(place):
    prepare.main(recipe(place, {"books": source(place, "books"), "code": source(place, "code")}))
    shares = read_manifest(place / "out")["sources"]
    assert {row["epochs"] for row in shares.values()} == {1} and {row["requested"] for row in shares.values()} == {None}
    split = read_manifest(place / "out")["splits"]
    assert split["train"]["documents"] + split["validation"]["documents"] == 500


def test_what_a_mixture_cannot_be_is_one_line(place):
    books = source(place, "books")
    for sources, data, message in (
        ({"books": books, "again": books}, {}, "read by 'data.sources.books' already"),
        ({"books": books | {"weight": -1}}, {}, "'data.sources.books.weight' must be above 0, not -1"),
        ({"books": books | {"wieght": 1}}, {}, "'data.sources.books.wieght'; did you mean 'weight'"),
        ({"../books": books}, {}, "invalid name '../books'; use letters"),
        ({"books": books | {"weight": 1}, "code": source(place, "code")}, {}, "weights to all or to none"),
        ({"books": books}, {"path": "b.txt"}, "'path' cannot be combined with 'sources'"),
        ({"books": books}, {"encoding": "cp1252", "split": "test"}, "'split' and 'encoding' cannot be combined"),
        ({}, {"path": "b.txt", "max_tokens": 5}, "'max_tokens' and 'temperature' need a mixture"),
    ):
        with pytest.raises(UserError, match=message):
            prepare.main(recipe(place, sources, **data))
        assert not (place / "out").exists() and not (place / "out.partial").exists()
