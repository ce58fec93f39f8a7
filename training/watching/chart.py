"""Charts of characters: curves of Braille dots, two columns and four rows to a character."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from training.plots.style import short_count
from training.watching.figures import Points, thin

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # bits of U+2800, by column and row
_LABEL = 7  # characters of a label of the vertical axis
_FIRST = 0.05  # share of a curve whose high beginning may be cut off


@dataclass(frozen=True)
class Series:
    """A curve.

    Attributes:
        points: (step, value), by step.
        style: rich's, such as a colour.
        mark: a character at each point, in place of a line of dots.
    """

    points: Points
    style: str
    mark: str = ""


def draw(series: Sequence[Series], width: int, height: int, ascii_only: bool = False) -> list[Text]:
    """The lines of a chart, axes included; empty if there is nothing to draw, or no room.

    Args:
        ascii_only: for terminals without Unicode: a star for each character that has a dot.
    """
    columns, rows = width - _LABEL - 2, height - 1
    points = [point for each in series for point in each.points]
    if columns < 8 or rows < 2 or not points:
        return []
    left, right = min(step for step, _ in points), max(step for step, _ in points)
    low, high = _range(series)
    cells: list[list[tuple[str | int, str]]] = [[(0, "")] * columns for _ in range(rows)]

    def place(step: float, value: float) -> tuple[int, int]:
        """The dot of a point, from the upper left corner."""
        x, y = _share(step, left, right), _share(min(max(value, low), high), low, high)
        return round(x * (2 * columns - 1)), round((1 - y) * (4 * rows - 1))

    for each in series:
        if each.mark:
            for point in each.points:
                x, y = place(*point)
                cells[y // 4][x // 2] = (each.mark, each.style)
            continue
        for x, y in _line([place(*point) for point in thin(each.points, 2 * columns)]):
            found, _ = cells[y // 4][x // 2]
            if isinstance(found, int):
                cells[y // 4][x // 2] = (found | _DOTS[x % 2][y % 4], each.style)

    middle = (rows - 1) // 2
    labels = {middle: high - (high / 2 - low / 2) * (2 * middle / (rows - 1)), 0: high, rows - 1: low}
    lines = []
    for row, line in enumerate(cells):
        label = _short(labels[row]) if row in labels else ""
        text = Text(f"{label:>{_LABEL}} ", "dim").append("|" if ascii_only else "│", "dim")
        for shape, style in line:
            text.append(_character(shape, ascii_only), style)
        lines.append(text)
    ends = short_count(left, 0), f"step {short_count(right, 0)}"
    lines.append(Text(" " * (_LABEL + 2) + ends[0] + ends[1].rjust(columns - len(ends[0])), "dim"))
    return lines


def _range(series: Sequence[Series]) -> tuple[float, float]:
    """The lowest and the highest value to show, apart from the beginning of each curve."""
    values = []
    for each in series:
        first = int(len(each.points) * _FIRST) if not each.mark else 0
        values += [value for _, value in each.points[first:]]
    low, high = min(values), max(values)
    margin = abs(low) * 0.01 or 0.01
    return (low, high) if high > low else (low - margin, high + margin)


def _share(value: float, low: float, high: float) -> float:
    """The place of a value between two others, from 0 to 1. Of halves, so that nothing overflows."""
    return (value / 2 - low / 2) / (high / 2 - low / 2) if high > low else 0.0


def _line(dots: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The dots of straight lines from each of these to the next."""
    found = dots[:1]
    for (x, y), (next_x, next_y) in zip(dots, dots[1:], strict=False):
        steps = max(abs(next_x - x), abs(next_y - y))
        found += [
            (round(x + (next_x - x) * part / steps), round(y + (next_y - y) * part / steps))
            for part in range(1, steps + 1)
        ]
    return found


def _character(shape: str | int, ascii_only: bool) -> str:
    if isinstance(shape, str):
        return shape
    if not shape:
        return " "
    return "*" if ascii_only else chr(0x2800 + shape)


def _short(value: float) -> str:
    """A number in at most seven characters."""
    text = f"{value:.3f}"
    return text if len(text) <= _LABEL else f"{value:.3g}"[:_LABEL]
