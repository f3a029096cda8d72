"""`dopant report`: the page made again from the numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dopant.cli.guard import guarded
from dopant.cli.options import Json, Quiet
from dopant.cli.output import say, show
from dopant.cli.results import show_report

EXAMPLE = "dopant report runs/demo"


@guarded
def report(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder with a report.json, or that file.", show_default=False)
    ],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make report.html again from report.json.

    Prints the table too, with --markdown in the form for a README.
    """
    from dopant.report.page import write_page
    from dopant.report.report import read_report
    from dopant.report.table import markdown_table

    source = folder / "report.json" if folder.is_dir() else folder
    found = read_report(source)
    page = write_page(found, source.with_suffix(".html"))
    if markdown and not as_json:
        show(markdown_table(found))
    else:
        show_report(found, as_json=as_json)
    say(f"wrote {page}", quiet=quiet)
