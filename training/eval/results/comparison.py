"""Models beside one another on the same items: what each came to, and whether the differences are more than luck.

The difference between two models on the same items is far better known than the two scores, for an item that is hard
is hard for both: each item is compared with itself (E. Miller, "Adding Error Bars to Evals", arXiv:2411.00640,
section 4.2). No correction is made for the number of measures that are looked at.
"""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.common.errors import UserError
from training.common.estimates import mean_with_stderr, near_chance, paired_difference
from training.common.tables import Row, as_markdown, as_text
from training.eval.measures.items import Outcome, read_outcomes
from training.eval.measures.preferences import MARGIN
from training.eval.measures.texts import METRIC as BITS
from training.eval.results.table import as_number, as_percent

RESULTS = "results.json"
_LOWER_IS_BETTER = (BITS, "bits_per_byte")
_NO_SHARE = (*_LOWER_IS_BETTER, "log-likelihood", MARGIN)


@dataclass(frozen=True)
class Comparison:
    """What `compare_folders` found.

    Attributes:
        models: their names, in the order given.
        measures: by name, `models` (a figure each, on the items that all who have the measure share), `pairs` (see
            `estimates.paired_difference`, with `before` and `after`, and `verdict`), `unit` and, of a group, `tasks`.
        remarks: what a reader must know.
    """

    models: list[str]
    measures: dict[str, dict[str, Any]]
    remarks: list[str]


def compare_folders(folders: list[Path]) -> Comparison:
    """Compare all models in folders of results, in that order.

    Raises:
        UserError: no results in a folder, fewer than two models, or no measure that two of them share.
    """
    rows: dict[str, dict[str, Any]] = {}
    outcomes: dict[str, dict[str, dict[str, Outcome]]] = {}
    found = [(folder, name, row) for folder in folders for name, row in _read_results(folder).items()]
    names = [name for _, name, _ in found]
    for folder, name, row in found:
        label = name if names.count(name) == 1 else f"{folder}: {name}"
        if label in rows:
            raise UserError(f"'compare': {folder} is named twice")
        rows[label], outcomes[label] = row, read_outcomes(folder, name)
    if len(rows) < 2:
        raise UserError(f"'compare': {folders[0]} holds one model, {names[0]}; name a second folder to compare it with")

    by_model = {label: dict(_scores(rows[label], outcomes[label])) for label in rows}
    measures, remarks = {}, []
    for measure in dict.fromkeys(itertools.chain.from_iterable(by_model.values())):
        scored = {label: scores[measure] for label, scores in by_model.items() if measure in scores}
        if len(scored) < 2:
            continue
        shared = set.intersection(*(set(items) for items in scored.values()))
        most = max(len(items) for items in scored.values())
        if not shared:
            remarks.append(f"{measure}: left out, for {' and '.join(scored)} have no item in common")
            continue
        if len(shared) < most:
            remarks.append(f"{measure}: on the {len(shared)} items that all have, of {most}")
        known = next((_figure(rows[label], measure) for label in scored), {})
        measures[measure] = _compare(scored, sorted(shared), measure.rpartition(": ")[2], known)
    if not measures:
        raise UserError(f"'compare': {' and '.join(rows)} have no measure in common on the same items")
    return Comparison(list(rows), measures, remarks)


def _read_results(folder: Path) -> dict[str, dict[str, Any]]:
    file = folder / RESULTS
    if not file.is_file():
        raise UserError(f"'compare': {folder} holds no {RESULTS}; name folders that `scratch evaluate` wrote")
    try:
        return json.loads(file.read_text(encoding="utf-8"))["models"]
    except (ValueError, KeyError):
        raise UserError(f"'compare': {file} is damaged; run `scratch evaluate` again") from None


Items = dict[str, tuple[float, float | None]]


def _scores(row: dict[str, Any], outcomes: dict[str, dict[str, Outcome]]) -> Iterator[tuple[str, Items]]:
    """Value and weight of each item, by measure and metric; the tasks of a group as one measure."""
    parts = {task: group for group, tasks in row.get("task_parts", {}).items() for task in tasks}
    gathered: dict[str, Items] = {}
    for measure, items in outcomes.items():
        name = parts.get(measure, measure)
        for outcome in items.values():
            for metric, value in outcome.scores.items():
                key = f"{measure}/{outcome.item}" if measure in parts else outcome.item
                gathered.setdefault(f"{name}: {metric}", {})[key] = (value, outcome.weight)
    yield from gathered.items()


