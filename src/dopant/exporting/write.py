"""`dopant export`: a model folder as one ONNX file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dopant.errors import InputError, KindError
from dopant.exporting.model import Layout, make_model
from dopant.storage.config import LANGUAGE_MODEL
from dopant.storage.folder import load_model
from dopant.storage.read import read_headers


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        path: the file.
        layout: see `dopant.exporting.model.make_model`.
        bytes: its size.
        nodes: operators in its graph, those of a Scan's body not counted.
    """

    path: Path
    layout: Layout
    bytes: int
    nodes: int


def export(
    folder: str | Path,
    out: str | Path,
    layout: Layout = "expand",
    *,
    force: bool = False,
    check: Callable[[Path], None] | None = None,
) -> Exported:
    """Write a model folder as an ONNX file, whole or not at all, its values stored as in the folder.

    Args:
        folder: of a language model.
        out: the file.
        layout: see `dopant.exporting.model.make_model`.
        force: replace an old file.
        check: called with what was written before it gets its name; an error leaves no file, and an old one alone.

    Raises:
        InputError: the file is there already, or is a folder; an unknown layout; onnx is not installed.
        FileError: the folder cannot be read.
        KindError: it is of another module than a language model.
        OSError: the file cannot be written.
    """
    out = Path(out)
    if out.is_dir():
        raise InputError(f"{out} is a folder; name a file in it, such as {out / 'model.onnx'}")
    if out.exists() and not force:
        raise InputError(f"{out} exists already; choose another name, or replace it with force")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent} is no folder; make it first, or write to another place")
    if read_headers(folder).config.kind != LANGUAGE_MODEL:
        raise KindError(
            f"{folder} holds the weights of a module of your own, and what is exported is a language model; have "
            "torch export it, with matrices formed: "
            "torch.onnx.export(dopant.revert(dopant.from_pretrained(module, folder)), …, dynamo=False)"
        )
    loaded = load_model(folder)
    storages = {name: entry.storage for name, entry in loaded.config.weights.items()}
    proto = make_model(loaded.model, layout, storages)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        part.write_bytes(proto.SerializeToString())
        if check is not None:
            check(part)
        part.replace(out)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return Exported(out, layout, out.stat().st_size, len(proto.graph.node))
