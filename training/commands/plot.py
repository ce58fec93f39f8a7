"""Lay the curves of runs over one another: scratch plot RUN... [--x tokens] [--y loss] [--output plot.png]

RUN is the folder of a pretraining, finished or not, the folder of a whole run, or a metrics.jsonl. Draws what was
measured in training (thin, smoothed) and in validations (with marks), and prints a table of the runs.
"""

import argparse
import os.path
from pathlib import Path
from typing import Any

from training.common.errors import UserError
from training.common.metrics import METRICS, median_rate, read_metrics
from training.common.stage import staging_dir
from training.common.tables import Row, as_text

FIGURES = ("loss", "bits_per_byte", "learning_rate", "grad_norm", "tokens_per_second", "mfu")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="scratch plot", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="such as runs/quickstart or a metrics.jsonl")
    parser.add_argument("--x", choices=("tokens", "step", "seconds"), default="tokens", help="across [tokens]")
    parser.add_argument("--y", choices=FIGURES, default="loss", help="upwards, of training and validation [loss]")
    parser.add_argument("--output", default="plot.png", metavar="FILE.png", help="the picture [plot.png]")
    options = parser.parse_args(arguments)
    output = Path(options.output)
    if output.suffix not in (".png", ".svg", ".pdf") or not output.absolute().parent.is_dir():
        raise UserError(f"'output': {output} is not a .png, .svg or .pdf in a folder that exists")
    curves = {name: _read(Path(run)) for name, run in _names(options.runs).items()}
    for name, records in curves.items():
        if not any(options.x in record and options.y in record for record in records):
            raise UserError(
                f"{name}: no record with both '{options.x}' and '{options.y}'; choose others by --x and --y"
            )

    from training.plots.losses import plot_runs  # imports matplotlib

    plot_runs(curves, output, options.x, options.y)
    print(as_text(_table(curves)))
    print(f"plot: wrote {output}")


def _names(runs: list[str]) -> dict[str, str]:
    """What to call each run: the part of its path in which it differs from the others."""
    parts = [Path(os.path.normpath(run)).parts for run in runs]
    if len(set(parts)) < len(parts):
        raise UserError("the same run is named twice")
    while len(parts) > 1 and len({path[0] for path in parts}) == 1:
        parts = [path[1:] for path in parts]
    while min(map(len, parts)) > 1 and len({path[-1] for path in parts}) == 1:
        parts = [path[:-1] for path in parts]
    return {"/".join(path): run for path, run in zip(parts, runs, strict=True)}


def _read(run: Path) -> list[dict[str, Any]]:
    folders = [folder for parent in (run, run / "pretrain") for folder in (parent, staging_dir(parent))]
    for file in [run, *(folder / METRICS for folder in folders)]:
        if file.is_file() and (records := read_metrics(file)):
            return records
    raise UserError(f"{run}: no metrics there; give the folder of a pretraining, or its metrics.jsonl")


def _table(curves: dict[str, list[dict[str, Any]]]) -> list[Row]:
    rows: list[Row] = [["run", "steps", "tokens", "minutes", "last validation loss", "best", "tokens/s"]]
    for name, records in curves.items():
        validation = [record["validation_loss"] for record in records if "validation_loss" in record]
        minutes = f"{records[-1]['seconds'] / 60:.1f}" if "seconds" in records[-1] else ""
        last, best = (f"{validation[-1]:.4f}", f"{min(validation):.4f}") if validation else ("", "")
        rate = f"{median_rate(records):,.0f}" if any("tokens_per_second" in record for record in records) else ""
        tokens = f"{records[-1]['tokens']:,}" if "tokens" in records[-1] else ""
        rows.append([name, f"{records[-1]['step']:,}", tokens, minutes, last, best, rate])
    return rows
