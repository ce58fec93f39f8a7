"""Comparison of models on the items they share, with a paired test of each difference.

The difference between two models on the same items is known far better than the two scores, because an item that is
hard is hard for both (E. Miller, "Adding Error Bars to Evals", arXiv:2411.00640, section 4.2). p-values are not
corrected for the number of measures.
"""

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from training.common.errors import UserError
from training.common.estimates import Difference, paired_difference
from training.common.tables import Row, as_markdown, as_text
from training.eval.measures.figures import BITS, Figure, ItemOutcome, MetricKey, Unit, figure_of
from training.eval.results.items import read_outcomes
from training.eval.results.results_file import RESULTS, ModelResults, Results, nest
from training.eval.results.table import chance_notes, show

Verdict = Literal["better", "worse", "no difference shown"]
SIGNIFICANT, P_DECIMALS = 0.05, 3
Items = dict[str, tuple[float, float | None]]  # by item, its score and its weight


@dataclass(frozen=True)
class PairDifference:
    """The difference between two models under one measure."""

    before: str
    after: str
    difference: Difference
    verdict: Verdict

    @property
    def shown(self) -> bool:
        """Whether the verdict is that one model is better."""
        return self.verdict != "no difference shown"


@dataclass(frozen=True)
class MeasureComparison:
    """All models under one measure.

    Attributes:
        unit: of the figures.
        models: by name, the figure on the items that all models with this measure share.
        pairs: each pair of models, in the order of the models.
    """

    unit: Unit
    models: dict[str, Figure]
    pairs: list[PairDifference]

    def to_json(self) -> dict[str, Any]:
        """The comparison as in comparison.json."""
        pairs = []
        for pair in self.pairs:
            found = {key: value for key, value in asdict(pair.difference).items() if key == "p" or value is not None}
            pairs.append({"before": pair.before, "after": pair.after, **found, "verdict": pair.verdict})
        return {
            "unit": self.unit,
            "models": {label: figure.to_json() for label, figure in self.models.items()},
            "pairs": pairs,
        }


@dataclass(frozen=True)
class Comparison:
    """Models compared.

    Attributes:
        models: their names, in the order given.
        measures: by key; the tasks of a group are one measure.
        remarks: sentences that a reader needs.
    """

    models: list[str]
    measures: dict[MetricKey, MeasureComparison]
    remarks: list[str]


def compare_folders(folders: list[Path]) -> Comparison:
    """Compare all models in folders of results, in that order.

    Raises:
        UserError: no results in a folder, fewer than two models, or no measure that two of them share.
    """
    rows: dict[str, ModelResults] = {}
    by_model: dict[str, dict[MetricKey, Items]] = {}
    found = [(folder, name, row) for folder in folders for name, row in _read_models(folder).items()]
    names = [name for _, name, _ in found]
    for folder, name, row in found:
        label = name if names.count(name) == 1 else f"{folder}: {name}"
        if label in rows:
            raise UserError(f"'compare': {folder} is listed twice; list it once")
        rows[label], by_model[label] = row, _scores(row, read_outcomes(folder, name))
    if len(rows) < 2:
        raise UserError(f"'compare': {folders[0]} holds one model, {names[0]}; add a second folder")

    separate = set().union(*(_separate(row, by_model[label]) for label, row in rows.items()))
    measures, remarks = {}, []
    alone: dict[str, list[str]] = {}
    for key in dict.fromkeys(itertools.chain.from_iterable(by_model.values())):
        if key not in separate:  # a task that every model has in a group
            continue
        scored = {label: scores[key] for label, scores in by_model.items() if key in scores}
        if len(scored) < 2:
            (label,) = scored
            alone.setdefault(label, []).append(key.label)
            continue
        shared = set.intersection(*(set(items) for items in scored.values()))
        most = max(len(items) for items in scored.values())
        if not shared:
            remarks.append(f"{key.label}: left out, because {' and '.join(scored)} have no item in common")
            continue
        if len(shared) < most:
            remarks.append(f"{key.label}: on the {len(shared)} items that all have, of {most}")
        known = next(filter(None, (_known_figure(rows[label], key) for label in scored)), None)
        measures[key] = _compare(scored, sorted(shared), known)
    if not measures:
        raise UserError(
            f"'compare': {' and '.join(rows)} have no measure in common on the same items; use one recipe for both"
        )
    remarks += [f"left out, because only {label} has them: {', '.join(keys)}" for label, keys in alone.items()]
    return Comparison(list(rows), measures, remarks)


def _read_models(folder: Path) -> dict[str, ModelResults]:
    if not (folder / RESULTS).is_file():
        raise UserError(f"'compare': {folder} holds no {RESULTS}; give the output of `scratch evaluate`")
    try:
        if models := Results.read(folder).models:
            return models
        raise ValueError
    except ValueError:
        raise UserError(f"'compare': {folder / RESULTS} is damaged; run `scratch evaluate` again") from None


def _scores(row: ModelResults, outcomes: list[ItemOutcome]) -> dict[MetricKey, Items]:
    """Scores and weights of items by measure. The tasks of a group are gathered under the group, and by themselves."""
    groups = _groups(row)
    gathered: dict[MetricKey, Items] = {}
    for outcome in outcomes:
        group = groups.get(outcome.name) if outcome.kind == "tasks" else None
        places = [(outcome.name, outcome.item)]
        if group:
            places.insert(0, (group, f"{outcome.name}/{outcome.item}"))
        for metric, score in outcome.scores.items():
            for name, item in places:
                key = MetricKey(outcome.kind, name, metric)
                gathered.setdefault(key, {})[item] = (score, outcome.weight)
    return gathered


