"""`scratch prepare` with and without an engine: the same bytes, and what the tasks and the rest of it take.

    python -m benchmarks.data_engine --data 'books_0*.jsonl.gz'

The contestants take turns: one process without an engine, then tasks of the local engine, one at a time and several.
Processor time is that of all processes together; on a busy machine it is what can be compared. What no engine spreads
is timed apart, on made-up hashes: the passes over all documents, with the memory they take, and the joining of tokens.
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
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from training.data.dedup.exact import first_of_each
from training.data.dedup.minhash import MinHashConfig
from training.data.dedup.neighbours import near_duplicates
from training.data.shards import join_shards, write_shard

ROOT = Path(__file__).parents[1]
PROGRAM = """
import sys
from training.data.sources import parts
parts.PART_BYTES = int(sys.argv[1])
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


def contents(folder: Path) -> dict[str, str]:
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if file.name != "provenance.json"
    }


def apart(work: str, count: int, folder: Path) -> dict[str, float]:
    """What one of the functions below prints, in a process of its own."""
    call = (
        f"from benchmarks import data_engine as b; from pathlib import Path; b.{work}({count}, Path({str(folder)!r}))"
    )
    found = subprocess.run([sys.executable, "-c", call], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(found.stdout)


@contextlib.contextmanager
def measured(count: int) -> Iterator[None]:
    """Prints processor seconds and the most bytes of memory a document. Pages of mapped files, which the system takes
    back when it needs them, are not counted."""

    def memory() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

    def look() -> None:
        while not over.wait(0.01):
            seen.append(memory())

    over, seen = threading.Event(), [memory()]
    thread = threading.Thread(target=look)
    thread.start()
    started = time.process_time()
    yield
    seconds = time.process_time() - started
    over.set()
    thread.join()
    print(json.dumps({"seconds": seconds, "bytes_a_document": (max(seen) - seen[0]) / count}))


def exact(count: int, _: Path) -> None:
    hashes = np.random.default_rng(0).integers(0, 2**63, (count, 2), dtype=np.uint64)
    with measured(count):
        first_of_each(hashes)


def near(count: int, folder: Path) -> None:
    """One document in ten repeats nine tenths of another."""
    config, draw = MinHashConfig(), np.random.default_rng(0)
    written = np.lib.format.open_memmap(folder / "signatures.npy", "w+", np.uint32, (count, config.permutations))
    same = round(0.9 * config.permutations)
    for start in range(0, count, 10_000):
        rows = draw.integers(0, 2**32 - 1, (len(written[start : start + 10_000]), config.permutations), dtype=np.uint32)
        tenth = len(rows) // 10
        rows[-tenth:, :same] = rows[:tenth, :same]
        written[start : start + 10_000] = rows
    written.flush()
    signatures = np.load(folder / "signatures.npy", mmap_mode="r")
    with measured(count):
        found = near_duplicates(signatures, config)
    assert len(found.dropped) >= 0.09 * count


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


def main() -> None:
    arguments = read_arguments()
    plain, engine = "no engine", f"--engine.kind=local --engine.tasks={arguments.tasks}".split()
    contestants = {plain: ["--workers=1"], "engine, 1 at a time": [*engine, "--engine.workers=1"]}
    contestants[f"engine, {arguments.workers} at a time"] = [*engine, f"--engine.workers={arguments.workers}"]
    found = {name: [] for name in contestants}
    with tempfile.TemporaryDirectory() as temporary:
        for number in range(arguments.rounds):
            for place, (name, options) in enumerate(contestants.items()):
                found[name].append(prepare(arguments, Path(temporary), f"{number}-{place}", *options))
        outputs = [contents(path) for path in Path(temporary).iterdir() if path.is_dir()]
        same = all(output == outputs[0] for output in outputs)
        manifest = json.loads(next(Path(temporary).glob("0-0/manifest.json")).read_text())
    read = manifest["funnel"]["read"]
    megabytes = read["bytes"] / 1e6
    medians = {
        name: {key: round(statistics.median(run[key] for run in runs), 2) for key in runs[0]}
        for name, runs in found.items()
    }
    print(f"{read['documents']:,} documents, {megabytes:.1f} MB; all outputs the same bytes: {same}")
    print(f"{'':<24}{'seconds':>10}{'processor seconds':>20}{'MB/s a core':>14}")
    for name, row in medians.items():
        rate = megabytes / row["processor_seconds"]
        print(f"{name:<24}{row['seconds']:>10.1f}{row['processor_seconds']:>20.1f}{rate:>14.2f}")
    passes = {}
    print(f"\n{'for all documents':<24}{'seconds a million':>20}{'bytes a document':>20}")
    for work in ("exact", "near", "join"):
        with tempfile.TemporaryDirectory() as temporary:
            row = apart(work, arguments.documents, Path(temporary))
        row["seconds"] = round(row["seconds"] * 1e6 / arguments.documents, 3)
        passes[work] = row | {"bytes_a_document": round(row["bytes_a_document"])}
        print(f"{work:<24}{row['seconds']:>20.2f}{passes[work]['bytes_a_document']:>20}")
    conditions = vars(arguments) | {"machine": platform.machine(), "cores": os.cpu_count(), "megabytes": megabytes}
    ratios = {
        name: round(medians[plain]["processor_seconds"] / row["processor_seconds"], 3) for name, row in medians.items()
    }
    result = {"conditions": conditions, "same_bytes": same, "medians": medians, "ratios": ratios, "passes": passes}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
