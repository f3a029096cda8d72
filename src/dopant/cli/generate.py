"""`dopant generate`: text from a model folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from dopant.cli.guard import guarded
from dopant.cli.options import Json, Precision, Quiet
from dopant.cli.output import say, show, show_json

EXAMPLE = 'dopant generate runs/first/doped-kronecker --prompt "return the" --tokens 40 --seed 0'


@guarded
def generate(
    folder: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder.", show_default=False)],
    prompt: Annotated[str, typer.Option("--prompt", "-p", metavar="TEXT", help="What to continue.")] = "",
    tokens: Annotated[int, typer.Option("--tokens", "-n", metavar="N", min=1, help="How many tokens to draw.")] = 40,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Equal seeds give equal texts.")] = 0,
    temperature: Annotated[
        float, typer.Option("--temperature", "-t", metavar="T", min=0.0, help="0 takes the likeliest token each time.")
    ] = 1.0,
    precision: Precision = "exact",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Continue a prompt with a model folder.

    Words that the model does not know become <unk>, which is said once.
    """
    from dopant.recipes.pipeline import generate as run

    found = run(folder, prompt, tokens, seed=seed, temperature=temperature, precision=cast(Any, precision))
    if found.unknown_words:
        named = ", ".join(found.unknown_words[:10]) + (" ..." if len(found.unknown_words) > 10 else "")
        say(f"not in the vocabulary, read as <unk>: {named}", quiet=quiet)
    if as_json:
        show_json(asdict(found))
    else:
        show(found.whole)
