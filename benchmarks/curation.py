"""Whether curation matters: one model and token budget on text as it is found, deduplicated, and fully curated.

    python -m benchmarks.curation --data 'environments/*/lib/python3*/site-packages/**/*.py' --jobs 2

The text is that of `--data` as it lies there, for example the Python source of all virtual environments of a machine:
versions and copies of the same packages, tests, generated tables, minified files. A document has a path below
`--below`; the same path in two environments is the same file in two versions or copies. The first part of the path is
its package.

1. Whole packages are held out, all copies of them. One copy of each of their files, curated, is the clean set that all
   are scored on.
2. For each seed a share of all paths is drawn (`--share`), each with all of its copies. What repeats a held-out file
   is removed: near duplicates (an estimated similarity of 0.5 and more), and what shares 13 words in a row with one,
   unless more than ten different documents do. The rest is the raw text.
3. `scratch prepare` makes tokens of it three times: as it is; without copies and near duplicates; and after cleaning
   and rules too. The tokenizer is the same for all, learnt from raw text of the first seed.
4. `scratch pretrain` trains the same model on each, for the same number of steps, with the seed that drew the text.

Compared is bits per byte. The three runs of a seed start from the same text and weights, so differences are taken
within seeds. Contestants take turns within a seed; --jobs at a time, each with its share of the processor. The last
line is all of it as JSON.
"""

import argparse
import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.ablation import BASELINE, options_of, score
from benchmarks.machine import conditions as machine
from benchmarks.stages import scratch
from training.common.device import pick_device
from training.corpus.curation.funnel import Funnel
from training.corpus.curation.splitting import hold_out, split_key
from training.corpus.dedup.decontamination import Decontaminator
from training.corpus.dedup.exact import as_array, content_hash, first_of_each
from training.corpus.dedup.minhash import NOTHING, MinHashConfig, signature
from training.corpus.sources import Document, SourceConfig, SourceReader
from training.data.shards import open_shards, read_manifest

RAW, DEDUPLICATED, CURATED = "raw", "deduplicated", "curated"
SIMILAR = 0.5  # to a held-out document
COMMON = 10  # different documents that share a run of words


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="text: files, folders or globs")
    parser.add_argument("--below", default="site-packages", help="the folder that packages lie in; '' for the first")
    parser.add_argument("--share", type=float, default=0.03, help="of the paths that a seed draws")
    parser.add_argument("--held-out", type=float, default=2, metavar="MEGABYTES", help="of packages, for validation")
    parser.add_argument("--kind", default="python", choices=("python", "code", "books", "web"), help="of the rules")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--vocab-size", type=int, default=2048)
    parser.add_argument("--hidden-size", type=int, default=192)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=3)
    parser.add_argument("--seq", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8, help="sequences a step")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; small ones gain from one for each core")
    parser.add_argument("--folder", help="keeps texts, shards and models; by default they are temporary")
    return parser.parse_args()


def contestants(kind: str) -> dict[str, dict[str, Any]]:
    """The options of `scratch prepare`."""
    cleaning = "code" if kind == "python" else kind
    near = {"data.dedup.near": "true"}
    return {
        RAW: {"data.dedup.exact": "false"},
        DEDUPLICATED: near,
        CURATED: near | {"data.cleaning.set": cleaning, "data.rules.set": kind},
    }


def read(arguments: argparse.Namespace) -> Iterator[tuple[str, str, Document]]:
    """All documents that are text, each with its package and its path from there on."""
    for path in arguments.data:
        for document in SourceReader(SourceConfig(path=path, max_broken=1), "", Funnel()):
            place = document.id.rpartition(f"/{arguments.below}/")[2] if arguments.below else document.id
            yield place.split("/")[0].removesuffix(".py"), place, document


def held_out_packages(arguments: argparse.Namespace) -> set[str]:
    """Drawn once for all seeds; a package's size is that of one copy of each of its files."""
    sizes: dict[str, dict[str, int]] = defaultdict(dict)
    for package, place, document in read(arguments):
        sizes[package].setdefault(place, document.size)
    packages = sorted(sizes)
    keys = np.array([split_key(0, package) for package in packages], np.uint64)
    totals = np.array([sum(sizes[package].values()) for package in packages])
    chosen = hold_out(keys, totals, arguments.held_out * 1e6)
    return {package for package, out in zip(packages, chosen.tolist(), strict=True) if out}


