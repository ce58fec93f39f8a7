"""The share that is held out of few and of long documents, and what is said where it is not the one requested."""

import random

import pytest
from corpora import load

from training.corpus.curation.config import DataConfig, DedupConfig
from training.corpus.curation.curation import Curation
from training.corpus.curation.splitting import SHORTEST_END, paragraph_end
from training.corpus.dedup.decontamination import Decontaminator


def prose(size: int, seed: int) -> str:
    """Paragraphs of wrapped lines, `size` bytes or a little more."""
    draw, text = random.Random(seed), ""
    while len(text) < size:
        words = draw.choices(["wald", "haus", "sehr", "über", "und", f"name{seed}"], k=draw.randint(20, 60))
        lines = [" ".join(words[start : start + 10]) for start in range(0, len(words), 10)]
        text += "\n".join(lines) + ".\n\n"
    return text


def write_books(folder, sizes: list[int]) -> str:
    folder.mkdir()
    for number, size in enumerate(sizes):
        (folder / f"{number:02}.txt").write_text(prose(size, number))
    return str(folder)


def share(corpus) -> float:
    sizes = {split: row["bytes"] for split, row in corpus.funnel.splits.items()}
    return sizes["validation"] / sum(sizes.values())


@pytest.mark.parametrize(("sizes", "fraction"), [([60_000] * 2, 0.05), ([70_000] * 8, 0.05), ([20_000, 90_000], 0.2)])
def test_a_few_books_give_the_share_requested_and_all_of_them(tmp_path, sizes, fraction):
    path = write_books(tmp_path / "books", sizes)
    corpus = load(DataConfig(path=path, validation_fraction=fraction))
    assert share(corpus) == pytest.approx(fraction, rel=0.1)
    assert [document.id for document in corpus.train] == [document.id for document in corpus.validation]
    for number, (start, end) in enumerate(zip(corpus.train, corpus.validation, strict=True)):
        assert start.text + end.text == (tmp_path / "books" / f"{number:02}.txt").read_text()
        assert start.text.endswith(".\n\n")
    (note,) = corpus.corpus.split_notes()
    assert f"the ends of {len(sizes)} long documents" in note and "'data.split_by': document" in note


def test_short_documents_beside_long_ones_are_held_out_whole(tmp_path):
    path = write_books(tmp_path / "texts", [60_000] * 3 + [400] * 100)
    corpus = load(DataConfig(path=path, validation_fraction=0.05))
    assert share(corpus) == pytest.approx(0.05, rel=0.15)
    held_out = [document.id for document in corpus.validation]
    assert held_out[:3] == ["00.txt", "01.txt", "02.txt"] and 3 <= len(held_out) - 3 <= 6
    assert not {document.id for document in corpus.train[3:]} & set(held_out)


def test_documents_whose_ends_are_too_short_are_held_out_whole(tmp_path):
    sizes = [SHORTEST_END * 15] * 4
    corpus = load(DataConfig(path=write_books(tmp_path / "texts", sizes), validation_fraction=0.05))
    assert len(corpus.validation) == 1 and share(corpus) == pytest.approx(0.25, rel=0.1)
    far, single = corpus.corpus.split_notes()
    assert "not the 5.0% of 'data.validation_fraction'" in far and "'data.split_by': position" in far
    assert "from 1 of 4 documents" in single


def test_whole_documents_are_held_out_on_request(tmp_path):
    path = write_books(tmp_path / "books", [60_000] * 2)
    corpus = load(DataConfig(path=path, split_by="document"))
    assert len(corpus.validation) == 1 and share(corpus) == pytest.approx(0.5, rel=0.1)
    assert len(corpus.corpus.split_notes()) == 2


def test_what_is_as_requested_is_not_mentioned(tmp_path):
    corpus = load(DataConfig(path=write_books(tmp_path / "texts", [500] * 100), validation_fraction=0.1))
    assert corpus.corpus.split_notes() == []
    (tmp_path / "one.txt").write_text(prose(50_000, 0))
    assert load(DataConfig(path=str(tmp_path / "one.txt"))).corpus.split_notes() == []


