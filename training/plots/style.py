"""The style of all plots: colours, fonts, short tick labels, and `drawing`, which sets matplotlib up for them."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

# The palette of Okabe and Ito, which people with colour-blindness can distinguish.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
INK, FAINT = "#222222", "#8A8A8A"
STYLE = {
    "text.parse_math": False,  # a name may hold two dollar signs
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


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

    with pyplot.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE | {name.replace("_", "."): value for name, value in style.items()})
        yield pyplot
        pyplot.close("all")


def short_count(count: float, _: int) -> str:
    """A count as a tick label, such as 5M for 5000000; a formatter for matplotlib."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:g}{name}"
    return f"{count:g}"
