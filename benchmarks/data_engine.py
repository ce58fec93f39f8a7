"""`scratch prepare` with and without an engine: the same bytes, and what the tasks and the rest of it take.

    python -m benchmarks.data_engine --data 'books_0*.jsonl.gz'

The contestants take turns: one process without an engine, then tasks of the local engine, one at a time and several.
Processor time is that of all processes together, with what each takes to start; on a busy machine it is what can be
compared. Then the steps by themselves, in one process: what is spread, and what is not. Last, on made-up hashes and
tokens, what is not spread for a great many documents, with the memory that it takes.
"""

import argparse
import contextlib
import hashlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from training.corpus.curation.config import DataConfig, DedupConfig
from training.corpus.curation.curation import Curation
from training.corpus.curation.filter_pass import run_filter_pass_alone, source_partitions
from training.corpus.curation.splitting import SPLITS
from training.corpus.dedup.exact import first_of_each
from training.corpus.dedup.minhash import MinHashConfig
from training.corpus.dedup.neighbours import near_duplicates
from training.corpus.dedup.partitioned import near_duplicates_by_tasks
from training.corpus.output.distributed_encoding import encode_partitions, join_partitions, token_partitions
from training.corpus.output.encoding import Encoder
from training.corpus.rules import RulesConfig
from training.corpus.rules.cleaning import CleaningConfig
from training.corpus.sources import partitions as sizes
from training.data.shards import join_shards, write_shard

ROOT = Path(__file__).parents[1]
PLAIN, SPREAD = "no engine", ("filtering", "tokenizing")
PROGRAM = """
import sys
from training.corpus.sources import partitions
partitions.PARTITION_BYTES = int(sys.argv[1])
from training.cli import main
if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[2:]]))
"""


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="PATH", help="files, a folder or a glob")
    parser.add_argument("--tokenizer", required=True, metavar="FOLDER")
    parser.add_argument("--rules", default="books", help="the set of rules and cleaning steps")
    parser.add_argument("--part-megabytes", type=float, default=4, help="of a part, as stored")
    parser.add_argument("--tasks", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2, help="tasks at a time, in the last contestant")
    parser.add_argument("--documents", type=int, default=1_000_000, help="in the passes over all documents")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def prepare(arguments: argparse.Namespace, folder: Path, name: str, *options: str) -> dict[str, float]:
    """One run; its seconds, and those of its processors."""
    (folder / "program.py").write_text(PROGRAM)
    flags = [f"--data.path={arguments.data}", f"--tokenizer={arguments.tokenizer}", "--data.dedup.near=true"]
    flags += [f"--data.rules.set={arguments.rules}", f"--data.cleaning.set={arguments.rules}"]
    flags += [f"--output_dir={folder / name}", *options]
    command = [sys.executable, "-u", folder / "program.py", str(round(arguments.part_megabytes * 1e6)), *flags]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAYON_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    subprocess.run(command, stdout=subprocess.DEVNULL, env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.monotonic() - started, "processor_seconds": processor}


def steps(arguments: argparse.Namespace) -> None:
    """Prints the processor seconds of each step, those of tasks in this process."""
    rules, cleaning = RulesConfig(set=arguments.rules), CleaningConfig(set=arguments.rules)
    config = DataConfig(path=arguments.data, rules=rules, cleaning=cleaning, dedup=DedupConfig(near=True))
    tokenizer = Path(arguments.tokenizer)
    encoder = Encoder(tokenizer, 0, Tokenizer.from_file(str(tokenizer / "tokenizer.json")).get_vocab_size())
    sizes.PARTITION_BYTES = round(arguments.part_megabytes * 1e6)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    seconds, started = {}, time.process_time()

    def lap(name: str) -> None:
        nonlocal started
        seconds[name] = round(time.process_time() - started, 3)
        started = time.process_time()

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run_filter_pass_alone(sum(source_partitions(config, folder).values(), []), config)
        lap("filtering")
        corpus = Curation(config, folder, workers=1).run()
        corpus.selection.save(folder / "selection")
        lap("hashes")
        partitions = token_partitions(corpus)
        lap("")
        encode_partitions(partitions, encoder, folder / "selection")
        lap("tokenizing")
        for split in SPLITS:
            join_partitions(folder, split, split, partitions, encoder)
        lap("joining")
    del seconds[""]
    print(json.dumps(seconds))


def contents(folder: Path) -> dict[str, str]:
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if file.name not in ("provenance.json", "recipe.yaml")
    }


def apart(call: str) -> dict[str, float]:
    """What one of the functions here prints, called in a process of its own."""
    code = f"from argparse import Namespace; from pathlib import *; from benchmarks.data_engine import *; {call}"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(found.stdout)


@contextlib.contextmanager
def measured(count: int) -> Iterator[dict[str, float]]:
    """Prints processor seconds, the most bytes of memory a document, and what the `with` block adds. Pages of mapped
    files, which the system takes back when it needs them, are not counted."""

    def memory() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

    def look() -> None:
        while not over.wait(0.01):
            seen.append(memory())

    over, seen = threading.Event(), [memory()]
    thread = threading.Thread(target=look)
    thread.start()
    found, started = {}, time.process_time()
    yield found
    seconds = time.process_time() - started
    over.set()
    thread.join()
    print(json.dumps({"seconds": seconds, "bytes_a_document": (max(seen) - seen[0]) / count} | found))


