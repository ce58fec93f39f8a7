import json
import random
import tracemalloc

import numpy as np
import pytest
from corpora import load, write_texts

from training.common.errors import UserError
from training.corpus.curation import blocks, curation
from training.corpus.curation.config import DataConfig, DedupConfig
from training.corpus.dedup.lines import RepeatedLines
from training.corpus.sources import SourceConfig


def write_records(file, count, seed=0, words=40):
    """Records of random words, some empty, some repeated, some nearly repeated."""
    draw = random.Random(seed)
    vocabulary = ["".join(draw.choices("abcdefghij", k=5)) for _ in range(2_000)]
    texts = []
    for number in range(count):
        text = " ".join(draw.choices(vocabulary, k=words)) + "."
        if number % 10 == 3:
            text = texts[-1] + "\n"
        if number % 10 == 5:
            text = texts[-2] + " And then."
        if number % 50 == 7:
            text = " "
        texts.append(text)
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return file


@pytest.fixture
def small_blocks(monkeypatch):
    """In this process: a block holds 7 documents."""
    monkeypatch.setattr(blocks, "BLOCK_DOCUMENTS", 7)


def contents(corpus):
    return corpus.train, corpus.validation, corpus.funnel.as_dict()


NEAR = DedupConfig(near=True)


def test_blocks_and_workers_change_nothing(tmp_path, monkeypatch):
    file = write_records(tmp_path / "a.jsonl", 300)
    config = DataConfig(path=str(file), dedup=NEAR, validation_fraction=0.2)
    whole = load(config)
    monkeypatch.setattr(blocks, "BLOCK_DOCUMENTS", 7)
    assert contents(load(config)) == contents(whole)
    assert contents(load(config, workers=3)) == contents(whole)


def test_the_first_of_each_stays(tmp_path, small_blocks):
    file = write_records(tmp_path / "a.jsonl", 200)
    corpus = load(DataConfig(path=str(file), dedup=NEAR, validation_fraction=0.2), tmp_path / "work")
    dropped = {reason: row["documents"] for reason, row in corpus.funnel.dropped.items()}
    assert dropped == {"empty": 4, "duplicate": 20, "near duplicate": 20}
    kept = {document.id for document in corpus.train + corpus.validation}
    pairs = [json.loads(line) for line in (tmp_path / "work" / "near_duplicates.jsonl").read_text().splitlines()]
    assert len(pairs) == 20
    for pair in pairs:
        number = int(pair["dropped"].split(":")[1])
        assert pair["kept"] == f"a.jsonl:{number - 3}" and pair["kept"] in kept and pair["dropped"] not in kept
        assert 0.75 <= pair["jaccard"] <= 1


def test_copies_can_be_kept(tmp_path):
    """As text is before anything is done to it; near duplicates include copies."""
    file = write_records(tmp_path / "a.jsonl", 200)
    raw = load(DataConfig(path=str(file), dedup=DedupConfig(exact=False), validation_fraction=0.2))
    assert raw.funnel.dropped.keys() == {"empty"} and len(raw.train + raw.validation) == 196
    near = load(DataConfig(path=str(file), dedup=DedupConfig(exact=False, near=True), validation_fraction=0.2))
    assert near.funnel.dropped["near duplicate"]["documents"] == 40
    assert contents(near)[:2] == contents(load(DataConfig(path=str(file), dedup=NEAR, validation_fraction=0.2)))[:2]


def test_duplicates_across_sources_and_their_order(tmp_path):
    write_texts(tmp_path / "a", 20)
    write_texts(tmp_path / "b", 30)
    sources = {name: SourceConfig(path=str(tmp_path / name)) for name in ("b", "a")}
    corpus = load(DataConfig(sources=sources, validation_fraction=0.3))
    assert corpus.funnel.dropped["duplicate"]["documents"] == 20
    assert len(corpus.train + corpus.validation) == 30


