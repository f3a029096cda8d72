"""`dopant report`: the page made again from the numbers, of one comparison or of runs that were made apart."""

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
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="A folder with a report.json, or that file; several are joined."),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Where to write several as one.", show_default=False),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make report.html again from report.json.

    Several reports, such as those that `train` leaves in DIR.run, are joined into one. Prints the table too, with
    --markdown in the form for a README.
    """
    from dopant.errors import InputError
    from dopant.report.join import join
    from dopant.report.page import write_page
    from dopant.report.report import read_report, write_report
    from dopant.report.table import markdown_table

    files = [_file(source) for source in sources]
    if len(files) > 1 and out is None:
        raise InputError(f"{len(files)} reports are joined into a new one; say where with --out")
    found = join([read_report(file) for file in files]) if out is not None else read_report(files[0])
    if out is None:
        page = write_page(found, files[0].with_suffix(".html"))
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_report(found, out / "report.json")
        page = write_page(found, out / "report.html")
    if markdown and not as_json:
        show(markdown_table(found))
    else:
        show_report(found, as_json=as_json)
    say(f"wrote {page}", quiet=quiet)


def _file(source: Path) -> Path:
    """The report in a folder, or the file itself."""
    from dopant.errors import InputError

    file = source / "report.json" if source.is_dir() else source
    run = Path(f"{source}.run")
    if not file.exists() and (run / "report.json").exists():
        raise InputError(f"{source} is a model folder; the report of its run is in {run}, name that")
    return file
