"""Tables: aligned text for the terminal, Markdown for files."""

import textwrap

Row = list[str]

_HEADING = 11  # characters per line of a heading in the terminal: as wide as a figure with its error


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
