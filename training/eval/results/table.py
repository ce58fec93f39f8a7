"""Results as tables: aligned text for the terminal, Markdown for files."""

import math
from collections.abc import Iterator
from typing import Any

from training.common.estimates import near_chance
from training.common.tables import Row

_SHARE_METRICS = ("acc", "exact_match", "pass@")  # of lm-eval
_NUMBER_METRICS = ("log-likelihood", "bits_per_byte")


def measures(model: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The shares in one model's results by column name: answers, preferences, those of chats and pairs, and each
    task's first accuracy."""
    found = {}
    if "answers" in model:
        shares = {name: entry for name, entry in model["answers"].items() if isinstance(entry, dict)}
        found |= {f"answers: {name.replace('_', ' ')}": figure for name, figure in shares.items()}
    if "preferences" in model:
        found["preference accuracy"] = model["preferences"]
    found |= _of_chats(model, "share")
    found |= {f"{name}: preference accuracy": figure for name, figure in model.get("pairs", {}).items()}
    for task, metrics in model.get("tasks", {}).items():
        metric = next((name for name in metrics if name.startswith(_SHARE_METRICS)), None)
        if metric:
            found[f"{task.removeprefix('scratch_')}: {metric}"] = metrics[metric]
    return found


def numbers(model: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What is no share, in one model's results by column name: bits per byte of texts, of chats what a judge gives and
    bits per byte, margins of pairs, log-likelihoods of tasks."""
    found = {f"{name}: bits per byte": figure for name, figure in model.get("texts", {}).items()}
    found |= _of_chats(model, "number")
    found |= {f"{name}: margin": figure["margin"] for name, figure in model.get("pairs", {}).items()}
    for task, metrics in model.get("tasks", {}).items():
        found |= {f"{task}: {metric}": metrics[metric] for metric in metrics if metric in _NUMBER_METRICS}
    return found


def _of_chats(model: dict[str, Any], unit: str) -> dict[str, dict[str, Any]]:
    return {
        f"{name}: {'reference, ' if metric == 'bits per byte' else ''}{metric}": figure
        for name, metrics in model.get("chats", {}).items()
        for metric, figure in metrics.items()
        if figure["unit"] == unit and figure["n"]
    }


def results_table(models: dict[str, dict[str, Any]]) -> list[Row]:
    """Header and a row a model, of whatever was measured: shares in percent with one standard error, chance above."""
    shares: dict[str, float | None] = {}
    others: dict[str, None] = {}
    for model in models.values():
        others |= dict.fromkeys(numbers(model))
        for name, figure in measures(model).items():
            shares.setdefault(name, figure.get("chance"))
    bits = any("bits_per_byte" in model for model in models.values())
    header = ["model", *(["bits per byte"] if bits else []), *others]
    header += [name if chance is None else f"{name} (chance {chance:.0%})" for name, chance in shares.items()]
    rows = []
    for name, model in models.items():
        row = [name]
        if bits:
            row.append(f"{model['bits_per_byte']['value']:.3f}" if "bits_per_byte" in model else "-")
        row += [as_number(numbers(model).get(column)) for column in others]
        rows.append([*row, *(as_percent(measures(model).get(column)) for column in shares)])
    return [header, *rows]


def notes(models: dict[str, dict[str, Any]]) -> list[str]:
    """What a reader must know to take the table's scores for what they are, a line a model and kind."""
    lines = []
    for name, model in models.items():
        close = [column for column, figure in measures(model).items() if near_chance(figure)]
        if close:
            lines.append(f"near chance (within two standard errors of guessing): {name}: {', '.join(close)}")
        for task, metrics in model.get("tasks", {}).items():
            first = next(iter(metrics.values()), {})
            if first.get("left_out"):
                lines.append(
                    f"{name}: {task}: {first['left_out']} items left out, their answers being longer than the context"
                )
            if first.get("cut"):
                lines.append(
                    f"{name}: {task}: {first['cut']} of {first['n']} items lose their beginning, being longer "
                    "than the context"
                )
            if "by_seed" in first:
                spread = max(figure["spread"] for figure in metrics.values() if "spread" in figure)
                lines.append(
                    f"{name}: {task}: mean of {len(first['by_seed'])} draws of examples, which differ by a "
                    f"standard deviation of {100 * spread:.1f} points"
                )
        lines += [f"{name}: {line}" for line in _left_out(model)]
    return lines


def _left_out(model: dict[str, Any]) -> Iterator[str]:
    """What of chats and pairs is in no figure."""
    for chat, metrics in model.get("chats", {}).items():
        unasked = metrics["ends"]["left_out"]
        if unasked:
            yield f"{chat}: {unasked} questions left out, which leave no room in the context for an answer"
        for metric, figure in metrics.items():
            if metric == "bits per byte" and figure["left_out"]:
                yield f"{chat}: {figure['left_out']} reference answers left out, being longer than the context"
            elif figure["left_out"] > unasked:
                yield f"{chat}: {metric}: {figure['left_out'] - unasked} answers not judged"
    for name, figure in model.get("pairs", {}).items():
        if figure["left_out"]:
            yield f"{name}: {figure['left_out']} pairs left out, being longer than the context"


def as_percent(figure: dict[str, Any] | None) -> str:
    """A share in percent with its standard error."""
    if figure is None:
        return "-"
    if figure["stderr"] is None:
        return f"{100 * figure['value']:.1f}"
    return f"{100 * figure['value']:.1f} ± {100 * figure['stderr']:.1f}"


def as_number(figure: dict[str, Any] | None) -> str:
    """A number with its standard error: three decimals below ten, four digits above."""
    if figure is None:
        return "-"
    decimals = 3 if abs(figure["value"]) < 10 else max(0, 3 - int(math.log10(abs(figure["value"]))))
    text = f"{figure['value']:.{decimals}f}"
    return text if figure["stderr"] is None else f"{text} ± {figure['stderr']:.{decimals}f}"
