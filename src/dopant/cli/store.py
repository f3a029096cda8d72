"""`dopant store`: a model folder with its numbers kept otherwise."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dopant.cli.guard import guarded
from dopant.cli.options import INDICES, VALUES, Force, Json, Out, Quiet
from dopant.cli.output import say, show, show_json, width

if TYPE_CHECKING:
    from dopant.cost import Storage
    from dopant.storage import Rewritten

EXAMPLE = "dopant store runs/small --values huffman --weight 're:.*' --out runs/smaller"
HEADINGS = ("weight", "was stored as", "is stored as", "bytes before", "bytes now")
_KEPT = "[default: as they are]"


@guarded
def store(
    folder: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder.", show_default=False)],
    out: Out,
    values: Annotated[
        str | None, typer.Option("--values", metavar=VALUES, help=f"How the file keeps numbers. {_KEPT}")
    ] = None,
    indices: Annotated[
        str | None, typer.Option("--indices", metavar=INDICES, help=f"How the file keeps positions. {_KEPT}")
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weight",
            metavar="NAME|re:PATTERN",
            help="Which weights. May be repeated. [default: all that are not dense]",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a model folder once more, its numbers in other types.

    Nothing is trained: numbers are rounded, places coded anew. All else is copied as it is.
    """
    from dopant.plan.columns import text_table
    from dopant.storage import store as run

    changes = run(folder, out, values=values, indices=indices, weights=weights, force=force)  # type: ignore[arg-type]  # it says which there are
    if as_json:
        show_json({"folder": str(out), "weights": [asdict(change) for change in changes]})
    else:
        show(
            "\n".join(text_table(HEADINGS, [*map(_row, changes), _total(changes)], numbers=2, width=width(sys.stdout)))
        )
    rounded = any(change.after.values not in ("float32", change.before.values) for change in changes)
    say(f"wrote {out}" + f"; what rounding costs: dopant evaluate {out}" * rounded, quiet=quiet)


def _row(change: Rewritten) -> list[str]:
    def told(storage: Storage) -> str:
        return f"{storage.values}, {storage.indices}" if change.positions else storage.values

    before, after = told(change.before), told(change.after)
    now = "the same" if after == before else after
    return [change.name, before, now, f"{change.bytes_before:,}", f"{change.bytes_after:,}"]


def _total(changes: tuple[Rewritten, ...]) -> list[str]:
    before, after = sum(change.bytes_before for change in changes), sum(change.bytes_after for change in changes)
    return ["all weights", "", "", f"{before:,}", f"{after:,}"]
