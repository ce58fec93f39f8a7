"""Summary of a run: one table and one plot from the output of its stages."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.common.errors import UserError
from training.common.files import write_whole
from training.common.metrics import METRICS, read_metrics
from training.common.tables import Row, as_markdown, as_text
from training.eval.results.results_file import Results
from training.eval.results.table import results_table
from training.stages.provenance import PROVENANCE, is_set_aside, read_provenance
from training.stages.recipe import STAGES


@dataclass(frozen=True)
class Summary:
    """A summary that was written: its tables as text for a terminal, and the names of its files."""

    text: str
    files: list[str]


def write_summary(run_dir: Path, picture: bool = True) -> Summary:
    """Write summary.json and summary.md of a run, from the stages that have finished; and summary.png, if there are
    curves or scores to draw.

    Args:
        picture: draw summary.png, which takes a second or two; False keeps the one that is there.

    Raises:
        UserError: no such folder, no finished stage in it, or damaged results.
    """
    if not run_dir.is_dir():
        raise UserError(f"{run_dir}: no such folder; `scratch run` creates it")
    stages = _read_stages(run_dir)
    if not stages:
        raise UserError(f"{run_dir}: no stage has finished here (no {PROVENANCE} in its folders); run one first")
    folders = {name: folder for name, (folder, _) in stages.items()}
    records = {name: record for name, (_, record) in stages.items()}
    results = _read_results(folders["evaluate"]) if "evaluate" in folders else Results({})
    curve = read_metrics(folders["pretrain"] / METRICS) if "pretrain" in folders else []

    summary = {
        "run": run_dir.name,
        "seconds": {name: record["seconds"] for name, record in records.items()},
        "models": {name: model.figures_to_json() for name, model in results.models.items()},
        "conditions": results.conditions,
        "versions": next(reversed(records.values()))["versions"],
    }
    write_whole(run_dir / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")

    has_picture = not picture and (run_dir / "summary.png").is_file()
    if not has_picture:
        from training.eval.results.picture import draw_summary  # imports matplotlib

        has_picture = draw_summary(run_dir / "summary.png", curve, results.models)
    tables = {}
    if results.models:
        tables["What each stage gained, on held-out text"] = results_table(results.models)
    elif any("validation_loss" in line for line in curve):
        tables["Pretraining"] = _last_validation(curve)
    tables["Time"] = _minutes(records)
    page = f"# {run_dir.name}\n\n" + ("![Summary](summary.png)\n\n" if has_picture else "")
    page += "\n".join(f"## {title}\n\n{as_markdown(table)}" for title, table in tables.items())
    if results.models:
        page += "\nShares in percent, with one standard error of the sample of questions.\n"
    write_whole(run_dir / "summary.md", page)

    text = "\n".join(f"{title}\n\n{as_text(table)}" for title, table in tables.items())
    return Summary(text, ["summary.md", "summary.json", *(["summary.png"] if has_picture else [])])


def _read_stages(run_dir: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Folder and provenance of each finished stage by name, in the order in which they run."""
    files = [path for path in run_dir.glob(f"*/{PROVENANCE}") if not is_set_aside(path.parent)]
    stages = [(path.parent, read_provenance(path.parent)) for path in files if path.is_file()]
    order = {name: place for place, name in enumerate(STAGES)}
    stages.sort(key=lambda stage: (order.get(stage[1]["stage"], len(order)), stage[1]["stage"]))
    return {record["stage"]: (folder, record) for folder, record in stages}


def _read_results(folder: Path) -> Results:
    try:
        return Results.read(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: its results cannot be read ({error}); run `scratch evaluate` again") from None


def _last_validation(curve: list[dict[str, Any]]) -> list[Row]:
    """The last validation loss, for a run that was not evaluated."""
    last = [line for line in curve if "validation_loss" in line][-1]
    header = ["model", "tokens seen", "validation loss, nats per token"]
    return [header, ["base", f"{last['tokens']:,}", f"{last['validation_loss']:.3f}"]]


def _minutes(records: dict[str, dict[str, Any]]) -> list[Row]:
    seconds = {name: record["seconds"] for name, record in records.items()}
    rows = [[name, f"{value / 60:.1f}"] for name, value in {**seconds, "together": sum(seconds.values())}.items()]
    return [["stage", "minutes"], *rows]
