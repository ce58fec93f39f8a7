"""The style of all plots: colours, marks, names, captions, legends, ticks; matplotlib set up; a figure written."""

import contextlib
import os
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from training.common.files import open_whole

# The palette of Okabe and Ito, which people with colour-blindness can distinguish. Marks repeat later than colours.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "///", "...", "xxx")
INK, FAINT = "#222222", "#8A8A8A"
STYLE = {
    "text.parse_math": False,  # a name may hold two dollar signs
    "font.size": 10,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 150,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.alpha": 0.2,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
_UNDATED = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
_CHARACTERS = 11  # in an inch of text of this size
_CAPTION_CHARACTERS = 13.5  # in an inch of a caption


@contextlib.contextmanager
def drawing(**style: Any) -> Iterator[Any]:
    """matplotlib's `pyplot` in this style, drawing to files.

    The settings of the user and of other libraries in the process are left aside: the same figures give the same bytes.

    Args:
        style: further rcParams, with `_` for `.`, such as `axes_spines_left=False`.
    """
    os.environ["MPLBACKEND"] = "Agg"  # the import fails if the user's value is unknown
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # a name in a script without a font
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE | {name.replace("_", "."): value for name, value in style.items()})
        yield pyplot
        pyplot.close("all")


def save(figure: Any, path: Path) -> None:
    """Write a figure in the format of the file's ending, whole or not at all, without the time of drawing."""
    with open_whole(path) as stream:
        figure.savefig(stream, format=path.suffix[1:].lower(), metadata=_UNDATED.get(path.suffix.lower()))


def series(number: int) -> dict[str, str]:
    """Colour and marker of a series; both together repeat after 42."""
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}


def bars(number: int) -> dict[str, str]:
    """Colour and hatch of a series of bars; both together repeat after 24."""
    hatch = HATCHES[number // len(COLOURS) % len(HATCHES)]
    return {"color": COLOURS[number % len(COLOURS)], "hatch": hatch, "edgecolor": "white", "linewidth": 0}


def legend_below(figure: Any, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Draw a legend below the axes of a figure or subfigure, in as many columns as its width has room for."""
    room = figure.bbox.width / figure.figure.dpi * _CHARACTERS
    widths = [len(name) + 8 for name in names]
    columns = len(names) if sum(widths) <= room else max(1, int(room / max(widths)))
    figure.legend(handles, names, loc="outside lower center", ncols=columns)


def label_ends(axes: Any, labels: Sequence[tuple[float, str, str]], apart: float = 0.1) -> None:
    """Name curves to the right of the axes, each at the height of its end, or as near as the others leave room.

    Args:
        labels: end on the vertical axis, name and colour of each curve.
        apart: least distance of two names, as a share of the height. The limits of the axis must be set before.
    """
    low, high = axes.get_ylim()
    place = 1.0 + apart
    placed = sorted(labels, key=lambda label: -label[0])
    for number, (end, name, colour) in enumerate(placed):
        height = (end - low) / (high - low)
        room_below = apart * (len(placed) - 1 - number)
        place = min(max(height, room_below), place - apart)
        style = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "center", "fontsize": 8.5}
        axes.annotate(name, (1, place), (5, 0), color=colour, annotation_clip=False, **style)


def caption(figure: Any, sentence: str) -> None:
    """Write a sentence below a figure or subfigure that says what to look for."""
    width = figure.bbox.width / figure.figure.dpi
    lines = textwrap.wrap(sentence, int(width * _CAPTION_CHARACTERS))
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=9, color=INK)


def short_name(name: str, limit: int = 32) -> str:
    """A name on one line, with its middle left out if it is longer than `limit`."""
    name = " ".join(name.split())
    return name if len(name) <= limit else f"{name[: limit // 2 - 1]}…{name[-(limit - limit // 2) :]}"


def short_names(names: Iterable[str], limit: int = 32) -> list[str]:
    """Names as by `short_name`. Those that would be equal have their place in `names` added, from 1."""
    short = [short_name(name, limit) for name in names]
    count = Counter(short)
    return [name if count[name] == 1 else f"{name} #{place}" for place, name in enumerate(short, start=1)]


def short_count(count: float, _: int) -> str:
    """A count as a tick label, such as 5M for 5000000; a formatter for matplotlib."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:g}{name}"
    return f"{count:g}"


def rounded_count(count: float) -> str:
    """A count with two digits, such as 32M."""
    return short_count(float(f"{count:.2g}"), 0)