def test_the_end_of_the_text_may_be_a_single_document(tmp_path):
    corpus = load(DataConfig(path=write_books(tmp_path / "books", [9_000] * 3), split_by="position"))
    (note,) = corpus.corpus.split_notes()
    assert "from 1 of 3 documents" in note and "'data.split_by': document" in note


@pytest.mark.parametrize("count", [1, 3])
def test_a_line_of_nearly_the_whole_document_is_cut(tmp_path, count):
    for number in range(count):
        (tmp_path / f"{number}.txt").write_text(f"Title {number}\n" + "word " * 12_000)
    assert share(load(DataConfig(path=str(tmp_path)))) == pytest.approx(0.05, rel=0.01)


def test_a_share_by_position_that_is_not_the_one_requested_is_mentioned(tmp_path):
    (tmp_path / "a.txt").write_text("x" * 9_100 + "\n" + "y" * 899)
    (note,) = load(DataConfig(path=str(tmp_path))).corpus.split_notes()
    assert "9.0% of the text, not the 5.0% of 'data.validation_fraction'" in note and "held out whole" not in note


def test_notes_on_a_single_long_document(tmp_path):
    path = write_books(tmp_path / "books", [60_000] + [15_000] * 4)  # the others: too long, and their ends too short
    single, far, few = load(DataConfig(path=path)).corpus.split_notes()
    assert "the end of a long document; " in single and "from 1 of 5 documents" in few
    assert "2.6% of the text, not the 5.0%" in far and "each document is held out whole" not in far
    path = write_books(tmp_path / "texts", [60_000] + [400] * 100)
    (note,) = load(DataConfig(path=path)).corpus.split_notes()
    assert "the end of a long document, and " in note and " more, whole; " in note


def test_ends_are_those_of_the_text_without_repeated_lines(tmp_path):
    path = write_books(tmp_path / "books", [22_000] * 12)
    common = "a line that stands in every one of these books, and is long enough to count\n"
    for file in (tmp_path / "books").iterdir():
        file.write_text(common + file.read_text() + common)
    corpus = load(DataConfig(path=path, dedup=DedupConfig(lines=True)))
    assert len(corpus.validation) == 12 and share(corpus) == pytest.approx(0.05, rel=0.1)
    assert sum(common in document.text for document in corpus.train + corpus.validation) < 3


def test_an_evaluation_item_in_the_training_part_drops_a_long_document(tmp_path):
    path = write_books(tmp_path / "books", [60_000] * 3)
    item = "seven wizards and a very old dragon once met at the bridge to play chess for gold"
    for name, place in {"01.txt": 0, "02.txt": 1}.items():
        texts = [item + "\n\n", (tmp_path / "books" / name).read_text()]
        (tmp_path / "books" / name).write_text("".join(texts if place == 0 else texts[::-1]))
    corpus = Curation(DataConfig(path=path), tmp_path / "work", 1).run()
    corpus.keep_out(Decontaminator([("item", item)], 13, 8))
    for split in ("train", "validation"):
        assert [document.id for document in corpus.documents(split)] == ["00.txt", "02.txt"]
        assert corpus.funnel.splits[split]["bytes"] == sum(document.size for document in corpus.documents(split))


def test_cuts_fall_between_paragraphs():
    text = "ä line\nof one\n\nand two\n\nthree"
    first, second = len("ä line\nof one\n\n".encode()), len("ä line\nof one\n\nand two\n\n".encode())
    assert [paragraph_end(text, target, 40) for target in (first - 3, first + 3, second + 2)] == [first, first, second]
    assert paragraph_end(text, second - 5, 8) == first  # no blank line is near: the last line end
    assert paragraph_end(text, second - 5, 3) == second - 5  # nor a line end
    assert paragraph_end("no break at all", 4, 2) == 4
