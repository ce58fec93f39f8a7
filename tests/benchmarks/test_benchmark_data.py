"""The race of data pipelines runs, and measures what it says."""

import argparse
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from benchmarks import data_engine
from benchmarks.data import pieces
from benchmarks.planted import jaccard, nearest_similarity, plant
from training.corpus.sources import partitions

ROOT = Path(__file__).parents[2]
SYLLABLES = "ba der fin gol hum jat ken lim nor pas".split()


def prose(draw, count):
    return " ".join("".join(draw.choices(SYLLABLES, k=3)) for _ in range(count))


@pytest.mark.release
def test_data_benchmark_races_on_equal_work(tmp_path):
    draw = random.Random(0)
    chapters = [prose(draw, 120) + ".\n" for _ in range(60)]
    (tmp_path / "books.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in chapters))
    options = [f"--data={tmp_path}/books.jsonl", "--megabytes=0.1", "--characters=2000", "--rounds=1"]
    options += ["--planted=0.3", "--vocab-size=300"]
    environment = os.environ | {"TQDM_DISABLE": "1"}
    command = [sys.executable, "-m", "benchmarks.data", *options]
    completed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr
    results = json.loads(completed.stdout.splitlines()[-1])
    assert results["benchmark"] == "data" and "datatrove is left out" in completed.stdout
    conditions = results["conditions"]
    assert conditions["planted_pairs"] > 20 and 0 < conditions["planted_similar"] < conditions["planted_pairs"]
    rates, found = results["rates"], results["near_duplicates"]
    assert set(rates) == set(found) == {"ours", "datasets.map"}
    for row in rates.values():
        assert set(row) == {"filter", "near duplicates", "tokenize", "all"}
        for cell in row.values():
            in_bytes = cell["megabytes_per_second"] / cell["documents_per_second"] * 1e6
            assert in_bytes == pytest.approx(conditions["bytes"] / conditions["documents"], rel=0.05)
    assert all(cell["ours_times_as_fast"] == 1 for cell in rates["ours"].values())
    assert found["ours"] == found["datasets.map"] and found["ours"]["rules_agree_with_ours"] == 1
    assert found["ours"]["recall"] >= 0.9 and found["ours"]["precision"] >= 0.5
    assert 0 < found["ours"]["pass_the_rules"] < conditions["documents"]


@pytest.mark.parametrize("similarity", [0.5, 0.8, 0.95, 1.0])
def test_planted_duplicates_have_the_similarity_asked_for(similarity):
    """To half of what one edit changes: up to six shingles go and five come, of some 300."""
    draw = random.Random(1)
    text = prose(draw, 300)
    edited, truth = plant(text, similarity, ["new", "words"], draw)
    assert truth == jaccard(text, edited) == pytest.approx(similarity, abs=0.02)
    assert (edited == text) == (similarity == 1)


def test_similarity_is_counted():
    assert jaccard("a b c d e f", "A, b c d e f.") == 1
    assert jaccard("a b c d e f g", "a b c d e f x") == 2 / 4
    assert jaccard("a b c d", "a b c d") == 0  # no shingles


def test_nearest_similarity_agrees_with_comparing_all_pairs():
    draw = random.Random(2)
    texts = [prose(draw, 40) for _ in range(10)] + ["too short for shingles", ""]
    texts += [plant(text, draw.uniform(0.2, 1), ["other"], draw)[0] for text in texts[:8]]
    for number, similarity in nearest_similarity(texts, range(len(texts))).items():
        others = [text for other, text in enumerate(texts) if other != number]
        assert similarity == pytest.approx(max(jaccard(texts[number], other) for other in others))


def test_pieces_are_cut_behind_line_ends():
    text = "one\ntwo\nthree\n" + "x" * 25 + "\nend"
    assert list(pieces(text, 10)) == ["one\ntwo\n", "three\n", "x" * 10, "x" * 10, "xxxxx\nend"]
    assert "".join(pieces(text, 7)) == text


def test_what_an_engine_spreads_is_timed_step_by_step(tmp_path, capsys, monkeypatch):
    draw = random.Random(0)
    for file in range(3):
        records = (json.dumps({"text": prose(draw, 200)}) + "\n" for _ in range(20))
        (tmp_path / f"{file}.jsonl").write_text("".join(records))
    tokenizer = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate("\nabcdefghijklmnopqrs ")}, merges=[]))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    monkeypatch.setattr(partitions, "PARTITION_BYTES", partitions.PARTITION_BYTES)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    options = argparse.Namespace(data=f"{tmp_path}/*.jsonl", tokenizer=str(tmp_path), rules="none", part_megabytes=0.01)
    data_engine.steps(options)
    assert json.loads(capsys.readouterr().out).keys() == {"filtering", "hashes", "tokenizing", "joining"}
    for work in (data_engine.exact, data_engine.near, data_engine.join):
        (tmp_path / work.__name__).mkdir()
        work(20_000, tmp_path / work.__name__)
        found = json.loads(capsys.readouterr().out)
        assert found["seconds"] > 0 and found["bytes_a_document"] >= 0