def exact(count: int, _: Path) -> None:
    hashes = np.random.default_rng(0).integers(0, 2**63, (count, 2), dtype=np.uint64)
    with measured(count):
        first_of_each(hashes)


def write_signatures(count: int, folder: Path, config: MinHashConfig) -> Path:
    """One document in ten repeats nine tenths of another."""
    draw = np.random.default_rng(0)
    written = np.lib.format.open_memmap(folder / "signatures.npy", "w+", np.uint32, (count, config.permutations))
    same = round(0.9 * config.permutations)
    for start in range(0, count, 10_000):
        rows = draw.integers(0, 2**32 - 1, (len(written[start : start + 10_000]), config.permutations), dtype=np.uint32)
        tenth = len(rows) // 10
        rows[-tenth:, :same] = rows[:tenth, :same]
        written[start : start + 10_000] = rows
    written.flush()
    return folder / "signatures.npy"


def near(count: int, folder: Path) -> None:
    config = MinHashConfig()
    signatures = np.load(write_signatures(count, folder, config), mmap_mode="r")
    with measured(count):
        found = near_duplicates(signatures, config)
    assert len(found.dropped) >= 0.09 * count


def near_tasks(count: int, folder: Path) -> None:
    """The same documents, a quarter of them in a task. Memory is that of a task for each of its documents."""
    config, rows = MinHashConfig(), -(-count // 4)
    signatures = write_signatures(count, folder, config)
    with measured(rows) as found:

        def run(name: str, items: list, sizes: list[int], work: Callable[[list], None], done: object) -> None:
            started = time.process_time()
            for item in items:
                work([item])
            found[name] = time.process_time() - started

        dropped = near_duplicates_by_tasks(signatures, config, folder / "near", 1, run, rows).dropped
    assert len(dropped) >= 0.09 * count


def join(count: int, folder: Path) -> None:
    """Documents of 500 tokens, in parts of 10,000."""
    parts, ids = [], np.arange(500, dtype="<u2")
    for number in range(count // 10_000):
        part = folder / f"{number}"
        part.mkdir()
        write_shard(part, "train", (ids for _ in range(10_000)), 8192, "made up")
        parts.append(part / "train-00000.ds")
    with measured(count):
        join_shards(folder, "train", parts, 8192, "made up")


def race(arguments: argparse.Namespace) -> dict[str, Any]:
    """Whole runs, with and without an engine."""
    engine = f"--engine.kind=local --engine.tasks={arguments.tasks}".split()
    contestants = {PLAIN: ["--workers=1"], "engine, 1 at a time": [*engine, "--engine.workers=1"]}
    contestants[f"engine, {arguments.workers} at a time"] = [*engine, f"--engine.workers={arguments.workers}"]
    found = {name: [] for name in contestants}
    with tempfile.TemporaryDirectory() as temporary:
        for number in range(arguments.rounds):
            for place, (name, options) in enumerate(contestants.items()):
                found[name].append(prepare(arguments, Path(temporary), f"{number}-{place}", *options))
        outputs = [contents(path) for path in Path(temporary).iterdir() if path.is_dir()]
        read = json.loads((Path(temporary) / "0-0" / "manifest.json").read_text())["funnel"]["read"]
    medians = {
        name: {key: round(statistics.median(run[key] for run in runs), 2) for key in runs[0]}
        for name, runs in found.items()
    }
    seconds = {name: row["processor_seconds"] for name, row in medians.items()}
    ratios = {name: round(seconds[PLAIN] / seconds[name], 3) for name in seconds}
    same = all(output == outputs[0] for output in outputs)
    return {"read": read, "same_bytes": same, "medians": medians, "ratios": ratios}


def main() -> None:
    arguments = read_arguments()
    result = {
        "benchmark": "data_engine",
        "conditions": vars(arguments) | {"machine": platform.machine(), "cores": os.cpu_count()},
    }
    result |= race(arguments)
    read = result["read"]
    print(f"{read['documents']:,} documents, {read['bytes'] / 1e6:.1f} MB; the same bytes: {result['same_bytes']}\n")
    print(f"{'whole runs':<24}{'seconds':>14}{'processor seconds':>20}")
    for name, row in result["medians"].items():
        print(f"{name:<24}{row['seconds']:>14.1f}{row['processor_seconds']:>20.1f}")
    rounds = [apart(f"steps({arguments})") for _ in range(arguments.rounds)]
    result["steps"] = {step: round(statistics.median(row[step] for row in rounds), 3) for step in rounds[0]}
    print(f"\n{'steps':<24}{'spread':>14}{'processor seconds':>20}{'MB/s':>10}")
    for step, seconds in result["steps"].items():
        spread = "yes" if step in SPREAD else "no"
        print(f"{step:<24}{spread:>14}{seconds:>20.1f}{read['bytes'] / 1e6 / seconds:>10.2f}")
    result["passes"] = {}
    print(f"\n{'for all documents':<24}{'seconds a million':>20}{'bytes a document':>20}")
    for work in ("exact", "near", "near_tasks", "join"):
        with tempfile.TemporaryDirectory() as temporary:
            row = apart(f"{work}({arguments.documents}, Path({temporary!r}))")
        memory = round(row.pop("bytes_a_document"))
        rates = {step: round(seconds * 1e6 / arguments.documents, 3) for step, seconds in row.items()}
        result["passes"][work] = rates | {"bytes": memory}
        print(f"{work:<24}{rates.pop('seconds'):>20.2f}{memory:>20}")
        for step, seconds in rates.items():
            print(f"  {step:<22}{seconds:>20.2f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
