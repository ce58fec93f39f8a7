"""The experiment on curation: nothing leaks, copies stay together, and it runs as it says."""

import contextlib
import importlib
import json
import random
import sys

import numpy as np
import pytest

from benchmarks import curation
from benchmarks.curation import CURATED, DEDUPLICATED, RAW, as_table, leaks, summary, write_texts

PACKAGES = 12


def source(draw, lines=25):
    """Python that parses and is unlike any other."""
    names = ["".join(draw.choices("abcdefghijklmnop", k=6)) for _ in range(lines)]
    return "".join(
        f"def {name}({other}):\n    return {other}\n" for name, other in zip(names, names[::-1], strict=True)
    )


@pytest.fixture
def environments(tmp_path):
    """Three environments with the same packages; one of them has another version of each file."""
    draw = random.Random(0)
    for package in range(PACKAGES):
        for number in range(3):
            text = source(draw)
            for environment in "abc":
                folder = tmp_path / environment / "site-packages" / f"p{package}"
                folder.mkdir(parents=True, exist_ok=True)
                version = text + "version = 2\n" if environment == "c" else text
                (folder / f"{number}.py").write_text(version)
            (folder / "table.py").write_text(f"table = {[draw.random() for _ in range(200)]}\n")
    return tmp_path


@pytest.fixture
def arguments(environments, monkeypatch):
    flags = [f"--data={environments}/*/site-packages/**/*.py", "--share=0.8", "--held-out=0.05", "--seeds", "0", "1"]
    flags += ["--vocab-size=300", "--hidden-size=32", "--layers=1", "--heads=2", "--seq=16", "--batch=2", "--steps=2"]
    monkeypatch.setattr(sys, "argv", ["benchmarks.curation", *flags])
    return curation.parse_arguments()


def texts_of(file):
    return [json.loads(line)["text"] for line in file.read_text().splitlines()]


def test_packages_are_held_out_whole_and_paths_drawn_with_all_copies(arguments, tmp_path):
    told = write_texts(tmp_path / "out", arguments)
    held_out = set(texts_of(tmp_path / "out" / "held-out.jsonl"))
    packages = told["held_out_packages"]
    assert 1 < len(packages) < PACKAGES and len(held_out) == 4 * len(packages)  # one copy of each path
    assert told["found"]["documents"] == PACKAGES * 10
    draws = []
    for seed in (0, 1):
        texts = texts_of(tmp_path / "out" / "raw" / f"{seed}.jsonl")
        of_modules = [text.removesuffix("version = 2\n") for text in texts if not text.startswith("table")]
        assert all(of_modules.count(text) == 3 for text in of_modules)
        assert not held_out & set(of_modules)
        draws.append(set(texts))
    assert draws[0] != draws[1]
    assert told["leaked"] == 0 and told["drawn"] > sum(map(len, draws))


def test_what_repeats_the_held_out_text_leaks():
    draw = random.Random(1)
    held_out = [source(draw) for _ in range(3)] + ["x = 1"]
    licence = "permission is hereby granted free of charge to any person obtaining a copy of this software\n"
    texts = [
        source(draw),
        held_out[1],  # a copy
        held_out[0] + "version = 2\n",  # another version
        source(draw, 60) + held_out[2][:200] + source(draw, 60),  # a part of it within something else
        "x = 1",  # too short to say anything
        *(licence + source(draw) for _ in range(12)),  # a phrase that everybody uses
    ]
    assert leaks(texts, [*held_out, licence + source(draw)]).nonzero()[0].tolist() == [1, 2, 3]
    assert not leaks(texts[5:8] + texts[:1], held_out).any()
    assert leaks(texts[5:8] + texts[:1], [licence]).tolist() == [True] * 3 + [False]  # three are not everybody


def test_differences_are_taken_within_seeds():
    result = {"documents": 1, "megabytes": 1.0, "megatokens": 0.5, "bytes_per_token": 2.0, "dropped": {}}
    bits = {RAW: (2.0, 4.0), CURATED: (1.9, 3.8)}
    runs = {name: [result | {"bits_per_byte": value} for value in values] for name, values in bits.items()}
    table = summary(runs, tokens=1_000_000)
    row = table[CURATED]
    assert row["bits_per_byte"] == 2.85 and row["to_raw_%"] == -5 and row["to_raw_spread_%"] == 0
    assert row["spread"] == pytest.approx(np.std([1.9, 3.8], ddof=1), abs=1e-4)
    assert table[RAW]["epochs"] == 2 and "2.8500 ± 1.3435 | -5.00 ± 0.00 %" in as_table(table)


@pytest.mark.release
def test_curation_benchmark_runs(arguments, monkeypatch, capsys):
    def stage(verb, options, threads=0):
        flags = [f"--{key}={value}" for key, value in options.items()]
        importlib.import_module(f"training.commands.{verb}").main(flags)

    class InTurn(contextlib.nullcontext):
        """In this thread, which alone may handle signals."""

        def __enter__(self):
            return self

        map = staticmethod(map)

    monkeypatch.setattr(sys, "argv", [*sys.argv, "--seeds", "0"])
    monkeypatch.setattr(curation, "scratch", stage)
    monkeypatch.setattr(curation, "ThreadPoolExecutor", InTurn)
    curation.main()
    output = capsys.readouterr().out.splitlines()
    results = json.loads(output[-1])
    rows = results["rows"]
    assert list(rows) == [RAW, DEDUPLICATED, CURATED] and results["conditions"]["tokens"] == 64
    megabytes = [rows[name]["megabytes"] for name in rows]
    assert megabytes == sorted(megabytes, reverse=True) and len(set(megabytes)) == 3
    assert rows[RAW]["dropped_%"] == {} and "near duplicate" in rows[DEDUPLICATED]["dropped_%"]
    assert "long_line" in rows[CURATED]["dropped_%"]
    assert all(2 < row["bits_per_byte"] < 8 and len(row["each"]) == 1 for row in rows.values())
    assert sum(line.startswith("| ") for line in output) == 4
