"""Summary of a run: one table and one plot from the output of its stages."""

import json
from pathlib import Path
from typing import Any

from training.common.errors import UserError
from training.common.metrics import METRICS, read_metrics
from training.common.recipe import STAGES
from training.common.stage import PROVENANCE
from training.common.tables import Row, as_markdown, as_text
from training.eval.results.results_file import Results
from training.eval.results.table import results_table


def write_summary(run_dir: Path, picture: bool = True) -> str:
    """Write summary.json, summary.md and summary.png of a run, from the stages that have finished.

    Args:
        picture: draw summary.png, which takes a second or two; False keeps the one that is there.

    Returns:
        The tables as text for a terminal.

    Raises:
        UserError: no such folder, no finished stage in it, or damaged results.
    """
    if not run_dir.is_dir():
        raise UserError(f"{run_dir}: no such folder; `scratch run` creates it")
    stages = _read_stages(run_dir)
    if not stages:
        raise UserError(f"{run_dir}: no stage has finished here (no {PROVENANCE} in its folders); run one first")
    results = _read_results(run_dir / "evaluate") if "evaluate" in stages else Results({})
    curve = read_metrics(run_dir / "pretrain" / METRICS)

    summary = {
        "run": run_dir.name,
        "seconds": {name: record["seconds"] for name, record in stages.items()},
        "models": {name: model.figures_to_json() for name, model in results.models.items()},
        "conditions": results.conditions,
        "versions": next(reversed(stages.values()))["versions"],
    }
    (run_dir / "summary.json").write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    has_picture = bool(curve or results.models)
    if has_picture and (picture or not (run_dir / "summary.png").is_file()):
        from training.eval.results.picture import draw_summary  # imports matplotlib

        draw_summary(run_dir / "summary.png", curve, results.models)
    tables = {}
    if results.models:
        tables["What each stage gained, on held-out text"] = results_table(results.models)
    elif any("validation_loss" in line for line in curve):
        tables["Pretraining"] = _last_validation(curve)
    tables["Time"] = _minutes(stages)
    page = f"# {run_dir.name}\n\n" + ("![Summary](summary.png)\n\n" if has_picture else "")
    page += "\n".join(f"## {title}\n\n{as_markdown(table)}" for title, table in tables.items())
    if results.models:
        page += "\nShares in percent, with one standard error of the sample of questions.\n"
    (run_dir / "summary.md").write_text(page, encoding="utf-8")

    return "\n".join(f"{title}\n\n{as_text(table)}" for title, table in tables.items())


def _read_stages(run_dir: Path) -> dict[str, dict[str, Any]]:
    """Provenance of each finished stage by name, in the order in which they run."""
    files = [path for path in run_dir.glob(f"*/{PROVENANCE}") if path.parent.suffix != ".partial"]
    records = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    order = {name: place for place, name in enumerate(STAGES)}
    records.sort(key=lambda record: (order.get(record["stage"], len(order)), record["stage"]))
    return {record["stage"]: record for record in records}


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


def _minutes(stages: dict[str, dict[str, Any]]) -> list[Row]:
    seconds = {name: record["seconds"] for name, record in stages.items()}
    rows = [[name, f"{value / 60:.1f}"] for name, value in {**seconds, "together": sum(seconds.values())}.items()]
    return [["stage", "minutes"], *rows]
