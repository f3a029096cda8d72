"""`dopant inspect`: what a model folder stores and costs, from its headers alone."""

from __future__ import annotations

import sys
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dopant.cli.guard import guarded
from dopant.cli.options import Json
from dopant.cli.output import show, show_json, width

if TYPE_CHECKING:
    from dopant.storage.inspect import Inspection

EXAMPLE = "dopant inspect runs/first/doped-kronecker"
HEADINGS = ("weight", "shape", "structure", "stored as", "parameters", "bytes", "fewer bytes")


@guarded
def inspect(
    folder: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Show what a model folder stores.

    Each weight with its structure, its parameters and its bytes, from the headers of the files; no tensor is loaded.
    """
    from dopant.plan.columns import text_table, wrapped
    from dopant.storage.inspect import inspect as look

    found = look(folder)
    if as_json:
        show_json(found.to_json())
        return
    model = ", ".join(f"{key} {value}" for key, value in found.model.items())
    heading = f"{found.folder}: {found.kind.replace('-', ' ')}, format {found.version}"
    fits = width(sys.stdout)
    lines = wrapped(f"{heading}; {model}" if model else heading, fits)
    files = ", ".join(f"{name} {size:,} bytes" for name, size in found.file_bytes.items())
    lines += [
        "",
        *text_table(HEADINGS, _rows(found), numbers=3, width=fits),
        "",
        f"{found.parameters:,} numbers, {found.stored_bytes:,} bytes of tensors",
        *wrapped(f"files: {files}", fits),
    ]
    show("\n".join(lines))


def _rows(found: Inspection) -> list[list[str]]:
    from dopant.plan.words import in_words

    rows = []
    for weight in found.weights:
        entries = weight.shape[0] * weight.shape[1]
        rows.append(
            [
                " = ".join((weight.name, *weight.tied)),
                f"{weight.shape[0]}×{weight.shape[1]}",
                in_words(weight.structure, weight.shape),
                ", ".join((weight.storage.values, weight.storage.indices)[: 1 + weight.positions]),
                f"{weight.parameters:,}",
                f"{weight.stored_bytes:,}",
                f"{4 * entries / max(1, weight.stored_bytes):.1f}×",
            ]
        )
    for tensor in found.plain:
        shape = "×".join(map(str, tensor.shape)) or "number"
        numbers = f"{prod(tensor.shape):,}"
        rows.append([tensor.name, shape, "plain", tensor.dtype, numbers, f"{tensor.bytes:,}", ""])
    return rows
