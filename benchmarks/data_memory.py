"""How much memory `scratch prepare` takes, the longer the text.

    python -m benchmarks.data_memory --megabytes 250 500 1000
    python -m benchmarks.data_memory --megabytes 40 80 160 --words 10 --set data.dedup.lines=true

For each size, documents are made up on disk, the same ones every time: words drawn by Zipf's law, a median of `--words`
in a document but 20 at least, and a share of copies in which a word of fifty is another (`--copies`). Then `scratch
prepare` finds those and writes tokens, in processes of its own, while the memory of all of them together is read from
the kernel several times a second: what they have for themselves (each shared page counted once), and beside it what
they have mapped of files, which the kernel takes back when others want it.

There are two peaks. That of the filter pass, in which workers clean, filter and hash some megabytes at a time, does not
grow with the text. That of what follows, on the hashes of all documents, does: a straight line through the sizes gives
the bytes of each further document, and what `--predict` documents would take (10 GB of 2 kB each): computed, not
measured. Memory goes by documents and not by their length, so short ones measure the same sooner.

Needs Linux, and three times the size in --folder. The last line is all of it as JSON.
"""

import argparse
import json
import platform
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from tqdm import tqdm

from benchmarks.machine import processor_name
from benchmarks.stages import scratch
from training.data.shards import read_manifest

OWN, MAPPED = ("Pss_Anon", "Pss_Shmem"), ("Pss_File",)
WORDS = 50_000
AT_ONCE = 5_000  # documents that are made together


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", nargs="+", type=float, default=[250, 500, 1000], help="of text, for each run")
    parser.add_argument("--words", type=int, default=200, help="of a document, in the median")
    parser.add_argument("--predict", type=int, default=5_000_000, metavar="DOCUMENTS", help="to compute for")
    parser.add_argument("--copies", type=float, default=0.1, help="as a share of the documents")
    parser.add_argument("--workers", type=int, default=2, help="processes that clean and filter")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="more options of `scratch prepare`")
    parser.add_argument("--interval", type=float, default=0.1, help="seconds from one reading of memory to the next")
    parser.add_argument("--folder", help="for the text and what becomes of it; by default where temporary files go")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def write_documents(path: Path, size: float, words_of_each: int, copies: float, seed: int) -> int:
    """JSON lines of about `size` bytes of text; a longer file begins as a shorter one. Returns how many there are."""
    draw = np.random.default_rng(seed)
    letters, lengths = np.array(list("etaoinshrdlucmfwygpb")), draw.integers(2, 10, WORDS)
    ends = draw.choice(["", ",", ".", ".\n"], WORDS, p=[0.86, 0.06, 0.06, 0.02])
    words = ["".join(draw.choice(letters, length)) + end for length, end in zip(lengths, ends, strict=True)]
    frequencies = 1 / np.arange(10, WORDS + 10)
    thresholds = np.cumsum(frequencies / frequencies.sum())
    written, documents = 0, 0
    with path.open("w") as stream, tqdm(total=size, desc="making text", unit="B", unit_scale=True) as bar:
        while written < size:
            counts = np.clip(draw.lognormal(np.log(words_of_each), 1.1, AT_ONCE), 20, 50_000).astype(int)
            drawn = np.searchsorted(thresholds, draw.random(counts.sum())).clip(max=WORDS - 1)
            texts = [ids.tolist() for ids in np.split(drawn, np.cumsum(counts)[:-1])]
            for place in np.flatnonzero(draw.random(AT_ONCE) < copies):
                # A copy of one of the documents before it, with a word in fifty replaced.
                text = np.array(texts[draw.integers(0, place)] if place else texts[place])
                changed = draw.random(len(text)) < 0.02
                text[changed] = draw.integers(0, WORDS, changed.sum())
                texts[place] = text.tolist()
            for ids in texts:
                text = " ".join([words[word] for word in ids])
                stream.write(json.dumps({"text": text}) + "\n")
                written += len(text)
                documents += 1
                if written >= size:
                    break
            bar.update(min(written, size) - bar.n)
    return documents


