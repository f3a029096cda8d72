"""The table of a comparison, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from dopant.reporting import words
from dopant.reporting.report import Report, Row


@dataclass(frozen=True)
class Column:
    """A column: what stands over it, and what a row puts into it."""

    header: str
    cell: Callable[[Row], str]
    left: bool = False

    @property
    def line(self) -> str:
        """The header in one line."""
        return self.header.replace("-\n", "-").replace("\n", " ")


def _measured(row: Row, name: str, mean: float | None) -> str:
    return words.perplexity(mean) + words.spread(getattr(seed, name) for seed in row.seeds)


def _loss(row: Row) -> str:
    return words.percent(row.loss_percent, words.spread((seed.loss_percent for seed in row.seeds), digits=1))


COLUMNS: dict[str, Column] = {
    "method": Column("method", lambda row: row.label, left=True),
    "parameters": Column("parameters", lambda row: words.count(row.parameters or None)),
    "nonzeros": Column("non-\nzeros", lambda row: words.count(row.nonzeros or None)),
    "parameter_factor": Column("fewer\nparam.", lambda row: words.factor(row.parameter_factor)),
    "stored_bytes": Column("bytes", lambda row: words.size(row.stored_bytes or None)),
    "byte_factor": Column("fewer\nbytes", lambda row: words.factor(row.byte_factor)),
    "file": Column("whole\nfile", lambda row: words.size(row.file_bytes or None)),
    "valid": Column("valid\nperpl.", lambda row: _measured(row, "perplexity_valid", row.perplexity_valid)),
    "test": Column("test\nperpl.", lambda row: _measured(row, "perplexity_test", row.perplexity_test)),
    "loss": Column("loss", _loss),
    "time": Column("training", lambda row: words.duration(row.train_seconds)),
    "seeds": Column("seeds", lambda row: words.count(len(row.seeds) or None)),
}
"""All columns in the order in which they are shown."""

_KEEP_FIRST = (
    "method", "test", "loss", "parameter_factor", "byte_factor", "file", "parameters", "valid", "stored_bytes",
    "time", "nonzeros", "seeds",
)  # fmt: skip
_ALWAYS = 5  # the first of these stay on any terminal; the method's name is cut where they need the room
_NAME = 16  # but not below this


def columns_of(report: Report) -> tuple[str, ...]:
    """All columns that tell something: how many seeds there are is told where some row has several."""
    several = any(len(row.seeds) > 1 for row in report.rows)
    return tuple(name for name in COLUMNS if name != "seeds" or several)


def important_first(report: Report) -> tuple[str, ...]:
    """The same columns in the order in which room is given to them."""
    return tuple(name for name in _KEEP_FIRST if name in columns_of(report))


def fitting_columns(report: Report, width: int) -> list[str]:
    """The columns that fit into `width` characters without wrapping, the important ones first."""
    names = important_first(report)
    for end in range(len(names), _ALWAYS, -1):
        if _width(report, names[:end]) <= width:
            return _in_order(names[:end])
    return _in_order(_KEEP_FIRST[:_ALWAYS])


def make_table(report: Report, width: int = 100) -> Table:
    """A table for `rich.console.Console.print` that is at most `width` (but at least 50) characters wide.

    The best compressed row is bold.
    """
    names = fitting_columns(report, width)
    table = _table(report, names)
    name = _name_width(report)
    others = _width(report, tuple(names)) - name
    table.columns[0].width = min(name, max(_NAME, width - others))
    return table


def _in_order(names: tuple[str, ...]) -> list[str]:
    return [name for name in COLUMNS if name in names]


def _width(report: Report, names: tuple[str, ...]) -> int:
    console = Console(width=10_000)
    return Measurement.get(console, console.options, _table(report, _in_order(names))).maximum


def _name_width(report: Report) -> int:
    return max(cell_len(cell) for cell in ("method", *(row.label for row in report.rows)))


def _table(report: Report, names: list[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        column = COLUMNS[name]
        table.add_column(
            column.header,
            justify="left" if column.left else "right",
            vertical="bottom",
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in report.rows:
        cells = [escape(COLUMNS[name].cell(row)) for name in names]
        table.add_row(*cells, style="bold" if row is report.best else None)
    return table


def markdown_table(report: Report, columns: tuple[str, ...] | None = None) -> str:
    """The table in Markdown, aligned in the source too, with the protocol under it."""
    wanted = columns_of(report) if columns is None else columns
    chosen = [COLUMNS[name] for name in COLUMNS if name in wanted]
    lines = [[column.line for column in chosen]]
    for row in report.rows:
        cells = [column.cell(row).replace("|", "\\|") for column in chosen]
        lines.append([f"**{cell}**" if row is report.best else cell for cell in cells])
    widths = [max(map(cell_len, cells)) for cells in zip(*lines, strict=True)]
    ruler = [
        "-" * width if column.left else "-" * (width - 1) + ":" for column, width in zip(chosen, widths, strict=True)
    ]
    lines.insert(1, ruler)
    text = "\n".join(
        "| " + " | ".join(_pad(*cell) for cell in zip(cells, widths, chosen, strict=True)) + " |" for cells in lines
    )
    return f"{text}\n\n{words.protocol_line(report)}\n"


def _pad(cell: str, width: int, column: Column) -> str:
    blanks = " " * (width - cell_len(cell))
    return cell + blanks if column.left else blanks + cell
