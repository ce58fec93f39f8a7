"""One large file through `scratch prepare` to its end: time and memory, killed once on the way and resumed.

    python -m benchmarks.data_large --data 'books_0*.jsonl.gz' --gigabytes 10 --folder /large/disk

The documents are made of passages of `--data` (three sentences each, two to fifty drawn at random), so that rules for
prose pass them. One in ten (`--copies`) repeats others of the thousand around it, with a passage in twenty replaced.
They are JSON lines in a single file, which one process reads.

`--kill-at` is the share of the blocks after which the whole process group is killed; the same command is then run
again. Time is of the wall and of the processors; memory is what all processes have for themselves, each shared page
counted once, read twice a second. Both are written to `FOLDER/log.jsonl` on the way, so that a run that is stopped has
its figures. Needs Linux, and four times the size in --folder. The last line is all of it as JSON.
"""

import argparse
import glob
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from tqdm import tqdm

from benchmarks.data_memory import OWN, memory
from benchmarks.machine import processor_name
from benchmarks.stages import ROOT, scratch
from training.corpus.curation.blocks import BLOCK_BYTES
from training.corpus.sources.records import read_records
from training.data.shards import read_manifest

AT_ONCE = 1000  # documents that are made together
INTERVAL = 0.5  # seconds from one reading of memory to the next


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a file or glob of JSON lines with a column `text`")
    parser.add_argument("--gigabytes", type=float, default=10)
    parser.add_argument("--copies", type=float, default=0.1, help="near duplicates, as a share of the documents")
    parser.add_argument("--kill-at", type=float, default=0.5, metavar="SHARE", help="of the blocks; 0: not at all")
    parser.add_argument("--workers", type=int, default=1, help="processes that clean and filter")
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="more options of `scratch prepare`")
    parser.add_argument("--folder", type=Path, required=True, help="for the text and what becomes of it")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def passages_of(pattern: str) -> list[str]:
    """Passages of three sentences, as they are inside of a JSON string."""
    passages = []
    for file in sorted(glob.glob(pattern)):
        for _, record in read_records(Path(file)):
            sentences = [" ".join(sentence.split()) for sentence in re.split(r"(?<=[.!?])\s+", record["text"])]
            passages += [json.dumps(" ".join(sentences[at : at + 3]))[1:-1] for at in range(0, len(sentences), 3)]
    return passages


def write_documents(path: Path, size: float, passages: list[str], copies: float, seed: int) -> int:
    """Write JSON lines of about `size` bytes of text. Returns the number of documents."""
    draw = np.random.default_rng(seed)
    written, documents = 0, 0
    with path.open("w") as stream, tqdm(total=size, desc="making text", unit="B", unit_scale=True) as bar:
        while written < size:
            counts = np.clip(draw.lognormal(np.log(6), 0.8, AT_ONCE), 2, 50).astype(int)
            drawn = draw.integers(0, len(passages), counts.sum())
            ends = np.cumsum(counts)
            for place in np.flatnonzero(draw.random(AT_ONCE) < copies)[1:]:
                # The end of a document before it, or all of that, with a passage in twenty replaced.
                earlier = ends[draw.integers(0, place)]
                copy = drawn[max(0, earlier - counts[place]) : earlier]
                changed = np.where(draw.random(len(copy)) < 0.05, draw.integers(0, len(passages), len(copy)), copy)
                drawn[ends[place] - len(copy) : ends[place]] = changed
            chosen = [passages[number] for number in drawn.tolist()]
            texts = [
                " ".join(chosen[end - count : end]) for end, count in zip(ends.tolist(), counts.tolist(), strict=True)
            ]
            stream.writelines(f'{{"text": "{text}"}}\n' for text in texts)
            made = sum(map(len, texts))
            written, documents = written + made, documents + AT_ONCE
            bar.update(made)
    return documents


