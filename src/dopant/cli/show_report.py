"""A report on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dopant.cli.output import show_json, stdout

if TYPE_CHECKING:
    from dopant.reporting.report import Report


def show_report(report: Report, *, as_json: bool) -> None:
    """The table with its headline, or all of it as JSON."""
    from dopant.reporting.table import make_table
    from dopant.reporting.words import headline

    if as_json:
        show_json(report.model_dump(mode="json"))
    else:
        console = stdout()
        console.print(make_table(report, console.width))
        for row in report.rows:
            if row.note:
                console.print(f"{row.label}: {row.note}", markup=False, soft_wrap=True)
        console.print(f"\n{headline(report)}", markup=False, soft_wrap=True)
