"""Plot the curves of several pretraining runs in one figure, and print a table of the runs.

    scratch plot RUN [RUN ...] [--x tokens] [--y loss] [--output plot.png]

RUN is the output folder of `scratch pretrain`, finished or not, the folder of a whole run, or a metrics.jsonl. Training
curves are thin and smoothed, validation curves have markers.
"""

import os.path
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from training.common.errors import UserError
from training.common.metrics import METRICS, median_rate, read_metrics
from training.common.recipe import PathText, option, parse, positional
from training.common.stage import staging_dir
from training.common.tables import Row, as_text


@dataclass
class PlotConfig:
    """Options of `scratch plot`."""

    runs: list[PathText] = positional("folders of runs, or metrics.jsonl files", many=True, metavar="RUN")
    x: Literal["tokens", "step", "seconds"] = option("tokens", "quantity on the horizontal axis")
    y: Literal["loss", "bits_per_byte", "learning_rate", "grad_norm", "tokens_per_second", "mfu"] = option(
        "loss", "quantity on the vertical axis, of training and validation"
    )
    output: PathText = option("plot.png", "image file to write: .png, .svg or .pdf")

    def __post_init__(self):
        output = Path(self.output)
        if output.suffix not in (".png", ".svg", ".pdf") or not output.absolute().parent.is_dir():
            raise ValueError(f"'output': {output} is not a .png, .svg or .pdf file in an existing folder")


def main(arguments: list[str]) -> None:
    """Read the metrics of each run, plot them, print the table.

    Raises:
        UserError: a run without metrics, or without the quantities requested.
    """
    options = parse(PlotConfig, arguments, __doc__, recipe=False)
    output = Path(options.output)
    curves = {name: _read(Path(run)) for name, run in _names(options.runs).items()}
    for name, records in curves.items():
        if not any(options.x in record and options.y in record for record in records):
            raise UserError(
                f"{name}: no record with both '{options.x}' and '{options.y}'; choose others with --x and --y"
            )

    from training.plots.losses import plot_runs  # imports matplotlib

    plot_runs(curves, output, options.x, options.y)
    print(as_text(_table(curves)))
    print(f"plot: wrote {output}")


def _names(runs: list[str]) -> dict[str, str]:
    """Name to folder of each run; the name is the part of the path that differs from the others."""
    parts = [Path(os.path.normpath(run)).parts for run in runs]
    if len(set(parts)) < len(parts):
        raise UserError("'runs': the same run is given twice; list it once")
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
    raise UserError(f"{run}: no metrics found; give the output folder of `scratch pretrain`, or its metrics.jsonl")


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
