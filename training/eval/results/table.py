"""The table of results, one row per model, and the notes below it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from training.common.tables import Row
from training.eval.measures.figures import ACCURACY, ALL, BITS, ENDS, Figure, MetricKey
from training.eval.results.results_file import ModelResults

Figures = dict[MetricKey, Figure]
_UNSCORABLE = "exceed the context or have characters that the tokenizer does not know"


def table_figures(figures: Figures) -> Figures:
    """The figures that a table shows: all with a value, but of a task only the first share, and those in nats or bits
    per byte."""
    shown: Figures = {}
    with_share: set[str] = set()  # tasks
    for key, figure in figures.items():
        if figure.value is None:
            continue
        if key.kind == "tasks":
            if figure.unit == "score" or (figure.unit == "share" and key.name in with_share):
                continue
            if figure.unit == "share":
                with_share.add(key.name)
        shown[key] = figure
    return shown


def shares(model: ModelResults) -> Figures:
    """The shares among the figures of the table."""
    return {key: figure for key, figure in table_figures(model.figures).items() if figure.unit == "share"}


def results_table(models: Mapping[str, ModelResults]) -> list[Row]:
    """Header and one row per model. Shares are in percent with one standard error; their chance is in the header."""
    rows = {name: table_figures(model.figures) for name, model in models.items()}
    columns: Figures = {}
    for figures in rows.values():
        columns |= {key: figure for key, figure in figures.items() if key not in columns}
    # Bits per byte of the validation split first, shares last.
    ordered = sorted(columns, key=lambda key: (key.kind != "data", columns[key].unit == "share"))
    header = ["model", *(_heading(key, columns[key]) for key in ordered)]
    return [header, *([name, *(_cell(key, figures.get(key)) for key in ordered)] for name, figures in rows.items())]


def subtask_tables(models: Mapping[str, ModelResults]) -> dict[str, list[Row]]:
    """A table for each group of tasks, such as the 57 subjects of MMLU: a row per task and a column per model."""
    tables = {}
    for group in dict.fromkeys(group for model in models.values() for group in model.subtasks):
        by_model = [table_figures(model.subtasks.get(group, {})) for model in models.values()]
        found: Figures = {}
        for figures in by_model:
            found = figures | found
        rows = [
            [key.label, str(one.n), "" if one.chance is None else f"{one.chance:.0%}"]
            + [show(figures.get(key)) for figures in by_model]
            for key, one in found.items()
        ]
        tables[group] = [["task", "items", "chance", *models], *rows]
    return tables


def _heading(key: MetricKey, figure: Figure) -> str:
    return key.label if figure.chance is None else f"{key.label} (chance {figure.chance:.0%})"


def _cell(key: MetricKey, figure: Figure | None) -> str:
    if figure and key.kind == "data":  # measured on the whole split
        figure = replace(figure, stderr=None)
    return show(figure)


def show(figure: Figure | None) -> str:
    """A share in percent, another number with three decimals below ten and four digits above; with standard error."""
    if figure is None or figure.value is None:
        return "-"
    if not math.isfinite(figure.value):  # of a model that diverged
        return str(figure.value)
    if figure.unit == "share":
        scale, decimals = 100, 1
    else:
        scale = 1
        decimals = 3 if abs(figure.value) < 10 else max(0, 3 - int(math.log10(abs(figure.value))))
    text = f"{scale * figure.value:.{decimals}f}"
    return text if figure.stderr is None else f"{text} ± {scale * figure.stderr:.{decimals}f}"


def notes(models: Mapping[str, ModelResults]) -> list[str]:
    """Notes needed to interpret the scores: near or below chance, left out, truncated, spread over seeds."""
    lines = []
    for name, model in models.items():
        lines += chance_notes(name, shares(model))
        lines += [f"{name}: {line}" for line in _task_notes(model.figures)]
        lines += [f"{name}: {line}" for line in _left_out_notes(model.figures)]
    return lines


def chance_notes(model: str, figures: Figures) -> Iterator[str]:
    """The scores that random guessing would explain, and those below it, which hint at a wrong label or format."""
    near = [key.label for key, figure in figures.items() if figure.near_chance()]
    below = [key.label for key, figure in figures.items() if figure.below_chance()]
    if near:
        yield f"near chance (within two standard errors of guessing): {model}: {', '.join(near)}"
    if below:
        yield f"below chance (by more than two standard errors of guessing): {model}: {', '.join(below)}"


def _task_notes(figures: Figures) -> Iterator[str]:
    seen: set[str] = set()
    for key, figure in figures.items():
        if key.kind != "tasks" or key.name in seen:  # the counts are the same for all metrics of a task
            continue
        seen.add(key.name)
        if figure.left_out:
            yield f"{key.name}: {figure.left_out} items left out, because an answer exceeds the context"
        if figure.truncated:
            yield (
                f"{key.name}: {figure.truncated} of {figure.n} items lose their beginning, because they exceed the "
                "context"
            )
        if figure.by_seed:
            of_task = [one for other, one in figures.items() if other[:2] == key[:2]]
            spread = max(one.spread for one in of_task if one.spread is not None)
            yield (
                f"{key.name}: mean of {len(figure.by_seed)} draws of examples, with a standard deviation of "
                f"{100 * spread:.1f} points between them"
            )


def _left_out_notes(figures: Figures) -> Iterator[str]:
    for key, figure in figures.items():
        name, metric = key.name, key.metric
        if not figure.left_out:
            continue
        if key.kind == "pairs" and metric == ACCURACY:
            yield f"{name}: {figure.left_out} pairs left out, because they {_UNSCORABLE}"
        elif key.kind == "chats" and metric == ENDS:
            yield f"{name}: {figure.left_out} questions left out, because the context has no room for an answer"
        elif key.kind == "chats" and metric == BITS:
            yield f"{name}: {figure.left_out} reference answers left out, because they {_UNSCORABLE}"
        elif key.kind == "chats" and metric != ALL:
            unscored = figure.left_out - figures[key._replace(metric=ENDS)].left_out
            if unscored:
                yield f"{key.label}: {unscored} answers not scored"
