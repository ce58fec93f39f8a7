"""Plot the curves of several pretraining runs in one figure, and print a table of the runs.

    scratch plot RUN [RUN ...] [--x tokens] [--y loss] [--output plot.png]

RUN is the output folder of `scratch pretrain`, finished or not, the folder of a whole run, or a metrics.jsonl. Training
curves are thin and smoothed, validation curves have markers. A remark says if tokenizers or validation texts differ,
because losses then do not compare.
"""

import itertools
import os.path
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from training.common.errors import UserError
from training.common.metrics import METRICS, median_rate, read_metrics
from training.common.tables import Row, as_text
from training.data.shards import read_manifest
from training.stages.flags import parse
from training.stages.provenance import digest, read_provenance, staging_dir
from training.stages.recipe import PathText, option, positional

Identity = dict[str, Any]  # by "digest" and "manifest"


@dataclass(frozen=True)
class Run:
    """A pretraining run.

    Attributes:
        records: of its metrics.jsonl.
        tokenizer, validation: what identifies the tokenizer and the validation text; empty if nothing is known.
    """

    records: list[dict[str, Any]]
    tokenizer: Identity
    validation: Identity


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
    runs = {name: _read(Path(run)) for name, run in _names(options.runs).items()}
    curves = {name: run.records for name, run in runs.items()}
    for name, records in curves.items():
        if not any(options.x in record and options.y in record for record in records):
            raise UserError(
                f"{name}: no record with both '{options.x}' and '{options.y}'; choose others with --x and --y"
            )

    from training.plots.losses import plot_runs  # imports matplotlib

    found = remarks(list(runs.values()), options.y)
    plot_runs(curves, output, options.x, options.y, found)
    print(as_text(_table(curves)))
    for remark in found:
        print(f"plot: {remark}")
    print(f"plot: wrote {output}")


def _names(runs: list[str]) -> dict[str, str]:
    """Name to folder of each run; the name is the part of the path that differs from the others."""
    parts = [Path(os.path.normpath(run)).parts for run in runs]
    if len(set(parts)) < len(parts):
        raise UserError("'runs': the same run is given twice; list it once")
    while min(map(len, parts)) > 1 and len({path[0] for path in parts}) == 1:
        parts = [path[1:] for path in parts]
    while min(map(len, parts)) > 1 and len({path[-1] for path in parts}) == 1:
        parts = [path[:-1] for path in parts]
    return {"/".join(path) or ".": run for path, run in zip(parts, runs, strict=True)}


def _read(run: Path) -> Run:
    """The records of a run, and what it was trained on.

    Raises:
        UserError: no metrics.
    """
    folders = [folder for parent in (run, run / "pretrain") for folder in (parent, staging_dir(parent))]
    for file in [run, *(folder / METRICS for folder in folders)]:
        if file.is_file() and (records := read_metrics(file)):
            return Run(records, *_identify(read_provenance(file.parent)))
    raise UserError(f"{run}: no metrics found; give the output folder of `scratch pretrain`, or its metrics.jsonl")


def _identify(provenance: dict[str, Any]) -> tuple[Identity, Identity]:
    """Tokenizer and validation text of a run, by the manifests of its shards unless these have changed since. Without
    them the text is unknown, for other shards may hold the same; of the tokenizer the provenance has a digest."""
    inputs = dict(provenance.get("inputs", {}))
    if "tokenizer" not in inputs:
        return {}, {}
    tokenizer, validation = {"digest": inputs.pop("tokenizer")}, {}
    folders = {name.removeprefix("data."): found for name, found in inputs.items()}
    try:
        if "data" in folders:  # a single folder
            folders = {provenance["recipe"]["data"]: folders["data"]}
        if all(digest(folder) == found for folder, found in folders.items()):
            manifests = [read_manifest(folder) for folder in folders]
            held_out = [manifest["splits"]["validation"] for manifest in manifests]
            tokenizer["manifest"] = manifests[0]["tokenizer_sha256"]
            validation["manifest"] = sorted((split["documents"], split["bytes"]) for split in held_out)
    except (UserError, LookupError, TypeError):  # the shards are gone, or the record is not ours
        pass
    return tokenizer, validation


def _differ(identities: list[Identity]) -> bool:
    """Whether two of these are known to be unlike."""
    for first, second in itertools.combinations(identities, 2):
        kind = next((kind for kind in ("manifest", "digest") if kind in first and kind in second), None)
        if kind and first[kind] != second[kind]:
            return True
    return False


def remarks(runs: list[Run], y: str) -> list[str]:
    """The reasons why the losses of these runs do not compare, as sentences.

    Args:
        y: the quantity on the vertical axis.
    """
    found = []
    if y == "loss" and _differ([run.tokenizer for run in runs]):
        found.append("The tokenizers differ, so losses per token do not compare; --y bits_per_byte does")
    if y in ("loss", "bits_per_byte") and _differ([run.validation for run in runs]):
        found.append("The validation texts differ, so validation losses do not compare")
    return found


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
