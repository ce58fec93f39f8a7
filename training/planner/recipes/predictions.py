"""Predictions of a plan, kept with its recipe and its run, and compared with what was measured.

`plan.json` is written beside the recipes; `scratch pretrain` copies it from there into its output.
"""

from pathlib import Path
from typing import Any

from training.common.errors import UserError
from training.common.json_files import read_json
from training.common.metrics import METRICS, finite, median_rate, read_metrics
from training.common.tables import Row
from training.planner.plan import Plan
from training.planner.units import HOUR, Estimate, as_bytes, as_count, as_dollars, as_time
from training.stages.provenance import read_provenance, staging_dir

PLAN = "plan.json"
_TRAINING = {"tokens", "seconds", "tokens_per_second"}  # of a record of training
_ESTIMATE = [(int, float)]
_FIELDS = {
    "devices": int,
    "tokens_per_step": int,
    "step_seconds": _ESTIMATE,
    "memory_bytes": _ESTIMATE,
    "dollars_per_device_hour": (int, float, type(None)),
}


def predictions(plan: Plan) -> dict[str, Any]:
    """The quantities of a plan that a run measures, as JSON; estimates as low, expected and high."""
    hours = plan.run_seconds.expected / HOUR * plan.layout.devices
    return {
        "layout": plan.layout.describe(),
        "devices": plan.layout.devices,
        "steps": plan.shape.steps,
        "tokens_per_step": plan.shape.tokens_per_step,
        "step_seconds": _digits(plan.step_seconds),
        "memory_bytes": _digits(plan.memory.peak),
        "dollars_per_device_hour": round(plan.dollars.expected / hours, 4) if plan.dollars else None,
    }


def _digits(estimate: Estimate) -> list[float]:
    """Low, expected and high in four digits: the same text on every machine."""
    return [float(f"{value:.4g}") for value in (estimate.low, estimate.expected, estimate.high)]


def compare(run: Path) -> list[Row]:
    """The table of predicted against measured: of a finished run, or of one that is still training.

    Args:
        run: output of `scratch run` or `scratch pretrain`.

    Raises:
        UserError: there is no run, it has no predictions, or has measured nothing yet.
    """
    folder = _pretraining(run)
    plan, records = _read_plan(folder / PLAN), read_metrics(folder / METRICS)
    records = [record for record in records if _TRAINING <= record.keys()]
    rate = median_rate(records)
    if not rate > 0:  # NaN without records
        raise UserError(f"'check': {folder}: no step was measured yet; wait for the first lines of {METRICS}")
    step_seconds, memory = (Estimate(*plan[key]) for key in ("step_seconds", "memory_bytes"))
    done, trained = records[-1]["step"], records[-1]["seconds"]
    price = plan["devices"] / HOUR * (plan["dollars_per_device_hour"] or 0.0)
    size = plan["tokens_per_step"]
    rates = Estimate(*(size / value for value in reversed(plan["step_seconds"])))
    held = read_provenance(folder).get("metrics", {}).get("peak_memory_bytes")
    held = held if isinstance(held, int) else None
    rows = [
        _row("seconds per step", step_seconds, size / rate, as_time),
        _row("tokens per second", rates, rate, as_count),
        _row("peak memory", memory, held, as_bytes),
        _row(f"tokens of {done:,} steps", Estimate.exact(done * size), records[-1]["tokens"], as_count),
        _row(f"time of {done:,} steps", step_seconds * done, trained, as_time),
    ]
    if price:
        rows.append(_row(f"cost of {done:,} steps", step_seconds * done * price, trained * price, as_dollars))
    return [["", "low", "expected", "high", "measured", "difference"], *rows]


def _row(name: str, predicted: Estimate, measured: float | None, text: Any) -> Row:
    """A row of the table; the difference is from the expected value, with a mark if the bounds do not hold it."""
    bounds = [text(value) for value in (predicted.low, predicted.expected, predicted.high)]
    if measured is None:
        return [name, *bounds, "not yet", ""]
    outside = "" if predicted.low <= measured <= predicted.high else " *"
    ratio = measured / predicted.expected
    difference = f"{ratio - 1:+.0%}" if ratio < 10 else f"x {ratio:,.0f}"
    return [name, *bounds, text(measured), f"{difference}{outside}"]


def _pretraining(run: Path) -> Path:
    """The folder of pretraining in a run: finished, or unfinished."""
    for output in (run / "pretrain", run):
        for folder in (output, staging_dir(output)):
            if read_provenance(folder).get("stage") == "pretrain":
                return folder
    raise UserError(f"'check': {run} holds no pretraining run; give the output folder of `scratch run` or pretrain")


def _read_plan(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(
            f"'check': {file} is missing, so the run has no predictions; write its recipe with "
            "`scratch plan --output_dir FOLDER`"
        )
    try:
        plan = read_json(file, _FIELDS)
    except ValueError:
        plan = {}
    estimates = [plan.get(key, []) for key in ("step_seconds", "memory_bytes")]
    numbers = [*estimates[0], *estimates[1], plan.get("tokens_per_step"), plan.get("devices")]
    sound = all(finite(number) is not None and number > 0 for number in numbers)
    if not sound or any(len(estimate) != 3 for estimate in estimates):
        raise UserError(f"'check': {file} is damaged; copy it again from the folder of the recipe")
    return plan
