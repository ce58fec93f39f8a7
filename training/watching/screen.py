"""The screen of `scratch watch`, for a terminal of any size: the lines for one run, or for several in a table."""

import time
from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text

from training.watching.chart import Series, draw
from training.watching.run import Run, State
from training.watching.words import MEASURES, WAITING, Figure, figures_of, printable, progress_of, state_of

_COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "red")
_STATES = {State.RUNNING: "green", State.ELSEWHERE: "yellow", State.FINISHED: "bold green", State.STOPPED: "yellow"}
_LEAST_CHART = 3  # lines
_LEAST_NAME = 12  # characters
_COMFORTABLE_CHART = 8
_TALLEST_CHART = 24
_MARK = "◆"


def compose(runs: dict[str, Run], width: int, height: int, ascii_only: bool = False) -> list[Text]:
    """The lines of the screen, at most `height`, none wider than `width`.

    Args:
        runs: by name; empty while nothing has begun.
        ascii_only: for terminals without Unicode.
    """
    shown = list(runs.items())
    if not shown:
        body = [Text(WAITING)]
    elif len(shown) == 1:
        body = _one(*shown[0], width, height - 1, ascii_only)
    else:
        body = _several(shown, width, height - 1, ascii_only)
    foot = Text("q leaves; the run goes on", "dim")
    lines = [*body[: height - 1], foot] if height > 2 else body[:height]
    for line in lines:
        line.truncate(width, overflow="crop" if ascii_only else "ellipsis")
    return lines


def _one(name: str, run: Run, width: int, height: int, ascii_only: bool) -> list[Text]:
    """The run's name and state, progress, figures; then, as far as there is room, the curve, heads and samples."""
    now = time.time()
    lines = _head(name, run, width, now)
    if run.trains:
        lines += [_bar(run, width, now, ascii_only), *_pack(figures_of(run), width)[: max(1, height // 3)]]
    if run.trains and not run.figures.losses and not run.state.over:
        lines.append(Text("no step is logged yet", "dim"))
    room = height - len(lines)
    samples, heads = _samples(run, width), _heads(run)
    below: list[Text] = []
    for part, most in ((samples, room // 3), (heads, len(heads))):
        if part and room - len(below) - min(len(part), most) > _COMFORTABLE_CHART:
            below += part[: max(2, most)]
    curves = [Series(run.figures.losses, "cyan"), Series(run.figures.validations, "yellow", _mark(ascii_only))]
    tall = min(room - len(below) - 1, _TALLEST_CHART)
    chart = draw(curves, width, tall, ascii_only) if tall >= _LEAST_CHART else []
    legend = Text("loss", "cyan").append(f"   {_mark(ascii_only)} validation", "yellow")
    return [*lines, *([legend, *chart] if chart else []), *below]


def _several(shown: Sequence[tuple[str, Run]], width: int, height: int, ascii_only: bool) -> list[Text]:
    """A line or two for each run, below a chart of all their losses. Letters mark the ends of the curves."""
    now, lines, curves = time.time(), [], []
    for number, (name, run) in enumerate(shown):
        style, letter = _COLOURS[number % len(_COLOURS)], chr(ord("A") + number % 26)
        title = Text(f"{letter} ", style).append(_shorten(name, width - 2), "bold")
        figures = ", ".join(f"{figure.name} {figure.value}".strip() for figure in figures_of(run))
        said = f"  {state_of(run, now)}; {progress_of(run, now)}" if run.trains else f"  {state_of(run, now)}"
        lines += [title, Text(said, _STATES.get(run.state, "bold red"))]
        if figures:
            lines.append(Text(f"  {figures}", "dim"))
        curves += [Series(run.figures.losses, style), Series(run.figures.losses[-1:], style, letter)]
    if len(lines) > height - _LEAST_CHART - 1:  # the figures give way
        lines = [line for line in lines if line.style != "dim"]
    room = min(height - len(lines) - 1, _TALLEST_CHART)
    chart = draw(curves, width, room, ascii_only) if room >= _LEAST_CHART else []
    return [*([Text("loss"), *chart] if chart else []), *lines]


def _mark(ascii_only: bool) -> str:
    return "o" if ascii_only else _MARK


def _head(name: str, run: Run, width: int, now: float) -> list[Text]:
    """Name, stage and state of a run: on one line if they have room."""
    stage, state = Text(f"  {run.stage}", "dim"), Text(state_of(run, now), _STATES.get(run.state, "bold red"))
    room = width - stage.cell_len - state.cell_len - 2
    if room < min(len(name), _LEAST_NAME):
        return [Text(_shorten(name, width - stage.cell_len), "bold").append_text(stage), state]
    return [Text(_shorten(name, room), "bold").append_text(stage).append("  ").append_text(state)]


def _bar(run: Run, width: int, now: float, ascii_only: bool) -> Text:
    """The progress as a bar with steps and time left."""
    said, total = progress_of(run, now), run.total_steps
    columns = min(width - len(said) - 2, 60)
    if not total or columns < 8:
        return Text(said)
    full, empty = ("#", "-") if ascii_only else ("━", "─")
    done = max(0, min(columns, columns * run.figures.step // total))
    return Text(f"{said}  ").append(full * done, "green").append(empty * (columns - done), "dim")


def _pack(figures: Sequence[Figure], width: int) -> list[Text]:
    """Figures one after the other, on as many lines as they need."""
    lines: list[Text] = []
    for figure in figures:
        part = Text(figure.name + " " * bool(figure.name), "dim").append(figure.value, "not dim bold")
        if lines and lines[-1].cell_len + 3 + part.cell_len <= width:
            lines[-1].append("   ").append_text(part)
        else:
            lines.append(part)
    return lines


def _samples(run: Run, width: int) -> list[Text]:
    """The newest samples, wrapped, below a heading."""
    if not run.samples:
        return []
    lines = [Text(f"samples at step {run.samples_step}", "bold")]
    for sample in run.samples:
        for line in filter(str.strip, sample.splitlines()):
            lines += [Text(f"| {part}") for part in _wrap(printable(line.rstrip()), width - 2)]
    return lines


def _heads(run: Run) -> list[Text]:
    """The strongest heads by each measure, below a heading."""
    lines = []
    for measure, (probe, name) in MEASURES.items():
        best = run.strongest(probe, measure, 4)
        if best:
            scores = "   ".join(f"{score.layer}.{score.head} {score.value:.2f}" for score in best)
            lines.append(Text(f"{name:<15} ", "dim").append(scores, "not dim"))
    return [Text(f"heads (layer.head) at step {run.heads_step:.0f}", "bold"), *lines] if lines else []


def _wrap(line: str, width: int) -> list[str]:
    """A line in pieces of at most so many columns."""
    pieces, used = [""], 0
    for character in line:
        columns = cell_len(character)
        if used + columns > max(2, width):
            pieces, used = [*pieces, ""], 0
        pieces[-1] += character
        used += columns
    return pieces


def _shorten(name: str, width: int) -> str:
    """A name with its beginning left out where it is too long."""
    name = printable(name)
    return name if len(name) <= width else f"...{name[-max(1, width - 3) :]}"
