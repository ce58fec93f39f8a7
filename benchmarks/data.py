"""Filtering, near duplicates and tokenizing: ours beside datatrove, and through `datasets.map`.

    python -m benchmarks.data --data books.jsonl.gz --megabytes 20 --datatrove /path/to/venv/bin/python

datatrove wants other versions of some packages than we do, hence an environment of its own:

    python -m venv datatrove && datatrove/bin/pip install "datatrove[processing]==0.10.1" orjson spacy

The text is that of `--data` and Python source of this machine, cut at line ends into documents of at most
`--characters`. To a tenth of the documents (`--planted`) a near duplicate is added: words at random places are
replaced, left out and put in, until the true Jaccard similarity of the 5-word shingles is a drawn number between 0.5
and 1. All have the same three steps to do on all documents, whatever they drop: filter them by Gopher's quality and
repetition rules and C4's rules for whole documents; find near duplicates by MinHash with each one's own defaults; turn
them into tokens in a file, by the same tokenizer of the Rust library, whose tokens must be equally many.

Recall: of the planted pairs with a similarity of 0.8 and more, those of which one is dropped. Precision: of all that
is dropped as a near duplicate, planted or not, what has a true similarity of 0.8 and more to another document.

Time is that of the processor, so a rate is one of a single core. Each contestant works in a process of its own, in
turns within every round; figures are medians over rounds, ratios medians of the ratios within rounds. The rules do not
agree on every document: datatrove takes punctuation for words, and drops more source code by its share of words without
a letter, before the rules that cost most. The last line is all of it as JSON.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from tqdm import tqdm

from benchmarks.machine import processor_name
from benchmarks.planted import nearest_similarity, plant
from training.corpus.curation.config import DataConfig
from training.corpus.curation.curation import Curation
from training.corpus.curation.splitting import SPLITS
from training.corpus.dedup.shingles import words
from training.corpus.sources import PYTHON

OURS, MAP, DATATROVE = "ours", "datasets.map", "datatrove"
STEPS = ("filter", "near duplicates", "tokenize")
SIMILAR = 0.8


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a file, folder or glob of prose; without it, there is Python source only")
    parser.add_argument("--megabytes", type=float, default=10, help="of prose")
    parser.add_argument("--code-megabytes", type=float, help="of Python source; by default as much as of prose")
    parser.add_argument("--characters", type=int, default=4000, help="of a document at most")
    parser.add_argument("--planted", type=float, default=0.1, help="near duplicates, as a share of the documents")
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--datatrove", metavar="PYTHON", help="the interpreter that has datatrove")
    arguments = parser.parse_args()
    if arguments.code_megabytes is None:
        arguments.code_megabytes = arguments.megabytes
    return arguments


def pieces(text: str, characters: int) -> Iterator[str]:
    """The text, cut behind line ends where there are any."""
    start = 0
    while start < len(text):
        end = start + characters
        if end < len(text):
            end = text.rfind("\n", start, end) + 1 or end
        yield text[start:end]
        start = end


def read_documents(arguments: argparse.Namespace) -> list[str]:
    texts = []
    for path, megabytes in ((arguments.data, arguments.megabytes), (PYTHON, arguments.code_megabytes)):
        if not path:
            continue
        data = DataConfig(path=path, max_bytes=round(megabytes * 1e6))
        with tempfile.TemporaryDirectory() as folder:
            corpus = Curation(data, Path(folder)).run()
            texts += [document.text for split in SPLITS for document in corpus.documents(split)]
    documents = [piece for text in texts for piece in pieces(text, arguments.characters)]
    return [document for document in documents if document.strip()]


def plant_duplicates(documents: list[str], arguments: argparse.Namespace) -> tuple[list[str], list[tuple]]:
    """All documents in a random order, and the planted pairs: two numbers and the true similarity."""
    draw = random.Random(arguments.seed)
    vocabulary = words(" ".join(draw.sample(documents, min(100, len(documents)))))
    long_enough = [number for number, text in enumerate(documents) if len(words(text)) >= 30]
    chosen = draw.sample(long_enough, min(len(long_enough), round(arguments.planted * len(documents))))
    planted = [plant(documents[number], draw.uniform(0.5, 1), vocabulary, draw) for number in chosen]
    texts = documents + [text for text, _ in planted]
    order = draw.sample(range(len(texts)), len(texts))
    place = {number: position for position, number in enumerate(order)}
    pairs = [(place[number], place[len(documents) + copy], planted[copy][1]) for copy, number in enumerate(chosen)]
    return [texts[number] for number in order], pairs


def train_tokenizer(documents: list[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def commands(arguments: argparse.Namespace) -> dict[str, list[str]]:
    ours = [sys.executable, "-m", "benchmarks.data_ours"]
    contestants = {OURS: [*ours, "loop"], MAP: [*ours, "map"]}
    if arguments.datatrove:
        script = Path(__file__).with_name("data_datatrove.py")
        contestants[DATATROVE] = [arguments.datatrove, "-P", str(script)]  # -P: no file beside it is a module
    return contestants


def take_turn(command: list[str], folder: Path) -> dict[str, Any]:
    """What a contestant reports of its work, done in one thread."""
    files = [str(folder / name) for name in ("documents.jsonl", "tokenizer.json", "results.json")]
    single = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = os.environ | dict.fromkeys(single, "1") | {"TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}
    completed = subprocess.run([*command, *files], env=environment, capture_output=True, text=True)
    if completed.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{completed.stderr.strip()}")
    return json.loads((folder / "results.json").read_text())


def race(documents: list[str], arguments: argparse.Namespace) -> tuple[dict[str, dict], dict[str, list[dict]]]:
    """What every contestant reported in the last round, and the seconds of all rounds."""
    taken, reports = defaultdict(list), {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with (folder / "documents.jsonl").open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(document) + "\n" for document in documents)
        train_tokenizer(documents, arguments.vocab_size).save(str(folder / "tokenizer.json"))
        for _ in tqdm(range(arguments.rounds), desc="racing", unit="round"):
            for name, command in commands(arguments).items():
                reports[name] = take_turn(command, folder)
                taken[name].append(reports[name]["seconds"])
    if len({report["tokens"] for report in reports.values()}) > 1:
        raise SystemExit(f"unequal tokens: { {name: report['tokens'] for name, report in reports.items()} }")
    return reports, taken


def quality(reports: dict[str, dict], documents: list[str], pairs: list[tuple]) -> dict[str, dict[str, Any]]:
    """Recall of planted pairs, precision of all that was dropped, and how far the rules agree."""
    dropped = {name: set(range(len(documents))) - set(report["distinct"]) for name, report in reports.items()}
    passed = {name: set(report["passed"]) for name, report in reports.items()}
    nearest = nearest_similarity(documents, sorted(set().union(*dropped.values())))
    similar = [{one, other} for one, other, similarity in pairs if similarity >= SIMILAR]
    return {
        name: {
            "dropped": len(gone),
            "recall": round(sum(bool(gone & pair) for pair in similar) / max(1, len(similar)), 4),
            "precision": round(sum(nearest[number] >= SIMILAR for number in gone) / max(1, len(gone)), 4),
            "pass_the_rules": len(passed[name]),
            "rules_agree_with_ours": round(1 - len(passed[name] ^ passed[OURS]) / len(documents), 4),
        }
        for name, gone in dropped.items()
    }


def rates(taken: dict[str, list[dict]], documents: int, size: int) -> dict[str, dict[str, Any]]:
    """For each contestant, each step, and all of them together: documents and MB a second, and ours beside it."""

    def seconds(name: str, step: str) -> list[float]:
        return [sum(turn.values()) if step == "all" else turn[step] for turn in taken[name]]

    def ratio(name: str, step: str) -> float:
        pairs = zip(seconds(name, step), seconds(OURS, step), strict=True)
        return statistics.median(other / ours for other, ours in pairs)

    return {
        name: {
            step: {
                "documents_per_second": round(documents / statistics.median(seconds(name, step)), 1),
                "megabytes_per_second": round(size / 1e6 / statistics.median(seconds(name, step)), 3),
                "ours_times_as_fast": round(ratio(name, step), 2),
            }
            for step in (*STEPS, "all")
        }
        for name in taken
    }


def print_rates(figures: dict[str, dict[str, Any]]) -> None:
    print(f"\n{'':14}" + "".join(f"{step:>30}" for step in (*STEPS, "all")))
    for name, row in figures.items():
        print(f"{name:14}", end="")
        for cell in row.values():
            print(f"{cell['documents_per_second']:>9,.0f}/s {cell['megabytes_per_second']:>6.2f} MB/s", end="")
            print(f"{cell['ours_times_as_fast']:>7.2f}x", end="")
        print()
    print("(documents and megabytes a second of one core; how many times as fast ours is)")


def print_quality(found: dict[str, dict[str, Any]]) -> None:
    print(f"\n{'':14}{'dropped':>10}{'recall':>10}{'precision':>12}{'pass the rules':>16}{'as ours':>10}")
    for name, row in found.items():
        print(
            f"{name:14}{row['dropped']:>10,}{row['recall']:>10.4f}{row['precision']:>12.4f}"
            f"{row['pass_the_rules']:>16,}{row['rules_agree_with_ours']:>10.2%}"
        )


def main() -> None:
    arguments = parse_arguments()
    originals = read_documents(arguments)
    documents, pairs = plant_duplicates(originals, arguments)
    size = sum(len(document.encode()) for document in documents)
    reports, taken = race(documents, arguments)
    found = quality(reports, documents, pairs)
    figures = rates(taken, len(documents), size)

    conditions = {name: value for name, value in vars(arguments).items() if name != "datatrove"} | {
        "documents": len(documents),
        "bytes": size,
        "planted_pairs": len(pairs),
        "planted_similar": sum(similarity >= SIMILAR for *_, similarity in pairs),
        "processor": processor_name(torch.device("cpu")),
        "python": platform.python_version(),
    }
    print(
        f"{conditions['processor']}, Python {conditions['python']}; {len(documents):,} documents, {size / 1e6:.1f} MB, "
        f"{conditions['planted_similar']:,} of {len(pairs):,} planted pairs with a similarity of {SIMILAR} and more"
    )
    print_rates(figures)
    print_quality(found)
    if not arguments.datatrove:
        print("\ndatatrove is left out: --datatrove names its interpreter, --help says how to get it")
    print()
    print(json.dumps({"benchmark": "data", "conditions": conditions, "rates": figures, "near_duplicates": found}))


if __name__ == "__main__":
    main()
