"""The explanation of Q, K and V on two pages to print: from a text to what one head adds, with the model's numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.common.files import open_whole
from training.common.tables import Row
from training.insight.heads import head_name
from training.insight.walkthrough import Walkthrough
from training.plots.insight.explanation import dot_product_table, number, softmax_table, steps
from training.plots.insight.maps import draw_map, visible
from training.plots.style import COLOURS, FAINT, INK, drawing, save, short_name

PAGES = 2
_WIDTH, _HEIGHT = 8.27, 11.69  # A4 in inches
_MARGIN = 0.75
_INNER = _WIDTH - 2 * _MARGIN
_LINE = 0.165  # inches between lines of text
_TEXT = 9  # points
_QUERY, _KEY, _VALUE = COLOURS[5], COLOURS[0], COLOURS[2]  # of what is followed: the query, the key, the value
_MOST_NUMBERS = 14  # tokens, up to which maps hold numbers
_TOKENS_A_LINE = 12
_STEP_HEIGHT = 0.1  # inches between the parts of a step


def draw_explanation(walk: Walkthrough, pdf: Path, images: Sequence[Path]) -> None:
    """Draw the pages.

    Args:
        pdf: file of both pages.
        images: a PNG for each page.
    """
    from matplotlib.backends.backend_pdf import PdfPages

    with drawing() as pyplot, pyplot.rc_context({"figure.constrained_layout.use": False}):
        pages = [_first_page(pyplot, walk), _second_page(pyplot, walk)]
        with open_whole(pdf) as stream, PdfPages(stream, metadata={"CreationDate": None}) as document:
            for page in pages:
                document.savefig(page)
        for page, file in zip(pages, images, strict=True):
            save(page, file)


class _Page:
    """A page that fills from top to bottom; places and sizes in inches from the upper left.

    Args:
        figure: of the page.
        top: where the next part begins.
    """

    def __init__(self, figure: Any, top: float):
        self.figure, self.top = figure, top

    def write(self, text: str, left: float = _MARGIN, **style: Any) -> None:
        """Write one line."""
        self.figure.text(left / _WIDTH, 1 - self.top / _HEIGHT, text, va="top", **style)

    def begin(self, place: int, title: str, text: str) -> None:
        """Write the heading of a step, and its sentences below."""
        self.write(str(place), fontsize=13, fontweight="bold", color=COLOURS[0])
        self.write(title, _MARGIN + 0.28, fontsize=11.5, fontweight="bold")
        self.top += 0.27
        for line in self.wrap(text):
            self.write(line, fontsize=_TEXT)
            self.top += _LINE
        self.top += _STEP_HEIGHT

    def wrap(self, text: str) -> list[str]:
        """The lines of a text, as wide as the page."""
        from matplotlib.font_manager import FontProperties

        renderer, font, lines = self.figure.canvas.get_renderer(), FontProperties(size=_TEXT), [""]
        for word in text.split(" "):
            longer = f"{lines[-1]} {word}".strip()
            width, _, _ = renderer.get_text_width_height_descent(longer, font, False)
            if width > _INNER * self.figure.dpi:
                lines.append(word)
            else:
                lines[-1] = longer
        return lines

    def axes(self, left: float, width: float, height: float, below: float = 0.0) -> Any:
        """Axes at a distance from the left margin, `below` the current place, which stays."""
        bottom = _HEIGHT - self.top - below - height
        axes = self.figure.add_axes(
            ((_MARGIN + left) / _WIDTH, bottom / _HEIGHT, width / _WIDTH, height / _HEIGHT)
        )
        axes.tick_params(length=0, labelsize=7.5)
        return axes

    def canvas(self, height: float) -> Any:
        """Axes of the whole width without frame, in inches from their upper left, for boxes and text."""
        axes = self.axes(0, _INNER, height)
        axes.set(xlim=(0, _INNER), ylim=(height, 0))
        axes.axis("off")
        return axes


def _first_page(pyplot: Any, walk: Walkthrough) -> Any:
    figure = pyplot.figure(figsize=(_WIDTH, _HEIGHT))
    page, texts = _Page(figure, 0.6), steps(walk)
    page.write("Query, key and value, with the numbers of a real model", fontsize=16, fontweight="bold")
    page.top += 0.36
    page.write(f"Head {head_name(walk.head)} of {short_name(walk.model, 60)} reads:", fontsize=10, color=FAINT)
    page.top += 0.22
    page.write(visible("".join(walk.tokens), 95), fontsize=9, family="monospace")
    page.top += 0.36
    for place, draw in enumerate((_draw_tokens, _draw_vectors, _draw_projections, _draw_dot_product)):
        page.begin(place + 1, texts[place].title, texts[place].text)
        draw(page, walk)
    _write_foot(page, 1)
    return figure


def _second_page(pyplot: Any, walk: Walkthrough) -> Any:
    figure = pyplot.figure(figsize=(_WIDTH, _HEIGHT))
    page, texts = _Page(figure, 0.6), steps(walk)
    for places, draw in (((4, 5), _draw_softmax), ((6,), _draw_mix), ((7,), _draw_output)):
        for place in places:
            page.begin(place + 1, texts[place].title, texts[place].text)
        draw(page, walk)
    _write_foot(page, 2)
    return figure


def _write_foot(page: _Page, place: int) -> None:
    page.top = _HEIGHT - 0.6
    legend = (("query", _QUERY), ("key", _KEY), ("value that is followed", _VALUE))
    for left, (name, colour) in zip((0, 0.6, 1.1), legend):
        page.write(f"■ {name}", _MARGIN + left, fontsize=8, color=colour)
    page.write(f"{place} / {PAGES}", _WIDTH - _MARGIN - 0.2, fontsize=8, color=FAINT)
    page.top += 0.17
    rest = "Purple is below zero, orange above; (±) is the end of the scale. All numbers are rounded."
    page.write(rest, fontsize=8, color=FAINT)


def _draw_tokens(page: _Page, walk: Walkthrough) -> None:
    """Draw a box for each token, with position and id."""
    from matplotlib.patches import Rectangle

    lines = -(-len(walk.tokens) // _TOKENS_A_LINE)
    in_line = -(-len(walk.tokens) // lines)
    width, height = min(0.95, _INNER / in_line), 0.62
    axes = page.canvas(lines * height)
    for place, (token, id_) in enumerate(zip(walk.tokens, walk.token_ids)):
        left, top = place % in_line * width, place // in_line * height
        colour = _QUERY if place == walk.row else _KEY if place == walk.column else FAINT
        style = {"facecolor": "white", "edgecolor": colour, "linewidth": 1.2}
        axes.add_patch(Rectangle((left + 0.02, top + 0.14), width - 0.04, 0.27, **style))
        middle, name = {"ha": "center", "va": "center"}, visible(token, int(width * 11))
        axes.text(left + width / 2, top + 0.275, name, family="monospace", fontsize=8, **middle)
        axes.text(left + width / 2, top + 0.06, str(place), fontsize=7, color=colour, **middle)
        axes.text(left + width / 2, top + 0.49, str(id_), fontsize=7, color=FAINT, **middle)
    page.top += lines * height + 0.12


def _draw_vectors(page: _Page, walk: Walkthrough) -> None:
    """Draw embeddings and normalised vectors, and spell out the first numbers of the query's token."""
    width, height = (_INNER - 1.1) / 2, _height_of(walk)
    hidden, count = walk.normed.shape[1], len(walk.tokens)
    for place, (name, vectors) in enumerate((("embedding", walk.embedding), ("after the norm", walk.normed))):
        axes = page.axes(0.75 + place * (width + 0.3), width, height, below=0.2)
        _draw_matrix(axes, vectors, f"{name}: {count} × {hidden:,}", walk, labels=not place)
        _frame(axes, walk.row, _QUERY)
        _frame(axes, walk.column, _KEY)
    page.top += height + 0.28
    shown = ", ".join(number(value) for value in walk.normed[walk.row][:9])
    page.write(f"{visible(walk.tokens[walk.row])} after the norm = ({shown}, …)", fontsize=8.5, color=_QUERY)
    page.top += 0.4


