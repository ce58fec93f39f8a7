"""Time and memory of tokenizer training, `scratch prepare`, near duplicates and shuffling against bytes of text.

The text is the Python source installed on this machine, files in a random order; a longer text begins as a shorter
one. Near duplicates among very many documents, and the order of very many tokens, are measured on made-up ones.
"""

import hashlib
import json
import tempfile
import tracemalloc
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.data_engine import apart
from benchmarks.scaling_curves import CLOCKS, Curve, Point, Quantity
from benchmarks.stages import Cost, cost
from modeling_scratch.tokenization_scratch import ScratchTokenizer
from training.corpus.sources.python import PythonFile, path_reason, python_files, read_python
from training.data.loader import TokenLoader
from training.data.mixture import Mixture
from training.data.shards import write_manifest, write_shard

GROUP = "data"
VOCABULARY = 4096
DOCUMENT = 500  # mean tokens of a made-up document
SEQUENCE, BATCH = 1024, 32
MEMORY = Quantity("megabytes", "memory, MB")
PROCESS = Quantity("megabytes", "largest process, MB", fitted=False)


@cache
def sources() -> list[PythonFile]:
    """The installed Python source in its random order."""
    return sorted(python_files(), key=lambda each: hashlib.sha256(each.id.encode()).digest())


def write_text(file: Path, size: float) -> Path:
    """JSON lines of `size` bytes of installed Python source or a little more, unless they are there already.

    Raises:
        SystemExit: less is installed.
    """
    if file.exists():
        return file
    written = 0
    with file.open("w", encoding="utf-8") as stream:
        for source in sources():
            text = None if path_reason(source.id) else read_python(source.path)
            if text:
                stream.write(json.dumps({"text": text}) + "\n")
                written += len(text.encode())
            if written >= size:
                return file
    raise SystemExit(f"{written / 1e6:.0f} MB of Python source are installed, fewer than {size / 1e6:.0f}")


@cache
def small_tokenizer(folder: Path) -> Path:
    """A tokenizer learned from a megabyte."""
    options = {"data.path": write_text(folder / "1.jsonl", 1e6), "output_dir": folder / "tokenizer"}
    cost("tokenizer", options | {"vocab_size": VOCABULARY}, threads=1)
    return folder / "tokenizer"


def as_point(found: Cost, clock: str) -> Point:
    """Time by the clock, and memory."""
    taken = found.seconds if clock == "wall" else found.processor_seconds
    return {"seconds": taken, "megabytes": found.megabytes}


def train_tokenizer(size: int, folder: Path, clock: str) -> Point:
    """`scratch tokenizer` on so many megabytes."""
    text = write_text(folder / f"{size}.jsonl", size * 1e6)
    with tempfile.TemporaryDirectory() as temporary:
        options = {"data.path": text, "output_dir": f"{temporary}/tokenizer", "vocab_size": VOCABULARY}
        found = cost("tokenizer", options | {"max_bytes": 10**12}, torch.get_num_threads())
    return as_point(found, clock)


def prepare(size: int, folder: Path, clock: str, near: bool) -> Point:
    """`scratch prepare` on so many megabytes, with as many workers as torch has threads."""
    options: dict[str, Any] = {
        "data.path": write_text(folder / f"{size}.jsonl", size * 1e6),
        "data.rules.set": "code",
        "data.cleaning.set": "code",
        "data.dedup.near": str(near).lower(),
        "tokenizer": small_tokenizer(folder),
        "workers": torch.get_num_threads(),
    }
    with tempfile.TemporaryDirectory() as temporary:
        found = cost("prepare", options | {"output_dir": f"{temporary}/data"}, torch.get_num_threads())
    return as_point(found, clock)


def find_near_duplicates(documents: int, _: Path) -> Point:
    """The pass over the signatures of all documents, in one process; memory beside the file of signatures."""
    with tempfile.TemporaryDirectory() as temporary:
        found = apart(f"near({documents}, Path({temporary!r}))")
    return {"seconds": found["seconds"], "megabytes": found["bytes_a_document"] * documents / 1e6}


def write_shards(folder: Path, tokens: int) -> None:
    """About so many made-up tokens in documents of `DOCUMENT` on average, as `scratch prepare` leaves them."""
    ScratchTokenizer.train(["any text will do"], 270).save(folder / "tokenizer")
    lengths = np.random.default_rng(0).geometric(1 / DOCUMENT, tokens // DOCUMENT)
    zeros = np.zeros(lengths.max(), "<u2")
    split = write_shard(folder, "train", (zeros[:length] for length in lengths), VOCABULARY, "made up")
    write_manifest(folder, {"train": split | {"bytes": 4 * tokens}}, folder / "tokenizer", VOCABULARY, {})


def begin_epoch(folder: Path) -> None:
    """Open shards, draw the order of an epoch, and read a batch from its middle."""
    loader = TokenLoader.open(Mixture(str(folder)), "train", "stream", SEQUENCE, BATCH, 0, False)
    loader.read(loader.sequence_ids(loader.packings[0].num_sequences // BATCH // 2))


def shuffle(megatokens: int, folder: Path, clock: str) -> Point:
    """`begin_epoch` on so many million tokens; memory is what it allocates at most."""
    shards = folder / f"shards-{megatokens}"
    if not shards.exists():
        shards.mkdir()
        write_shards(shards, megatokens * 10**6)
    started = CLOCKS[clock]()
    begin_epoch(shards)
    taken = CLOCKS[clock]() - started
    tracemalloc.start()
    begin_epoch(shards)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"milliseconds": 1000 * taken, "megabytes": peak / 1e6}


def curves(clock: str) -> list[Curve]:
    """All curves of the group; time by `clock`."""
    time = Quantity("seconds", "time, s")
    sizes = (1, 4, 16, 32)

    documents = (30_000, 100_000, 300_000, 1_000_000)

    def learn(size: int, folder: Path) -> Point:
        return train_tokenizer(size, folder, clock)

    def exact(size: int, folder: Path) -> Point:
        return prepare(size, folder, clock, near=False)

    def near(size: int, folder: Path) -> Point:
        return prepare(size, folder, clock, near=True)

    def begin(megatokens: int, folder: Path) -> Point:
        return shuffle(megatokens, folder, clock)

    stage, passes = (replace(time, added=True), PROCESS), (time, MEMORY)
    shuffled = (Quantity("milliseconds", "time, ms"), MEMORY)
    return [
        Curve(GROUP, "tokenizer training", "", "MB of text", sizes, (1,), learn, stage),
        Curve(GROUP, "prepare", "exact duplicates", "MB of text", sizes, (1,), exact, stage),
        Curve(GROUP, "prepare", "near duplicates too", "MB of text", sizes, (1,), near, stage),
        Curve(GROUP, "near duplicates", "", "documents", documents, (10_000,), find_near_duplicates, passes),
        Curve(GROUP, "shuffling", "", "million tokens", (16, 64, 256, 1024), (1,), begin, shuffled),
    ]
