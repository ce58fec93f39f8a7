"""Results as tables: aligned text for the terminal, Markdown for files."""

import textwrap
from typing import Any

Row = list[str]

_SHARE_METRICS = ("acc", "exact_match")  # of lm-eval; a perplexity is no share and stays in results.json
_HEADING = 11  # characters a line of a heading in the terminal: as wide as a figure with its error


def measures(model: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The shares in one model's results by column name: answers, preferences, and each task's first accuracy."""
    found = {}
    if "answers" in model:
        shares = {name: entry for name, entry in model["answers"].items() if isinstance(entry, dict)}
        found |= {f"answers: {name.replace('_', ' ')}": figure for name, figure in shares.items()}
    if "preferences" in model:
        found["preference accuracy"] = model["preferences"]
    for task, metrics in model.get("tasks", {}).items():
        metric = next((name for name in metrics if name.startswith(_SHARE_METRICS)), None)
        if metric:
            found[f"{task.removeprefix('scratch_')}: {metric}"] = metrics[metric]
    return found


def results_table(models: dict[str, dict[str, Any]]) -> list[Row]:
    """Header and a row a model, of whatever was measured: shares in percent with one standard error, chance above."""
    columns: dict[str, float | None] = {}
    for model in models.values():
        for name, figure in measures(model).items():
            columns.setdefault(name, figure.get("chance"))
    header = ["model", "bits per byte"]
    header += [name if chance is None else f"{name} (chance {chance:.0%})" for name, chance in columns.items()]
    rows = []
    for name, model in models.items():
        figures = measures(model)
        bits = f"{model['bits_per_byte']['value']:.3f}" if "bits_per_byte" in model else "-"
        rows.append([name, bits, *(_percent(figures.get(column)) for column in columns)])
    return [header, *rows]


def _percent(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return "-"
    if figure["stderr"] is None:
        return f"{100 * figure['value']:.1f}"
    return f"{100 * figure['value']:.1f} ± {100 * figure['stderr']:.1f}"


def as_markdown(table: list[Row]) -> str:
    """A Markdown table; the first column to the left, figures to the right."""
    header, *rows = table
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "".join("| " + " | ".join(row) + " |\n" for row in [header, rule, *rows])


def as_text(table: list[Row]) -> str:
    """Aligned columns for a terminal, long headings on several lines."""
    headings = [textwrap.wrap(cell.replace("_", " "), _HEADING) for cell in table[0]]
    height = max(map(len, headings))
    above = [[""] * (height - len(lines)) + lines for lines in headings]  # (column, line)
    lines = _align([*map(list, zip(*above)), *table[1:]])
    rule = "-" * max(map(len, lines))
    return "\n".join([*lines[:height], rule, *lines[height:]]) + "\n"


def _align(rows: list[Row]) -> list[str]:
    """The first column to the left, figures to the right."""
    first, *others = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others))]) for row in rows
    ]