def _draw_projections(page: _Page, walk: Walkthrough) -> None:
    """Draw Q, K and V of the head."""
    width, height = (_INNER - 1.25) / 3, _height_of(walk)
    count, size = walk.query.shape
    shown = (("query Q", walk.query, walk.row, _QUERY), ("key K", walk.key, walk.column, _KEY),
             ("value V", walk.value, walk.column, _VALUE))  # fmt: skip
    for place, (name, vectors, row, colour) in enumerate(shown):
        axes = page.axes(0.75 + place * (width + 0.25), width, height, below=0.2)
        _draw_matrix(axes, vectors, f"{name}: {count} × {size}", walk, labels=not place)
        _frame(axes, row, colour)
    page.top += height + 0.55


def _draw_dot_product(page: _Page, walk: Walkthrough) -> None:
    colours = {"query": _QUERY, "key": _KEY}
    _draw_table(page, dot_product_table(walk), colours)


def _draw_softmax(page: _Page, walk: Walkthrough) -> None:
    """Draw scores and shares side by side, and spell out the row of the query that is followed."""
    side, labels = 2.6, 0.75
    scores = np.ma.masked_array(walk.scores, ~walk.seen)
    limit = float(np.abs(scores).max()) or 1.0
    left = page.axes(labels, side, side, below=0.2)
    left.imshow(scores, cmap="PuOr_r", vmin=-limit, vmax=limit)
    left.set_facecolor("#E4E4E4")
    right = page.axes(_INNER - side, side, side, below=0.2)
    draw_map(right, walk.weights, walk.tokens, labels=False)
    for axes, values, dark, name in (
        (left, walk.scores, 0.6 * limit, "scores, masked"),
        (right, walk.weights, 0.45, "shares: the attention"),
    ):
        axes.set_title(name, fontsize=8.5, fontweight="normal", pad=4)
        _name_tokens(axes, walk, columns=True, rows=axes is left)
        _frame(axes, walk.row, _QUERY)
        if len(walk.tokens) <= _MOST_NUMBERS:
            _write_numbers(axes, values, walk.seen, dark, digits=1 if axes is left else 2)
    page.top += side + 0.35 + 0.065 * max(len(_name(token)) for token in walk.tokens)
    _draw_table(page, softmax_table(walk), {"score": _QUERY})