def _figure(row: dict[str, Any], measure: str) -> dict[str, Any]:
    """The figure in results.json that tells the chance of a measure, or its unit; empty if none does."""
    name, _, metric = measure.rpartition(": ")
    if metric == MARGIN:
        return {}
    kind, _, own = name.partition(": ")
    if kind == "chats":
        return row.get(kind, {}).get(own, {}).get(metric, {})
    if kind == "pairs":
        return row.get(kind, {}).get(own, {})
    return row.get("preferences", {}) if name == "preferences" else row.get("tasks", {}).get(name, {}).get(metric, {})


def _compare(scored: dict[str, Items], shared: list[str], metric: str, known: dict[str, Any]) -> dict[str, Any]:
    values = {label: [items[item][0] for item in shared] for label, items in scored.items()}
    weights = [next(iter(scored.values()))[item][1] for item in shared]
    weights = None if None in weights else weights
    lower = metric in _LOWER_IS_BETTER
    pairs = []
    for before, after in itertools.combinations(values, 2):
        difference = paired_difference(values[before], values[after], weights)
        gain = -difference["value"] if lower else difference["value"]
        verdict = "no difference shown"
        if difference["stderr"] is not None and abs(gain) > 2 * difference["stderr"]:
            verdict = "better" if gain > 0 else "worse"
        pairs.append({"before": before, "after": after, **difference, "verdict": verdict})
    return {
        "unit": known.get("unit", "number" if metric in _NO_SHARE else "share"),
        "models": {label: mean_with_stderr(found, weights, known.get("chance")) for label, found in values.items()},
        "pairs": pairs,
    }


def write_comparison(folder: Path, comparison: Comparison) -> str:
    """Write comparison.md, comparison.json and comparison.png.

    Returns:
        The tables as text for a terminal.
    """
    from training.eval.results.picture import draw_comparison  # imports matplotlib

    content = {"models": comparison.models, "measures": comparison.measures, "remarks": comparison.remarks}
    (folder / "comparison.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    scores, differences = _score_table(comparison), _difference_table(comparison)
    remarks = [*comparison.remarks, *_close(comparison)]
    page = f"# Comparison\n\n![Differences](comparison.png)\n\n{as_markdown(scores)}\n{as_markdown(differences)}\n"
    page += "".join(f"- {remark}\n" for remark in [*remarks, *EXPLANATION])
    (folder / "comparison.md").write_text(page, encoding="utf-8")
    draw_comparison(folder / "comparison.png", comparison.measures, _shown_pairs(comparison.models))
    lines = "".join(f"{remark}\n" for remark in remarks)
    return f"{as_text(scores)}\n{as_text(differences)}{lines}"


EXPLANATION = (
    "shares in percent, differences in points, with one standard error of the sample of items",
    "a difference is the mean over the same items of the later model's score minus the earlier one's, with the "
    "standard error of these differences; 'better' and 'worse' are beyond two of them",
    "p: exact McNemar test on the items that only one of the two got right, for scores of 0 and 1; else of a normal "
    "distribution; of each measure by itself, not corrected for their number",
)


def _shown_pairs(models: list[str]) -> list[tuple[str, str]]:
    """Each model with the one before it, and the last with the first; all pairs are in comparison.json."""
    ends = [(models[0], models[-1])] if len(models) > 2 else []
    return [*itertools.pairwise(models), *ends]


def _score_table(comparison: Comparison) -> list[Row]:
    rows = [["measure", "items", "chance", *comparison.models]]
    for measure, entry in comparison.measures.items():
        show = as_percent if entry["unit"] == "share" else as_number
        figure = next(iter(entry["models"].values()))
        chance = f"{100 * figure['chance']:.0f}" if figure.get("chance") is not None else ""
        cells = [show(entry["models"].get(model)) for model in comparison.models]
        rows.append([measure, str(figure["n"]), chance, *cells])
    return rows


def _difference_table(comparison: Comparison) -> list[Row]:
    rows = [["measure", "models", "difference", "gained, lost", "p", "verdict"]]
    for measure, entry in comparison.measures.items():
        show = as_percent if entry["unit"] == "share" else as_number
        pairs = {(pair["before"], pair["after"]): pair for pair in entry["pairs"]}
        for before, after in _shown_pairs(comparison.models):
            if pair := pairs.get((before, after)):
                changed = f"{pair['gained']}, {pair['lost']}" if "gained" in pair else ""
                difference = show(pair) if pair["value"] < 0 else f"+{show(pair)}"
                p = "" if pair["p"] is None else "< 0.001" if pair["p"] < 0.001 else f"{pair['p']:.3f}"
                rows.append([measure, f"{before} → {after}", difference, changed, p, pair["verdict"]])
    return rows


def _close(comparison: Comparison) -> list[str]:
    lines = []
    for model in comparison.models:
        close = [name for name, entry in comparison.measures.items() if near_chance(entry["models"].get(model, {}))]
        if close:
            lines.append(f"near chance (within two standard errors of guessing): {model}: {', '.join(close)}")
    return lines
