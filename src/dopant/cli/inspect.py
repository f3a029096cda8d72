"""`dopant inspect`: what a model folder stores and costs, from its headers alone."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dopant.cli.guard import guarded
from dopant.cli.options import Json
from dopant.cli.output import show, show_json, show_rich

if TYPE_CHECKING:
    from rich.table import Table

    from dopant.storage.inspect import Inspection

EXAMPLE = "dopant inspect runs/first/doped-kronecker"


@guarded
def inspect(
    folder: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Show what a model folder stores.

    Each weight with its structure, its parameters and its bytes, from the headers of the files; no tensor is loaded.
    """
    from dopant.storage.inspect import inspect as look

    found = look(folder)
    if as_json:
        show_json(found.to_json())
        return
    model = ", ".join(f"{key} {value}" for key, value in found.model.items())
    show(f"{found.folder}: {found.kind.replace('-', ' ')}, format {found.version}" + (f"; {model}" if model else ""))
    show("")
    show_rich(_table(found))
    show("")
    show(f"{found.parameters:,} numbers, {found.stored_bytes:,} bytes of tensors")
    show("files: " + ", ".join(f"{name} {size:,} bytes" for name, size in found.file_bytes.items()))


def _table(found: Inspection) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from dopant.plan.words import in_words

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("weight", "shape", "structure", "stored as"):
        table.add_column(heading, overflow="fold")
    for heading in ("parameters", "bytes", "fewer bytes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for weight in found.weights:
        name = " = ".join((weight.name, *weight.tied))
        entries = weight.shape[0] * weight.shape[1]
        table.add_row(
            escape(name),
            f"{weight.shape[0]}×{weight.shape[1]}",
            escape(in_words(weight.structure, weight.shape)),
            str(weight.storage),
            f"{weight.parameters:,}",
            f"{weight.stored_bytes:,}",
            f"{4 * entries / max(1, weight.stored_bytes):.1f}×",
        )
    for tensor in found.plain:
        shape = "×".join(map(str, tensor.shape)) or "number"
        numbers = f"{prod(tensor.shape):,}"
        table.add_row(escape(tensor.name), shape, "plain", tensor.dtype, numbers, f"{tensor.bytes:,}", "")
    return table