def _draw_mix(page: _Page, walk: Walkthrough) -> None:
    """Draw the shares of the query that is followed, the values beside them, and the sum below."""
    height, shares = _height_of(walk), 1.4
    bars = page.axes(0.75, shares, height, below=0.2)
    rows = range(len(walk.tokens))
    bars.barh(rows, walk.weights[walk.row], height=0.75, color=_KEY)
    bars.set(ylim=(len(rows) - 0.5, -0.5), xlim=(0, 1.3 * walk.weights[walk.row].max()), xticks=[])
    bars.set_title("share", fontsize=8.5, fontweight="normal", pad=4)
    for row, share in enumerate(walk.weights[walk.row]):
        bars.text(share, row, f" {number(share)}", va="center", fontsize=min(7.5, 60 * height / len(rows)))
    bars.spines["bottom"].set_visible(False)
    _name_tokens(bars, walk)
    left = 0.75 + shares + 0.25
    values = page.axes(left, _INNER - left, height, below=0.2)
    limit = _draw_matrix(values, walk.value, f"value V: {len(rows)} × {walk.value.shape[1]}", walk, labels=False)
    page.top += height + 0.26
    total = page.axes(left, _INNER - left, 0.16)
    total.imshow(walk.mixed[walk.row][None], aspect="auto", cmap="PuOr_r", vmin=-limit, vmax=limit)
    total.set(xticks=[], yticks=[])
    page.write("sum of share × value:", _MARGIN + 1.05, fontsize=8)
    page.top += 0.42