def leaks(texts: list[str], held_out: list[str]) -> np.ndarray:
    """Which texts repeat held-out ones.  # (texts,) bool"""
    config = MinHashConfig()
    theirs = signature(held_out, config)
    theirs = theirs[theirs[:, 0] != NOTHING]
    near = np.array([(theirs == row).mean(axis=1).max(initial=0) >= SIMILAR for row in signature(texts, config)])
    decontaminator = Decontaminator([(str(number), text) for number, text in enumerate(held_out)])
    matches = [decontaminator.matches(text) for text in texts]
    distinct = first_of_each(as_array([content_hash(text) for text in texts])) == np.arange(len(texts))
    counted = [found for found, counts in zip(matches, distinct & ~near, strict=True) if counts]
    common = np.bincount(np.concatenate(counted), minlength=decontaminator.runs) > COMMON
    decontaminator = decontaminator.without(common)
    return near | np.array([decontaminator.is_contaminated(found) for found in matches])


def write(path: Path, texts: list[str]) -> None:
    """In a random order, so that neither environments nor copies stand together."""
    path.parent.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(0).permutation(len(texts)).tolist()
    path.write_text("".join(json.dumps({"text": texts[number]}) + "\n" for number in order))


def write_texts(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The raw text of each seed and the held-out text; returns what of it is to be told."""
    packages = held_out_packages(arguments)
    held_out: dict[str, str] = {}
    drawn: dict[int, list[str]] = {seed: [] for seed in arguments.seeds}
    found = {"documents": 0, "megabytes": 0.0}
    for package, place, document in read(arguments):
        found["documents"] += 1
        found["megabytes"] += document.size / 1e6
        if package in packages:
            held_out.setdefault(place, document.text)
            continue
        for seed, texts in drawn.items():
            if split_key(seed, f"draw:{place}") < arguments.share * 2**64:
                texts.append(document.text)
    write(folder / "held-out.jsonl", list(held_out.values()))
    told = {"found": found, "held_out_packages": sorted(packages), "drawn": 0, "leaked": 0}
    for seed, texts in drawn.items():
        leaked = leaks(texts, list(held_out.values()))
        write(folder / "raw" / f"{seed}.jsonl", [text for text, gone in zip(texts, leaked, strict=True) if not gone])
        told["drawn"] += len(texts)
        told["leaked"] += int(leaked.sum())
    return told


def prepare(text: Path, folder: Path, options: dict[str, Any], tokenizer: Path) -> dict[str, Any]:
    """Shards of a text; returns what is in them. A thousandth is held out, because `scratch prepare` holds out some."""
    options = {"data.path": text, "data.validation_fraction": 0.001, **options}
    scratch("prepare", options | {"tokenizer": tokenizer, "output_dir": folder, "workers": 1}, threads=1)
    manifest = read_manifest(folder)
    train, size = manifest["splits"]["train"], manifest["funnel"]["read"]["bytes"]
    return {
        "megabytes_read": size / 1e6,
        "documents": train["documents"],
        "megabytes": train["bytes"] / 1e6,
        "megatokens": train["tokens"] / 1e6,
        "bytes_per_token": train["bytes"] / train["tokens"],
        "dropped": {reason: row["bytes"] / size for reason, row in manifest["funnel"]["dropped"].items()},
    }


def run(folder: Path, name: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    data, model, tokenizer = folder / "data" / f"{name}-{seed}", folder / "models" / f"{name}-{seed}", "tokenizer"
    told = prepare(folder / "raw" / f"{seed}.jsonl", data, contestants(arguments.kind)[name], folder / tokenizer)
    paths = {"data": data, "tokenizer": folder / tokenizer, "output_dir": model}
    scratch("pretrain", options_of(BASELINE, arguments) | paths | {"seed": seed}, torch.get_num_threads())
    return told | {"bits_per_byte": score(model, open_shards(folder / "data" / "clean", "train"), arguments.seq)}


def summary(runs: dict[str, list[dict[str, Any]]], tokens: int) -> dict[str, dict[str, Any]]:
    """Means over seeds and their spread; differences to the first contestant within seeds."""

    def mean(name: str, key: str) -> float:
        return statistics.fmean(result[key] for result in runs[name])

    def reasons(name: str) -> dict[str, float]:
        every = sorted({reason for result in runs[name] for reason in result["dropped"]})
        shares = {
            reason: statistics.fmean(result["dropped"].get(reason, 0) for result in runs[name]) for reason in every
        }
        return {reason: round(100 * share, 2) for reason, share in shares.items()}

    def bits(name: str) -> dict[str, Any]:
        each, first = ([result["bits_per_byte"] for result in runs[contestant]] for contestant in (name, RAW))
        differences = [100 * (value / other - 1) for value, other in zip(each, first, strict=True)]
        several = len(each) > 1
        return {
            "bits_per_byte": round(statistics.fmean(each), 4),
            "spread": round(statistics.stdev(each), 4) if several else None,
            "to_raw_%": round(statistics.fmean(differences), 2),
            "to_raw_spread_%": round(statistics.stdev(differences), 2) if several else None,
            "each": [round(value, 4) for value in each],
        }

    return {
        name: {
            "documents": round(mean(name, "documents")),
            "megabytes": round(mean(name, "megabytes"), 2),
            "megatokens": round(mean(name, "megatokens"), 3),
            "bytes_per_token": round(mean(name, "bytes_per_token"), 3),
            "epochs": round(tokens / 1e6 / mean(name, "megatokens"), 2),
            "dropped_%": reasons(name),
        }
        | bits(name)
        for name in runs
    }


def as_table(table: dict[str, dict[str, Any]]) -> str:
    lines = ["| text | MB | documents | tokens | epochs | bits per byte | to raw |", "|---" * 7 + "|"]
    for name, row in table.items():
        spread, of_difference = "", ""
        if row["spread"] is not None:
            spread, of_difference = f" ± {row['spread']:.4f}", f" ± {row['to_raw_spread_%']:.2f}"
        lines.append(
            f"| {name} | {row['megabytes']:.1f} | {row['documents']:,} | {row['megatokens']:.2f} M "
            f"| {row['epochs']:.2f} | {row['bits_per_byte']:.4f}{spread} | {row['to_raw_%']:+.2f}{of_difference} % |"
        )
    return "\n".join(lines)


def report(
    told: dict[str, Any], clean: dict[str, Any], runs: dict[str, list[dict[str, Any]]], arguments: argparse.Namespace
) -> None:
    tokens = arguments.batch * arguments.seq * arguments.steps
    table = summary(runs, tokens)
    print(f"\nfound: {told['found']['megabytes']:,.1f} MB in {told['found']['documents']:,} documents")
    print(f"held out: {', '.join(told['held_out_packages'])}")
    print(f"{clean['megabytes_read']:.2f} MB of them, {clean['megabytes']:.2f} MB clean")
    print(f"repeat them, and went: {told['leaked']:,} of {told['drawn']:,} documents drawn")
    print(f"{tokens:,} tokens a run, seeds {arguments.seeds}\n")
    print(as_table(table))
    conditions = vars(arguments) | told | {"clean": clean, "tokens": tokens} | machine(pick_device())
    print()
    print(json.dumps({"benchmark": "curation", "conditions": conditions, "rows": table}))


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(max(1, torch.get_num_threads() // arguments.jobs))
    names, runs = list(contestants(arguments.kind)), defaultdict(list)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.folder or temporary)
        told = write_texts(folder, arguments)
        raw = contestants(arguments.kind)[RAW]
        text = {"data.path": folder / "raw" / f"{arguments.seeds[0]}.jsonl", "data.max_bytes": 10_000_000, **raw}
        scratch("tokenizer", text | {"output_dir": folder / "tokenizer", "vocab_size": arguments.vocab_size})
        curated = contestants(arguments.kind)[CURATED]
        clean = prepare(folder / "held-out.jsonl", folder / "data" / "clean", curated, folder / "tokenizer")
        turns = [(name, seed) for seed in arguments.seeds for name in names]
        with ThreadPoolExecutor(arguments.jobs) as pool:
            results = pool.map(lambda turn: run(folder, *turn, arguments), turns)
            for (name, seed), result in zip(turns, tqdm(results, total=len(turns), unit="run"), strict=True):
                bits = result["bits_per_byte"]
                tqdm.write(f"{name:14} seed {seed}: {result['megabytes']:6.2f} MB, {bits:.4f} bits per byte")
                runs[name].append(result)
    report(told, clean, runs, arguments)


if __name__ == "__main__":
    main()