def _groups(row: ModelResults) -> dict[str, str]:
    """The group of each task that has one."""
    return {key.name: group for group, tasks in row.subtasks.items() for key in tasks}


def _separate(row: ModelResults, scores: dict[MetricKey, Items]) -> set[MetricKey]:
    """The measures of a model that are not only a part of another: its groups, and tasks outside of them."""
    groups = _groups(row)
    return {key for key in scores if key.kind != "tasks" or key.name not in groups}


def _known_figure(row: ModelResults, key: MetricKey) -> Figure | None:
    """The figure of a measure, or of a task in a group."""
    in_groups = (tasks[key] for tasks in row.subtasks.values() if key in tasks)
    return row.figures.get(key) or next(in_groups, None)


def _compare(scored: dict[str, Items], shared: list[str], known: Figure | None) -> MeasureComparison:
    """Compare models on shared items. `known` is a figure of this measure, which gives its unit and chance."""
    values = {label: [items[item][0] for item in shared] for label, items in scored.items()}
    weights = [next(iter(scored.values()))[item][1] for item in shared]
    weights = None if None in weights else weights
    unit, chance = (known.unit, known.chance) if known else ("score", None)
    pairs = []
    for before, after in itertools.combinations(values, 2):
        difference = paired_difference(values[before], values[after], weights)
        pairs.append(PairDifference(before, after, difference, _verdict(difference, unit)))
    models = {label: figure_of(found, unit, weights, chance) for label, found in values.items()}
    return MeasureComparison(unit, models, pairs)


def _verdict(difference: Difference, unit: Unit) -> Verdict:
    if difference.p is None or round(difference.p, P_DECIMALS) >= SIGNIFICANT:  # as it is printed
        return "no difference shown"
    gain = -difference.value if unit == BITS else difference.value
    return "better" if gain > 0 else "worse"


def write_comparison(folder: Path, comparison: Comparison) -> str:
    """Write comparison.md, comparison.json and comparison.png.

    Returns:
        The tables as text for a terminal.
    """
    from training.eval.results.picture import draw_comparison  # imports matplotlib

    measures = nest({key: measure.to_json() for key, measure in comparison.measures.items()})
    content = {"models": comparison.models, "measures": measures, "remarks": comparison.remarks}
    (folder / "comparison.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    scores, differences = _score_table(comparison), _difference_table(comparison)
    remarks = [*comparison.remarks, *_chance_notes(comparison)]
    page = f"# Comparison\n\n![Differences](comparison.png)\n\n{as_markdown(scores)}\n{as_markdown(differences)}\n"
    page += "".join(f"- {remark}\n" for remark in [*remarks, *EXPLANATION])
    (folder / "comparison.md").write_text(page, encoding="utf-8")
    draw_comparison(folder / "comparison.png", comparison.measures, shown_pairs(comparison.models))
    lines = "".join(f"{remark}\n" for remark in remarks)
    return f"{as_text(scores)}\n{as_text(differences)}{lines}"


EXPLANATION = (
    "shares are in percent and their differences in points, with one standard error of the sample of items",
    "a difference is the mean over the same items of the later model's score minus the earlier one's; 'better' and "
    "'worse' mean p < 0.05",
    "gained, lost: items that only the later or only the earlier model has right",
    "p: exact McNemar test for scores of 0 and 1, otherwise normal distribution; not corrected for multiple measures",
)


def shown_pairs(models: list[str]) -> list[tuple[str, str]]:
    """Pairs of each model with the one before it, and of the last with the first; comparison.json has all pairs."""
    ends = [(models[0], models[-1])] if len(models) > 2 else []
    return [*itertools.pairwise(models), *ends]


def _score_table(comparison: Comparison) -> list[Row]:
    rows = [["measure", "items", "chance", *comparison.models]]
    for key, measure in comparison.measures.items():
        figure = next(iter(measure.models.values()))
        chance = f"{100 * figure.chance:.0f}" if figure.chance is not None else ""
        cells = [show(measure.models.get(model)) for model in comparison.models]
        rows.append([key.label, str(figure.n), chance, *cells])
    return rows


def _difference_table(comparison: Comparison) -> list[Row]:
    rows = [["measure", "models", "difference", "gained, lost", "p", "verdict"]]
    for key, measure in comparison.measures.items():
        for pair in _in_order(measure.pairs, shown_pairs(comparison.models)):
            found = pair.difference
            shown = show(Figure(found.value, found.stderr, found.n, unit=measure.unit))
            sign = "" if found.value < 0 else "+"
            changed = "" if found.gained is None else f"{found.gained}, {found.lost}"
            p = "" if found.p is None else "< 0.001" if found.p < 0.001 else f"{found.p:.{P_DECIMALS}f}"
            models = f"{pair.before} → {pair.after}"
            rows.append([key.label, models, f"{sign}{shown}", changed, p, pair.verdict])
    return rows


def _in_order(pairs: list[PairDifference], order: list[tuple[str, str]]) -> Iterator[PairDifference]:
    by_models = {(pair.before, pair.after): pair for pair in pairs}
    return (by_models[models] for models in order if models in by_models)


def _chance_notes(comparison: Comparison) -> list[str]:
    measures = comparison.measures.items()
    of_model = {
        model: {key: one.models[model] for key, one in measures if model in one.models} for model in comparison.models
    }
    return [note for model, figures in of_model.items() for note in chance_notes(model, figures)]
