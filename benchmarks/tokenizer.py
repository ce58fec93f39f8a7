"""Training and encoding speed of our tokenizer beside a plain implementation and the Rust library.

    python -m benchmarks.tokenizer                                # 10 MB of the Python source on this machine
    python -m benchmarks.tokenizer --data books.jsonl.gz --megabytes 10 --merges 8000
    python -m benchmarks.tokenizer --megabytes 1 --merges 500 --naive-points 0    # nothing is estimated

Training is raced against the textbook loop: count all pairs of all words, merge the most frequent one everywhere,
repeat. It works on distinct words with their counts, as ours does, and not on the running text, which would be slower
still. To its end it takes twenty minutes and more; therefore single merges of it are timed, `--naive-points` of them,
at states that ours has reached, more of them early on. A merge grows cheaper as the words get shorter: between two
points every merge is charged what the cheaper of the two takes. With 0, all merges are timed, and nothing is
estimated. Python's garbage collector rests during these merges, and during nothing else.

Time is that of the processor, all threads together. Contestants take turns within every round; figures are medians
over rounds, ratios medians of the ratios within rounds. What is encoded is the held-out text: by ours with an empty
memory of words (cold), then with a full one (warm), and by the Rust library in one batch. The merges and the tokens of
all contestants must be equal. benchmarks/unspaced.py has text without spaces. The last line is all of it as JSON.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from tqdm import tqdm

from benchmarks.machine import processor_name
from modeling_scratch.tokenization_base import SPECIAL_TOKENS
from modeling_scratch.tokenization_scratch import MINIMUM_COUNT, Pair, ScratchTokenizer
from training.corpus.curation.config import DataConfig
from training.corpus.curation.curation import Curation
from training.corpus.curation.splitting import SPLITS
from training.corpus.sources import PYTHON

OURS, NAIVE, RUST = "ours", "textbook loop", "Rust library"
VALIDATION = 0.05


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=PYTHON, help="a file, folder or glob of text; default: Python source")
    parser.add_argument("--megabytes", type=float, default=10, help="of text to train on")
    parser.add_argument("--merges", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--naive-points", type=int, default=9, help="merges of the textbook loop to time; 0: all")
    arguments = parser.parse_args()
    if arguments.naive_points == 1:
        parser.error("--naive-points: at least 2, the first merge and the last; or 0, all")
    return arguments


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor time of `work`, all threads together, and its result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def naive_merge(words: list[list[int]], counts: list[int], next_id: int) -> tuple[Pair, list[list[int]]]:
    """One merge of the textbook loop: the most frequent pair, of equals the one with the smaller ids, and the words."""
    pair_counts: dict[Pair, int] = defaultdict(int)
    for word, count in zip(words, counts, strict=True):
        for pair in pairwise(word):
            pair_counts[pair] += count
    best = min(pair_counts, key=lambda pair: (-pair_counts[pair], pair))
    return best, [replace(word, best, next_id) for word in words]


def replace(word: list[int], pair: Pair, merged: int) -> list[int]:
    result, position = [], 0
    while position < len(word):
        if position + 1 < len(word) and (word[position], word[position + 1]) == pair:
            result.append(merged)
            position += 2
        else:
            result.append(word[position])
            position += 1
    return result


def naive_seconds(word_counts: dict[str, int], merges: list[Pair], points: int) -> tuple[float, dict[int, float]]:
    """Time of the textbook loop after the words are counted, and of its single merges by their rank."""
    last = len(merges) - 1
    ranks = range(last + 1)
    if points:
        ranks = sorted({round(last * (place / (points - 1)) ** 2) for place in range(points)})
    counts, measured = list(word_counts.values()), {}
    for rank in ranks:
        reached = ScratchTokenizer(merges[:rank])
        if rank - 1 not in measured:
            words = [reached._merge(reached._byte_symbols(word)) for word in word_counts]
        gc.collect()
        gc.disable()  # a collection that falls into one merge would be charged to all merges around it
        measured[rank], (best, words) = seconds(lambda: naive_merge(words, counts, len(reached)))
        gc.enable()
        if best != merges[rank]:
            raise SystemExit(f"merge {rank} of the textbook loop is another than ours")
    total = measured[last] + sum(
        (following - rank) * min(measured[rank], measured[following]) for rank, following in pairwise(ranks)
    )
    return total, measured


def train_rust(texts: list[str], vocab_size: int, pre_tokenizer: pre_tokenizers.PreTokenizer) -> Tokenizer:
    """A byte-pair tokenizer of the Rust library, with our special tokens and least count of a pair."""
    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizer
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=MINIMUM_COUNT,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rust.train_from_iterator(texts, trainer)
    return rust


def race_training(
    texts: list[str], arguments: argparse.Namespace
) -> tuple[dict[str, Any], ScratchTokenizer, Tokenizer]:
    """Figures, and the tokenizers that ours and the Rust library learnt."""
    vocab_size = len(ScratchTokenizer([])) + arguments.merges
    pre_tokenizer = ScratchTokenizer([]).to_backend().pre_tokenizer
    taken: dict[str, list[float]] = defaultdict(list)
    points: dict[int, list[float]] = defaultdict(list)
    for _ in tqdm(range(arguments.rounds), desc="training", unit="round"):
        ours_seconds, ours = seconds(lambda: ScratchTokenizer.train(texts, vocab_size))
        rust_seconds, rust = seconds(lambda: train_rust(texts, vocab_size, pre_tokenizer))
        if ours.merges != [tuple(merge) for merge in json.loads(rust.to_str())["model"]["merges"]]:
            raise SystemExit("the Rust library learnt other merges than ours")
        counting, word_counts = seconds(lambda: ours.count_words(texts))
        merging, measured = naive_seconds(word_counts, list(ours.ranks), arguments.naive_points)
        for name, figure in ((OURS, ours_seconds), (RUST, rust_seconds), (NAIVE, counting + merging)):
            taken[name].append(figure)
        for rank, figure in measured.items():
            points[rank].append(figure)
    figures = {
        "distinct_words": len(word_counts),
        "merges": len(ours.ranks),
        "seconds": {name: round(statistics.median(times), 3) for name, times in taken.items()},
        "ours_times_as_fast_as_textbook": round(ratio(taken[NAIVE], taken[OURS]), 1),
        "ours_times_the_rust_time": round(ratio(taken[OURS], taken[RUST]), 2),
        "textbook_merges_timed": len(points),
    }
    if arguments.naive_points:
        figures["textbook_seconds_by_merge"] = {rank: round(statistics.median(t), 4) for rank, t in points.items()}
    return figures, ours, rust


def race_encoding(
    texts: list[str], ours: ScratchTokenizer, rust: Callable[[], Tokenizer], rounds: int
) -> dict[str, Any]:
    """Figures of both. `rust` makes the tokenizer of the library anew in every round, with an empty memory of words."""
    size = sum(len(text.encode()) for text in texts)
    taken: dict[str, list[float]] = defaultdict(list)
    for _ in tqdm(range(rounds), desc="encoding", unit="round"):
        fresh = ScratchTokenizer(ours.ranks)
        cold_seconds, cold = seconds(lambda: [fresh.encode(text) for text in texts])
        warm_seconds, warm = seconds(lambda: [fresh.encode(text) for text in texts])
        theirs = rust()
        rust_seconds, batch = seconds(lambda: theirs.encode_batch_fast(texts))
        if not cold == warm == [encoding.ids for encoding in batch]:
            raise SystemExit("the Rust library encodes otherwise than ours")
        for name, figure in (("ours, cold", cold_seconds), ("ours, warm", warm_seconds), (RUST, rust_seconds)):
            taken[name].append(figure)
    return {
        "bytes": size,
        "tokens": sum(map(len, cold)),
        "megabytes_per_second": {name: round(size / 1e6 / statistics.median(t), 3) for name, t in taken.items()},
        "rust_times_as_fast_as_ours_cold": round(ratio(taken["ours, cold"], taken[RUST]), 2),
    }


def ratio(slower: list[float], faster: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(slower, faster, strict=True))


def main() -> None:
    arguments = parse_arguments()
    config = DataConfig(
        path=arguments.data,
        max_bytes=round(arguments.megabytes * 1e6 / (1 - VALIDATION)),
        validation_fraction=VALIDATION,
    )
    with tempfile.TemporaryDirectory() as folder:
        corpus = Curation(config, Path(folder)).run()
        texts, held_out = ([document.text for document in corpus.documents(split)] for split in SPLITS)
    size = corpus.size("train")
    training, ours, rust = race_training(texts, arguments)
    encoding = race_encoding(held_out, ours, lambda: Tokenizer.from_str(rust.to_str()), arguments.rounds)

    conditions = vars(arguments) | {
        "bytes": size,
        "processor": processor_name(torch.device("cpu")),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "tokenizers": tokenizers.__version__,
    }
    print(
        f"{conditions['processor']}, {conditions['cores']} cores, Python {conditions['python']}, "
        f"tokenizers {tokenizers.__version__}; seconds of processor time"
    )
    words, merges = training["distinct_words"], training["merges"]
    print(f"\ntraining: {merges:,} merges on {size / 1e6:.2f} MB ({words:,} distinct words) of {arguments.data}")
    for name, figure in training["seconds"].items():
        print(f"  {name:16}{figure:>12,.2f} s")
    timed = training["textbook_merges_timed"]
    if timed < merges:
        print(
            f"  (the textbook loop: {timed} of its {merges:,} merges timed, those between charged as the cheaper end)"
        )
    print(f"  ours is {training['ours_times_as_fast_as_textbook']:,} times as fast as the textbook loop")
    print(f"  ours takes {training['ours_times_the_rust_time']} times the time of the Rust library")
    print(f"\nencoding: {encoding['bytes'] / 1e6:.2f} MB of held-out text, {encoding['tokens']:,} tokens")
    for name, figure in encoding["megabytes_per_second"].items():
        print(f"  {name:16}{figure:>12,.2f} MB/s")
    print()
    results = {"training": training, "encoding": encoding}
    print(json.dumps({"benchmark": "tokenizer", "conditions": conditions} | results))


if __name__ == "__main__":
    main()