def memory(process: int) -> dict[str, int]:
    """Bytes of a process: each of the kernel's kinds, a page that others share counted by its share."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:  # it has ended
        return {}
    return {name: int(value.split()[0]) * 1024 for name, _, value in (line.partition(":") for line in lines)}


class Watch:
    """The highest memory of all processes that this one starts, while in a `with` block.

    Args:
        interval: seconds from one reading to the next.
        turn: a file that comes into being when the filter pass is over.

    Attributes:
        own: bytes that they had for themselves at most, all together, before that and after it.
        mapped: bytes that they had mapped of files at most.
    """

    def __init__(self, interval: float, turn: Path):
        self.own, self.mapped, self._interval, self._turn = [0, 0], 0, interval, turn
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        later = False  # the file goes in the end
        while not self._over.wait(self._interval):
            later = later or self._turn.exists()
            processes = psutil.Process().children(recursive=True)  # the stage's own comes first
            # Workers that have nothing left to do need a moment to end.
            readings = [memory(process.pid) for process in processes[: 1 if later else None]]
            own, mapped = (
                sum(reading.get(kind, 0) for reading in readings for kind in kinds) for kinds in (OWN, MAPPED)
            )
            self.own[later] = max(self.own[later], own)
            self.mapped = max(self.mapped, mapped)


def measure(megabytes: float, tokenizer: Path, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    text = folder / "text.jsonl"
    documents = write_documents(text, megabytes * 1e6, arguments.words, arguments.copies, arguments.seed)
    options = {
        "data.path": text,
        "tokenizer": tokenizer,
        "output_dir": folder / "data",
        "data.dedup.near": "true",
        "workers": arguments.workers,
    } | dict(option.split("=", 1) for option in arguments.set)
    turn = folder / "data.partial" / "work" / "blocks" / "text" / "00000.json"  # the end of the only part
    with Watch(arguments.interval, turn) as watch:
        seconds = scratch("prepare", options, threads=1)
    if not watch.own[1]:
        raise SystemExit(f"prepare never wrote {turn}, or was too short to be watched; give it more --megabytes")
    funnel = read_manifest(folder / "data")["funnel"]
    return {
        "megabytes": megabytes,
        "documents": documents,
        "near_duplicates": funnel["dropped"].get("near duplicate", {"documents": 0})["documents"],
        "first_pass_megabytes": round(watch.own[0] / 1e6, 1),
        "later_megabytes": round(watch.own[1] / 1e6, 1),
        "mapped_megabytes": round(watch.mapped / 1e6, 1),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    arguments = parse_arguments()
    if not Path("/proc/self/smaps_rollup").exists():
        raise SystemExit("the memory of processes is read from /proc/PID/smaps_rollup, which this system does not have")
    print(f"\n{'text, MB':>9}{'documents':>11}{'near dupl.':>11}{'filter pass, MB':>17}{'later, MB':>11}", end="")
    print(f"{'mapped, MB':>12}{'seconds':>9}")
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        folder = Path(temporary)
        write_documents(folder / "sample.jsonl", 2e6, arguments.words, 0, arguments.seed)
        options = {"data.path": folder / "sample.jsonl", "output_dir": folder / "tokenizer", "vocab_size": 2048}
        scratch("tokenizer", options, threads=1)
        for megabytes in sorted(arguments.megabytes):
            with tempfile.TemporaryDirectory(dir=folder) as here:
                row = measure(megabytes, folder / "tokenizer", Path(here), arguments)
            rows.append(row)
            print(
                f"{row['megabytes']:>9,.0f}{row['documents']:>11,}{row['near_duplicates']:>11,}"
                f"{row['first_pass_megabytes']:>17,.1f}{row['later_megabytes']:>11,.1f}"
                f"{row['mapped_megabytes']:>12,.1f}{row['seconds']:>9,.0f}",
                flush=True,
            )
    documents, own = ([row[key] for row in rows] for key in ("documents", "later_megabytes"))
    line = {}
    if len(rows) > 1:
        slope, start = np.polyfit(documents, np.array(own) * 1e6, 1)
        line = {
            "bytes_per_document": round(float(slope), 1),
            "megabytes_without_documents": round(float(start) / 1e6, 1),
            "predicted_documents": arguments.predict,
            "predicted_megabytes": round(float(start + slope * arguments.predict) / 1e6, 1),
        }
        print(
            f"\n{line['bytes_per_document']:,.0f} bytes for each further document; computed for {arguments.predict:,} "
            f"documents: {line['predicted_megabytes']:,.0f} MB"
        )
    conditions = {key: value for key, value in vars(arguments).items() if key != "folder"} | {
        "processor": processor_name(torch.device("cpu")),
        "python": platform.python_version(),
    }
    print()
    print(json.dumps({"benchmark": "data_memory", "conditions": conditions, "runs": rows, "line": line}))


if __name__ == "__main__":
    main()