def _draw_output(page: _Page, walk: Walkthrough) -> None:
    """Draw the vector of the query's token before and after the head has added its output, in one scale."""
    before, added = walk.stream[walk.row], walk.added[walk.row]
    limit = float(np.quantile(np.abs([before, added, before + added]), 0.99)) or 1.0
    for name, vector in (("before", before), ("+ head", added), ("= sum", before + added)):
        axes = page.axes(0.75, _INNER - 0.75, 0.17)
        axes.imshow(vector[None], aspect="auto", cmap="PuOr_r", vmin=-limit, vmax=limit)
        axes.set(xticks=[], yticks=[])
        page.write(name, fontsize=8.5)
        page.top += 0.24


def _height_of(walk: Walkthrough) -> float:
    """Inches of a matrix with a row for each token."""
    return min(1.3, 0.115 * len(walk.tokens))


def _draw_matrix(axes: Any, vectors: np.ndarray, title: str, walk: Walkthrough, labels: bool) -> float:
    """Draw vectors as rows, purple below zero and orange above; returns the end of the scale."""
    limit = float(np.quantile(np.abs(vectors), 0.99)) or 1.0
    axes.imshow(vectors, aspect="auto", cmap="PuOr_r", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set_title(f"{title} (±{limit:.2g})", fontsize=8.5, fontweight="normal", pad=4)
    axes.set(xticks=[], yticks=[])
    if labels:
        _name_tokens(axes, walk)
    return limit


def _name(token: str) -> str:
    return visible(token, 9)


def _name_tokens(axes: Any, walk: Walkthrough, rows: bool = True, columns: bool = False) -> None:
    names, size = [_name(token) for token in walk.tokens], 7.5 if len(walk.tokens) <= 14 else 5
    axes.set(xticks=[], yticks=[])
    style = {"family": "monospace", "fontsize": size}
    if rows:
        axes.set_yticks(range(len(names)), names, **style)
    if columns:
        axes.set_xticks(range(len(names)), names, rotation=90, **style)


def _frame(axes: Any, row: int, colour: str) -> None:
    """Draw a frame around a row of a matrix."""
    from matplotlib.patches import Rectangle

    left, right = sorted(axes.get_xlim())
    frame = Rectangle((left, row - 0.5), right - left, 1, fill=False, edgecolor=colour, linewidth=1.4, clip_on=False)
    axes.add_patch(frame)


def _write_numbers(axes: Any, values: np.ndarray, seen: np.ndarray, dark: float, digits: int) -> None:
    """Write the numbers into the cells of a map, white where the cell is dark."""
    size = min(7.5, 75 / len(values))
    for (row, column), value in np.ndenumerate(values):
        if seen[row, column]:
            text = f"{value:.{digits}f}".replace("-0.", "−.").replace("-", "−").removeprefix("0") or "0"
            colour = "white" if abs(value) > dark else INK
            axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)


def _draw_table(page: _Page, table: list[Row], colours: dict[str, str]) -> None:
    """Draw a table; the first column to the left, numbers to the right, the last column bold."""
    first, line = 1.25, 0.19
    widths = [1.4 if cell.endswith("others") else 1.0 for cell in table[0][1:]]
    ends = first + np.cumsum(widths) / sum(widths) * (_INNER - first)
    axes = page.canvas(line * len(table))
    for place, (name, *cells) in enumerate(table):
        middle = line * (place + 0.5)
        style = {"va": "center", "fontsize": 8, "color": colours.get(name, FAINT if not place else INK)}
        axes.text(0, middle, name, ha="left", **style)
        for column, cell in enumerate(cells):
            bold = "bold" if column == len(cells) - 1 and place else "normal"
            axes.text(ends[column] - 0.06, middle, cell, ha="right", fontweight=bold, **style)
    axes.axhline(line, color=FAINT, linewidth=0.6)
    axes.axhline(line * (len(table) - 1), color=FAINT, linewidth=0.6)
    page.top += line * len(table) + 0.16
