"""Tables in plain text: columns where they fit, else a paragraph a row."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

_GAP = "  "
_GLUE = "\u00a0"  # a blank at which no line is broken


def text_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int, width: int | None = None
) -> list[str]:
    """The lines of a table.

    Args:
        headings: one a column.
        rows: cells; an empty first one goes on with what is above. A row of two cells is a name and a remark, which
            runs on past the columns.
        numbers: so many of the last columns are aligned to the right.
        width: characters a line may have, None for as many as it takes. Where the columns do not fit, each row
            becomes a paragraph under its first cell, broken between cells where it can be.
    """
    whole = [headings, *(row for row in rows if len(row) > 2)]
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    widths[0] = max(len(row[0]) for row in (headings, *rows))
    if width is not None and sum(widths) + len(_GAP) * (len(widths) - 1) > width:
        return [line for row in rows for line in _paragraph(row, headings, numbers, width)]
    lines = []
    for row in (headings, ["─" * size for size in widths], *rows):
        places = zip(row, widths, range(len(row)), strict=False)
        cells = [cell.rjust(size) if i >= len(headings) - numbers else cell.ljust(size) for cell, size, i in places]
        line = _GAP.join(cells).rstrip()
        lines += [line] if width is None or len(line) <= width else _paragraph(row, headings, numbers, width)
    return lines


def wrapped(text: str, width: int | None, indent: str = "") -> list[str]:
    """A text in as many lines as it takes, the further ones two to the right; words stay whole."""
    if width is None:
        return [indent + text]
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_GLUE, " ") for line in lines]


def _paragraph(row: Sequence[str], headings: Sequence[str], numbers: int, width: int) -> list[str]:
    first_number = len(headings) - numbers
    parts = [f"{cell} {headings[i]}" if i >= first_number else cell for i, cell in enumerate(row) if cell]
    name = parts[:1] if row[0] else []
    glued = [part.replace(" ", _GLUE) if len(part) + 5 <= width else part for part in parts[len(name) :]]
    return [*name, *wrapped("; ".join(glued), width, indent="  ")]
