"""`dopant report`: the page made again from the numbers, of one comparison or of runs that were made apart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dopant.cli.guard import guarded
from dopant.cli.options import Force, Json, Quiet
from dopant.cli.output import say, show
from dopant.cli.show_report import show_report

EXAMPLE = "dopant report runs/demo"


@guarded
def report(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="A folder with a report.json, or that file; several are joined."),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Where to write several as one.", show_default=False),
    ] = None,
    force: Force = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make report.html again from report.json.

    Several reports, such as those that `train` leaves in DIR.run, are joined into one. Prints the table too, with
    --markdown in the form for a README.
    """
    from dopant.recipes.pipeline import report as run
    from dopant.reporting.table import markdown_table

    found, page = run(*sources, out=out, force=force)
    if markdown and not as_json:
        show(markdown_table(found))
    else:
        show_report(found, as_json=as_json)
    say(f"wrote {page}", quiet=quiet)
