"""Merge diagram of `scratch tokenizer --show`: the characters of each word, and a box above for every merge."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.model_io.token_merges import CutText, Word
from training.plots.style import COLOURS, FAINT, INK, drawing, save, short_name

_LINE, _NARROWEST = 44.0, 27.0  # units of the longest line, and of the picture; the box of a character is one wide
_UNIT, _LEVEL = 0.3, 0.34  # inches: width of a unit, height of a level
_TALLEST = 40  # levels of all lines together
_DEEPEST = 12  # levels of a token
_GAP, _SPACE = 0.5, 0.6  # units between words, levels between lines
_MARGIN, _TITLE = 0.15, 0.75  # inches
_COLOURS = (COLOURS[0], COLOURS[5], COLOURS[2])  # dark enough for white text
_LOOK_FOR = (
    "A line of boxes at the bottom: the characters or bytes of a word. A box above joins two below it; its number is "
    "the rank of the merge.\nThe lowest rank of a word is merged first. Coloured boxes are the tokens."
)


@dataclass(frozen=True)
class _Box:
    """A piece of a word and the boxes that were merged into it.

    Attributes:
        width: in units.
        level: 0 at the bottom.
        rank: of the merge, as text; empty at the bottom.
    """

    text: str
    width: float
    level: int
    rank: str
    parts: tuple["_Box", ...] = ()


def draw_merges(file: Path, found: CutText, title: str) -> int:
    """Draw how the words of a text are merged into tokens.

    Returns:
        The number of tokens for which the picture has no room.
    """
    lines, left_out = _lay_out(found.words)
    heights = [1 + max(box.level for _, box in line) + _SPACE for line in lines]
    longest = max(_NARROWEST, *(start + box.width for line in lines for start, box in line))
    width, height = longest * _UNIT + 2 * _MARGIN, sum(heights) * _LEVEL + _TITLE
    with drawing() as pyplot:
        figure = pyplot.figure(figsize=(width, height), layout="none")
        axes = figure.add_axes((_MARGIN / width, 0, longest * _UNIT / width, 1 - _TITLE / height))
        axes.set(xlim=(0, longest), ylim=(-sum(heights), 0))
        axes.axis("off")
        bottom, number = 0.0, 0
        for line, line_height in zip(lines, heights, strict=True):
            bottom -= line_height
            for start, box in line:
                _draw_tree(axes, box, start, bottom + _SPACE / 2, _COLOURS[number % 3])
                number += 1
        lost = f"; {left_out} more tokens are not drawn" if left_out else ""
        top = {"x": _MARGIN / width, "va": "top"}
        figure.text(y=1 - 0.12 / height, s=short_name(title, 56) + lost, fontsize=11, fontweight="bold", **top)
        figure.text(y=1 - 0.36 / height, s=_LOOK_FOR, fontsize=8.5, color=INK, **top)
        save(figure, file)
    return left_out


def _lay_out(words: list[Word]) -> tuple[list[list[tuple[float, _Box]]], int]:
    """The boxes of the tokens with their starts, in lines, and the number of tokens for which there is no room."""
    lines: list[list[tuple[float, _Box]]] = [[]]
    trees = [list(_token_boxes(word)) for word in words]
    at = above = 0.0  # the end of the last box, and the height of the lines above
    for number, word in enumerate(trees):
        whole = sum(box.width for box in word) <= _LINE - at - _GAP
        at += _GAP if at else 0.0
        for place, box in enumerate(word):
            if at + box.width > _LINE or at and place == 0 and not whole:  # a word wider than a line is split
                above += 1 + max(other.level for _, other in lines[-1]) + _SPACE
                lines.append([])
                at = 0.0
            if above + 1 + box.level + _SPACE > _TALLEST:
                return [line for line in lines if line], sum(map(len, trees[number:])) - place
            lines[-1].append((at, box))
            at += box.width
    return lines, 0


def _token_boxes(word: Word) -> Iterator[_Box]:
    """The box of each token of a word; of one that is too large, without the boxes below it."""
    boxes = [_Box(piece, max(1, math.ceil(0.3 * len(piece))), 0, "") for piece in word.pieces]
    for merge in word.merges:
        left, right = boxes[merge.place : merge.place + 2]
        level = 1 + max(left.level, right.level)
        joined = _Box(merge.merged, left.width + right.width, level, f"{merge.rank:,}", (left, right))
        boxes[merge.place : merge.place + 2] = [joined]
    for box in boxes:
        fits = box.width <= _LINE and box.level <= _DEEPEST
        yield box if fits else _Box(short_name(box.text), min(box.width, _LINE), 0, "")


def _draw_tree(axes: Any, box: _Box, left: float, bottom: float, colour: str | None) -> None:
    """Draw a box, on top in the colour of its token, and those below it."""
    from matplotlib.patches import Rectangle

    edge = {"facecolor": colour or "white", "edgecolor": "white" if colour else FAINT, "linewidth": 0.8}
    axes.add_patch(Rectangle((left + 0.04, bottom + box.level), box.width - 0.08, 0.94, **edge))
    ink = "white" if colour else INK
    centre = {"ha": "center", "va": "center", "color": ink}
    x = left + box.width / 2
    axes.text(x, bottom + box.level + (0.62 if box.rank else 0.47), box.text, fontsize=9, **centre)
    if box.rank:
        axes.text(x, bottom + box.level + 0.22, box.rank, fontsize=6, **centre)
    for part in box.parts:
        _draw_tree(axes, part, left, bottom, None)
        left += part.width
