"""`dopant export`: a model folder as an ONNX file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dopant.cli.guard import guarded
from dopant.cli.options import Json, Quiet
from dopant.cli.output import say, show, show_json

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLE = "dopant export runs/first/doped-kronecker --out model.onnx --layout expand --verify"


@guarded
def export(
    folder: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The ONNX file to write.")],
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            metavar="expand|scan",
            help="expand: small file, dense at load; scan: keeps the factors.",
        ),
    ] = "expand",
    verify: Annotated[
        bool, typer.Option("--verify", help="Run the file in ONNX Runtime and compare it with the model.")
    ] = False,
    corpus: Annotated[
        str | None,
        typer.Option(
            "--corpus", "-c", metavar="CORPUS", help="With --verify: compare the perplexity on this text too."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an old file.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a model folder as an ONNX file.

    Any runtime of ONNX takes it and needs nothing of dopant. Its inputs are tokens, h0 and c0, its outputs
    logits, h and c. Needs the extra: pip install 'dopant[onnx]'.
    """
    from dopant.errors import InputError
    from dopant.exporting.write import export as run

    if corpus is not None and not verify:
        raise InputError("--corpus is what --verify reads; give --verify too, or leave --corpus out")
    found: dict[str, Any] = {}
    check = _checker(folder, corpus, found) if verify else None
    written = run(folder, out, layout, force=force, check=check)  # type: ignore[arg-type]  # it says which there are
    say(f"{written.path}: {written.bytes:,} bytes, layout {written.layout}", quiet=quiet)
    if as_json:
        show_json({**asdict(written), "path": str(written.path), **({"verified": found} if verify else {})})
    elif verify:
        show(f"logits differ by {found['logits']:.1e} of the largest one")
        if corpus is not None:
            show(f"perplexity {found['perplexity_onnx']:,.4f}, that of the model {found['perplexity']:,.4f}")


def _checker(folder: Path, corpus: str | None, found: dict[str, Any]) -> Callable[[Path], None]:
    """What holds a file to the model and leaves its findings in `found`; all that it needs is there when this ends."""
    from dopant.data import read_corpus
    from dopant.exporting.extra import extra
    from dopant.exporting.verify import OnnxModel, check_perplexity, logits_difference
    from dopant.recipes.setting import encode, load_with_tokenizer
    from dopant.storage.folder import load_model

    extra("onnxruntime")
    texts = None if corpus is None else encode(read_corpus(corpus), load_with_tokenizer(folder)[1])

    def check(file: Path) -> None:
        model = load_model(folder).model
        onnx = OnnxModel(file, model.config)
        found["logits"] = logits_difference(model, onnx)
        if texts is not None:
            found["perplexity"] = texts.perplexity(model, "test")
            found["perplexity_onnx"] = texts.perplexity(onnx, "test")
            check_perplexity(found["perplexity"], found["perplexity_onnx"])

    return check