def prepare(options: dict[str, Any], work: Path, log: Path, kill_after: float) -> dict[str, Any]:
    """One run of `scratch prepare`, killed once it has `kill_after` blocks (0: never)."""
    command = [sys.executable, "-m", "training", "prepare", *(f"--{key}={value}" for key, value in options.items())]
    environment = os.environ | {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    started = time.monotonic()
    process = psutil.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    row, peaks = {"seconds": 0.0}, {"filter pass": 0, "afterwards": 0}
    noted = 0.0
    while process.poll() is None:
        time.sleep(INTERVAL)
        processes = [process.pid, *(child.pid for child in children(process))]
        step = "afterwards" if any(work.glob("blocks/text/*.json")) else "filter pass"
        own = sum(memory(number).get(kind, 0) for number in processes for kind in OWN)
        peaks[step] = max(peaks[step], own)
        if time.monotonic() - noted > 30:
            noted = time.monotonic()
            blocks = sum(1 for _ in work.glob("blocks/text/00000/*.json"))
            row = {
                "seconds": round(noted - started, 1),
                "processor_seconds": processor_seconds(processes) or row.get("processor_seconds"),
                "step": step,
                "megabytes_read": round(blocks * BLOCK_BYTES / 1e6),
                "own_megabytes": round(own / 1e6, 1),
                "peak_megabytes": {step: round(peak / 1e6, 1) for step, peak in peaks.items()},
            }
            with log.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
            if kill_after and blocks >= kill_after:
                os.killpg(process.pid, signal.SIGKILL)
    killed = process.wait() == -signal.SIGKILL
    if process.returncode and not (killed and kill_after):
        raise SystemExit(f"scratch prepare failed: exit code {process.returncode}")
    peaks = {step: round(peak / 1e6, 1) for step, peak in peaks.items()}
    return row | {"seconds": round(time.monotonic() - started, 1), "killed": killed, "peak_megabytes": peaks}


def children(process: psutil.Popen) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def processor_seconds(processes: list[int]) -> float | None:
    """Of all these processes so far; None if one has just ended."""
    try:
        times = [psutil.Process(number).cpu_times() for number in processes]
    except psutil.NoSuchProcess:
        return None
    return round(sum(each.user + each.system for each in times), 1)


def main() -> None:
    arguments = parse_arguments()
    folder = arguments.folder
    if folder.exists():
        raise SystemExit(f"--folder: {folder} exists already; name a new one")
    text, log, output = folder / "text.jsonl", folder / "log.jsonl", folder / "data"
    size = arguments.gigabytes * 1e9
    passages = passages_of(arguments.data)
    if not passages:
        raise SystemExit(f"--data: no text in {arguments.data}")
    folder.mkdir(parents=True)
    write_documents(folder / "sample.jsonl", 8e6, passages, 0, arguments.seed)
    options = {"data.path": folder / "sample.jsonl", "output_dir": folder / "tokenizer"}
    scratch("tokenizer", options | {"vocab_size": arguments.vocab_size}, threads=1)
    documents = write_documents(text, size, passages, arguments.copies, arguments.seed)
    options = {
        "data.path": text,
        "tokenizer": folder / "tokenizer",
        "output_dir": output,
        "data.rules.set": "web",
        "data.cleaning.set": "web",
        "workers": arguments.workers,
    } | dict(option.split("=", 1) for option in arguments.set)
    work, runs = folder / "data.partial" / "work", []
    if arguments.kill_at:
        runs.append(prepare(options, work, log, arguments.kill_at * size / BLOCK_BYTES))
    runs.append(prepare(options, work, log, 0))
    manifest = read_manifest(output)
    result = {
        "benchmark": "data_large",
        "conditions": {key: str(value) for key, value in vars(arguments).items() if key != "folder"}
        | {"processor": processor_name(torch.device("cpu")), "python": platform.python_version()},
        "documents": documents,
        "bytes": text.stat().st_size,
        "funnel": {key: manifest["funnel"][key] for key in ("dropped", "splits")},
        "runs": runs,
    }
    for run in runs:
        print(run)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
