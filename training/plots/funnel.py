"""Funnel plot of a corpus: text dropped by each step, lengths of documents, and copies of duplicates."""

from pathlib import Path
from typing import Any

from training.corpus.curation.funnel import Funnel
from training.plots.style import COLOURS, FAINT, INK, drawing, legend_below, save, short_count, short_name

STEP_COLOURS = dict(
    zip(("cleaning", "reading", "rules", "limit", "duplicates", "decontamination"), COLOURS[4::-1] + COLOURS[5:])
)
_KEPT = "#4D4D4D"
_SMALLEST = 0.005  # share of the documents or bytes read; smaller reasons of a step are shown together


def draw_funnel(path: Path, funnel: Funnel, lengths: dict[str, int], copies: dict[str, dict[str, int]]) -> None:
    """Draw the funnel in documents and in bytes, and below it the distributions.

    Args:
        path: the PNG to write; the same figures give the same bytes.
        lengths: documents kept by bytes, see `by_powers_of_two`.
        copies: documents kept by how many copies of them were dropped, for each kind of duplicate.
    """
    losses = visible_losses(funnel)
    copies = {kind: counts for kind, counts in copies.items() if counts}
    with drawing() as pyplot:
        heights = [1.4 + 0.3 * (len(losses) + 2), 3.2]
        figure = pyplot.figure(figsize=(10.5, sum(heights)))
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
        above, below = figure.subfigures(2, 1, height_ratios=heights)
        left, right = above.subplots(1, 2, sharey=True)
        _draw_losses(left, "documents", funnel, losses)
        _draw_losses(right, "bytes", funnel, losses)
        steps = [step for step in STEP_COLOURS if any(row["step"] == step for row in losses.values())]
        handles = [pyplot.Rectangle((0, 0), 1, 1, color=STEP_COLOURS[step]) for step in steps]
        if steps:
            legend_below(above, handles, steps)
        panels = below.subplots(1, 1 + bool(copies), squeeze=False)[0]
        _draw_counts(panels[0], {"documents": lengths}, (COLOURS[0],))
        panels[0].set(title="Length of the documents kept", xlabel="bytes, from", ylabel="documents")
        if copies:
            _draw_counts(panels[1], copies, (COLOURS[3], COLOURS[1]))
            panels[1].set(title="Copies dropped per document", xlabel="copies, from", ylabel="documents kept")
            legend_below(below, *panels[1].get_legend_handles_labels())
        save(figure, path)


def visible_losses(funnel: Funnel) -> dict[str, dict[str, Any]]:
    """The losses by reason; several small ones of a step are shown in one row."""
    read, losses = funnel.read, funnel.losses()
    small = {
        reason: row
        for reason, row in losses.items()
        if all(row[unit] < _SMALLEST * read[unit] for unit in ("documents", "bytes"))
    }
    of_step: dict[str, list[str]] = {}
    for reason, row in small.items():
        of_step.setdefault(row["step"], []).append(reason)
    shown: dict[str, dict[str, Any]] = {}
    for reason, row in losses.items():
        together = of_step.get(row["step"], [])
        if reason in small and len(together) > 1:
            if reason == together[-1]:
                sums = {unit: sum(small[other][unit] for other in together) for unit in ("documents", "bytes")}
                shown[f"{len(together)} more ({row['step']})"] = sums | {"step": row["step"]}
        else:
            shown[reason] = row
    return shown


def _draw_losses(axes: Any, unit: str, funnel: Funnel, losses: dict[str, dict[str, Any]]) -> None:
    """Draw bars from top to bottom: the text read, the text dropped for each reason, and the text kept."""
    read, left = funnel.read[unit], funnel.read[unit]
    bars = [("read", 0, read, FAINT)]
    for reason, row in losses.items():
        left -= row[unit]
        bars.append((reason, left, row[unit], STEP_COLOURS[row["step"]]))
    bars.append(("kept", 0, left, _KEPT))
    for place, (_, start, width, colour) in enumerate(bars):
        axes.barh(place, width, left=start, height=0.72, color=colour)
        share = "0" if not width else f"{width / read:.1%}" if width >= 0.001 * read else "< 0.1%"
        total = place in (0, len(bars) - 1)
        text = f"{short_count(float(f'{width:.3g}'), 0)}  {share}" if total else share
        style = {"textcoords": "offset points", "va": "center", "fontsize": 8.5}
        if total and width > 0.3 * read:
            axes.annotate(text, (start, place), (6, 0), color="white", **style)
        elif start + width < 0.6 * read:  # beside the bar, on the side where there is room
            axes.annotate(text, (start + width, place), (4, 0), ha="left", **style)
        else:
            axes.annotate(text, (start, place), (-4, 0), ha="right", **style)
    axes.set_yticks(range(len(bars)), [short_name(name.replace("_", " "), 40) for name, *_ in bars])
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlim(0, read)
    axes.set_title(unit.capitalize())
    axes.xaxis.set_major_formatter(short_count)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def _draw_counts(axes: Any, kinds: dict[str, dict[str, int]], colours: tuple[str, ...]) -> None:
    """Draw bars of counts by powers of two, kinds side by side."""
    exponents = [int(start).bit_length() - 1 for counts in kinds.values() for start in counts]
    first, last = min(exponents), max(exponents)
    width = 0.86 / len(kinds)
    for place, ((kind, counts), colour) in enumerate(zip(kinds.items(), colours)):
        offset = (place - (len(kinds) - 1) / 2) * width
        heights = [counts.get(str(2**exponent), 0) for exponent in range(first, last + 1)]
        places = [exponent + offset for exponent in range(first, last + 1)]
        axes.bar(places, heights, width, color=colour, label=kind)
        if len(heights) * len(kinds) <= 16:
            for x, height in zip(places, heights):
                if height:
                    label = f"{height:,}"
                    axes.annotate(
                        label, (x, height), (0, 2), textcoords="offset points", ha="center", fontsize=8, color=INK
                    )
    powers = range(first, last + 1)
    axes.set_xticks(powers, [_power_of_two(power) for power in powers], fontsize=8)
    axes.set_xlim(min(first - 0.7, (first + last) / 2 - 3), max(last + 0.7, (first + last) / 2 + 3))
    axes.yaxis.set_major_formatter(short_count)
    axes.grid(axis="y")


def _power_of_two(exponent: int) -> str:
    """A power of two in short: 1024 as 1k, as is usual for bytes."""
    for power, name in ((30, "G"), (20, "M"), (10, "k")):
        if exponent >= power:
            return f"{2 ** (exponent - power)}{name}"
    return str(2**exponent)
