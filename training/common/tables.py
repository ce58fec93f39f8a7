"""Tables: aligned text for the terminal, Markdown for files."""

import textwrap

Row = list[str]

_HEADING = 11  # characters per line of a heading in the terminal: as wide as a figure with its error
_WIDEST = 110  # characters per line in the terminal


def as_markdown(table: list[Row]) -> str:
    """A Markdown table; the first column to the left, figures to the right."""
    header, *rows = table
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "".join("| " + " | ".join(row) + " |\n" for row in [header, rule, *rows])


def as_text(table: list[Row]) -> str:
    """Aligned columns for a terminal, long headings on several lines. A wide table continues below, with its first
    column repeated."""
    headings = [textwrap.wrap(cell.replace("_", " "), _HEADING) for cell in table[0]]
    widths = [max(map(len, [*lines, *cells])) for lines, cells in zip(headings, zip(*table[1:]))]
    blocks, used = [[0]], widths[0]
    for column in range(1, len(widths)):
        if used + 2 + widths[column] > _WIDEST and len(blocks[-1]) > 1:
            blocks, used = [*blocks, [0]], widths[0]
        blocks[-1].append(column)
        used += 2 + widths[column]
    return "\n".join(
        _block([headings[column] for column in block], [[row[column] for column in block] for row in table[1:]])
        for block in blocks
    )


def _block(headings: list[list[str]], rows: list[Row]) -> str:
    height = max(map(len, headings))
    above = [[""] * (height - len(lines)) + lines for lines in headings]  # (column, line)
    lines = _align([*map(list, zip(*above)), *rows])
    rule = "-" * max(map(len, lines))
    return "\n".join([*lines[:height], rule, *lines[height:]]) + "\n"


def _align(rows: list[Row]) -> list[str]:
    """The first column to the left, figures to the right."""
    first, *others = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others))]) for row in rows
    ]