@pytest.mark.parametrize(("limit", "documents"), [({"max_documents": 25}, 25), ({"max_bytes": 5_000}, 25)])
def test_what_lies_beyond_a_limit_does_not_depend_on_the_workers(tmp_path, small_blocks, limit, documents):
    file = write_records(tmp_path / "a.jsonl", 300)
    sources = {"a": SourceConfig(path=str(file), **limit)}
    config = DataConfig(sources=sources, validation_fraction=0.2)
    alone, together = load(config), load(config, workers=3)
    assert contents(alone) == contents(together)
    funnel = alone.funnel
    limited = funnel.kept["documents"] + funnel.dropped["duplicate"]["documents"]
    assert limited == pytest.approx(documents, abs=5)
    assert funnel.kept["bytes"] + funnel.dropped["duplicate"]["bytes"] <= limit.get("max_bytes", 10**9)
    # Whole blocks were read, up to the one with the limit.
    dropped = {reason: row["documents"] for reason, row in funnel.dropped.items()}
    assert (funnel.read["documents"] - dropped["empty"]) % 7 == 0
    assert dropped.get("beyond the limit", 0) < 7


def test_every_byte_read_is_accounted_for(tmp_path, small_blocks):
    file = write_records(tmp_path / "a.jsonl", 300)
    text = [json.loads(line)["text"] for line in file.read_text().splitlines()]
    sources = {"a": SourceConfig(path=str(file))}
    funnel = load(DataConfig(sources=sources, dedup=NEAR, validation_fraction=0.2)).funnel
    assert funnel.read == {"documents": 300, "bytes": sum(len(line.encode()) for line in text)}
    assert sum(row["documents"] for row in funnel.splits.values()) == funnel.kept["documents"]
    assert sum(row["bytes"] for row in funnel.splits.values()) == funnel.kept["bytes"]


def test_a_killed_run_goes_on(tmp_path, small_blocks):
    """Half of the blocks are there, one of them not finished."""
    file = write_records(tmp_path / "a.jsonl", 300)
    config = DataConfig(path=str(file), dedup=NEAR, validation_fraction=0.2)
    whole = load(config, tmp_path / "whole")
    load(config, tmp_path / "killed")
    store = tmp_path / "killed" / "blocks" / "text" / "00000"
    store.with_suffix(".json").unlink()
    for block in (3, 20, 21):
        (store / f"{block:05}.json").unlink()
    (store / "00003.jsonl").write_text('["half')
    untouched = (store / "00030.json").stat().st_mtime_ns
    again = load(config, tmp_path / "killed")
    assert contents(again) == contents(whole)
    assert (store / "00030.json").stat().st_mtime_ns == untouched
    for path in (tmp_path / "whole").rglob("*"):
        if path.is_file() and path.suffix != ".npz":  # a zip file notes the time
            assert path.read_bytes() == (tmp_path / "killed" / path.relative_to(tmp_path / "whole")).read_bytes()


def test_the_lines_of_one_block_are_in_memory_at_a_time(tmp_path, small_blocks, monkeypatch):
    draw, peaks, total = random.Random(0), [], 0

    def read(documents, config, folder):
        nonlocal total
        total = sum(lines.nbytes for lines in documents)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        return RepeatedLines(np.empty(0, np.uint64), np.empty(0, np.uint32), config.min_characters)

    lines = [f"{'letters ' * 4}{''.join(draw.choices('abcdefghij', k=12))}\n" for _ in range(280 * 125)]
    texts = ["".join(lines[start : start + 125]) for start in range(0, len(lines), 125)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    monkeypatch.setattr(curation.Curation, "_drop_exact_duplicates", lambda self, corpus: tracemalloc.start())
    monkeypatch.setattr(curation, "repeated_lines", read)
    load(DataConfig(path=str(tmp_path / "a.jsonl"), dedup=DedupConfig(lines=True), validation_fraction=0.2))
    assert total == 8 * len(lines) and peaks[0] < 0.4 * total


def test_nothing_to_read_is_one_line(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(UserError, match="a.jsonl: no text left for train after cleaning"):
        load(DataConfig(path=str(tmp_path / "a.jsonl")))
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": " "}) + "\n")
    with pytest.raises(UserError, match=r"no text left for train after cleaning \(1 empty\)"):
        load(DataConfig(path=str(tmp_path / "b.jsonl")))


def test_a_single_package_cannot_be_held_out(tmp_path):
    file = write_records(tmp_path / "a.jsonl", 30)
    with pytest.raises(UserError, match="a single package, so none can be held out"):
        load(DataConfig(path=str(file), split_by="package"))
