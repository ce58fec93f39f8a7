"""Benchmark of classification: a pretrained network, the same one from random weights, and TF-IDF without a network.

    python -m benchmarks.classification --model DIR --train train.jsonl --validation val.jsonl --test test.jsonl

Every fit is a run of `scratch classify`; contestants alternate within a seed. It reports accuracy and F1 of the rarer
label on the test split, on which nothing is chosen. The last line is all figures as JSON.
"""

import argparse
import csv
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.machine import conditions as machine
from benchmarks.stages import scratch
from training.common.device import pick_device

BASELINE = "linear SVM on TF-IDF"
CONTESTANTS = {"pretrained": {}, "random weights": {"from_random_weights": "true"}}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a pretrained model")
    for split in ("train", "validation", "test"):
        parser.add_argument(f"--{split}", required=True, help="file of texts with labels")
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--learning-rates", nargs="+", type=float, default=[5e-4], help="best on validation is kept")
    parser.add_argument("--max-length", type=int, default=256)
    return parser.parse_args()


def fit(output: Path, contestant: str, rate: float, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures of one run of `scratch classify`."""
    options = {
        "output_dir": output,
        "model": Path(arguments.model).resolve(),
        "data.text_column": arguments.text_column,
        "data.label_column": arguments.label_column,
        "num_train_epochs": arguments.epochs,
        "learning_rate": rate,
        "max_length": arguments.max_length,
        "seed": seed,
    }
    options |= {f"data.{split}": Path(getattr(arguments, split)).resolve() for split in ("train", "validation", "test")}
    seconds = scratch("classify", options | CONTESTANTS[contestant], torch.get_num_threads())
    with (output / "confusion.csv").open(encoding="utf-8", newline="") as stream:
        _, *rows = csv.reader(stream)
    confusion = [[int(count) for count in counts] for _, *counts in rows]
    metrics = json.loads((output / "provenance.json").read_text())["metrics"]
    return metrics | {"seconds": seconds, "confusion": confusion}


def best_fit(folder: Path, contestant: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures of the learning rate with the best F1 on the validation split, chosen per contestant."""
    tried = {
        rate: fit(folder / f"{contestant}-{seed}-{rate}", contestant, rate, seed, arguments)
        for rate in arguments.learning_rates
    }
    rate = max(tried, key=lambda rate: tried[rate]["validation"]["f1"])
    return tried[rate] | {"learning_rate": rate}


def main() -> None:
    arguments = parse_arguments()
    runs: dict[str, list] = {contestant: [] for contestant in CONTESTANTS}
    with tempfile.TemporaryDirectory() as temporary:
        turns = [(contestant, seed) for seed in arguments.seeds for contestant in CONTESTANTS]
        for contestant, seed in tqdm(turns, unit="fit"):
            figures = best_fit(Path(temporary), contestant, seed, arguments)
            runs[contestant].append(figures)
            test = figures["test"]
            tqdm.write(f"{contestant}, seed {seed}: accuracy {test['accuracy']['value']:.4f}, F1 {test['f1']:.4f}")
    fitted = runs["pretrained"][0]
    rows = {
        contestant: [(fit["test"]["accuracy"]["value"], fit["test"]["f1"]) for fit in fits]
        for contestant, fits in runs.items()
    }
    rows[BASELINE] = [(fitted["baseline"]["accuracy"]["value"], fitted["baseline"]["f1"])]  # no seed
    chance = fitted["test"]["accuracy"]
    print(
        f"\ntest: {chance['n']} texts; accuracy of always the commonest label {chance['chance']:.4f}; "
        f"F1 of {fitted['positive']}\n"
    )
    print("| | accuracy | F1 | lowest | seeds |\n|---|---|---|---|---|")
    for name, values in rows.items():
        accuracies, f1s = zip(*values)
        print(
            f"| {name} | {_mean(accuracies)} | {_mean(f1s)} | {min(accuracies):.4f}, {min(f1s):.4f} | {len(values)} |"
        )
    conditions = vars(arguments) | machine(pick_device())
    figures = {
        contestant: [
            {
                "accuracy": fit["test"]["accuracy"]["value"],
                "f1": fit["test"]["f1"],
                "confusion": fit["confusion"],
            }
            | {"learning_rate": fit["learning_rate"], "seconds": round(fit["seconds"], 1)}
            for fit in fits
        ]
        for contestant, fits in runs.items()
    }
    figures[BASELINE] = fitted["baseline"]
    print()
    print(json.dumps({"benchmark": "classification", "conditions": conditions, "rows": figures}))


def _mean(values: tuple[float, ...]) -> str:
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{spread}"


if __name__ == "__main__":
    main()
