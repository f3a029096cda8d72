"""`dopant evaluate`: perplexity from the file alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from dopant.cli.guard import guarded
from dopant.cli.options import CorpusOrModels, Json, Precision, Threads
from dopant.cli.output import show, show_json

EXAMPLE = "dopant evaluate runs/first/doped-kronecker --corpus python-docs --split test"


@guarded
def evaluate(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder.", show_default=False)],
    corpus: CorpusOrModels = None,
    split: Annotated[str, typer.Option("--split", metavar="train|valid|test", help="What to read.")] = "test",
    precision: Precision = "exact",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure the perplexity of a model folder.

    It is computed from the files alone, and printed with all it depends on.
    """
    import torch

    from dopant.native import set_threads
    from dopant.recipes.pipeline import evaluate as run

    if threads is not None:
        torch.set_num_threads(threads)
        set_threads(threads)
    found = run(folder, corpus, split, precision=cast(Any, precision), command=context.obj or ())
    if as_json:
        show_json(found.to_dict())
        return
    show(f"perplexity {found.perplexity:,.2f} of the {found.split} split")
    show("")
    lines = _flat(found.protocol)
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        show(f"{name:{width}}  {value}")


def _flat(data: dict[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Nested names joined by blanks, values as text."""
    lines = []
    for key, value in data.items():
        name = f"{before}{key.replace('_', ' ')}"
        if isinstance(value, dict):
            lines += _flat(value, f"{name} ")
        else:
            text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
            lines.append((name, {"True": "yes", "False": "no"}.get(text, text)))
    return lines
