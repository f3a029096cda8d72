"""Options that several commands share, with one name and one meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dopant.recipes.overrides import Override, flags

METHODS = "dense, pruning, lmf, hmd, hmf, kronecker, hybrid-kronecker, doped-kronecker, doped-lmf, doped-hmd"
"""For --help, which cannot wait for torch; a test holds it against `dopant.plan.METHODS`."""

_TEXTS = "python-docs (built in), a folder with train, valid and test text, or one text file."
CorpusOrModels = Annotated[
    str | None,
    typer.Option(
        "--corpus",
        "-c",
        metavar="CORPUS",
        help=f"{_TEXTS} [default: the trained model's, else python-docs]",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write to.")]
_HOW_SMALL = "How small: a factor such as 25x, or bytes such as 1.2MB."
TargetOrRecipes = Annotated[
    str | None, typer.Option("--target", metavar="25x", help=f"{_HOW_SMALL} [default: the recipe's, else 25x]")
]
TargetBytes = Annotated[
    str | None, typer.Option("--target-bytes", metavar="1.2MB", help="How small, in bytes; instead of --target.")
]
_COUNTED, _COUNTS = "What the factor counts.", "parameters|bytes"
_SCOPED, _SCOPES = "Of which structured weights; model: all of them, no biases.", "lstm|model|re:PATTERN"
_RECIPES = "[default: the recipe's]"
_ELSE = "[default: the recipe's, else {}]"
CountOrRecipes = Annotated[
    str | None, typer.Option("--count", metavar=_COUNTS, help=f"{_COUNTED} {_ELSE.format('bytes')}")
]
ScopeOrRecipes = Annotated[
    str | None, typer.Option("--scope", metavar=_SCOPES, help=f"{_SCOPED} {_ELSE.format('lstm')}")
]
VALUES, INDICES = "float32|float16|int8|huffman|int4", "gaps|rice|huffman"
Values = Annotated[str | None, typer.Option("--values", metavar=VALUES, help=f"How the file keeps numbers. {_RECIPES}")]
Indices = Annotated[
    str | None, typer.Option("--indices", metavar=INDICES, help=f"How the file keeps positions. {_RECIPES}")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set any key of the recipe: training.epochs=3. May be repeated."),
]
_SEEDED = "Seed of every random number."
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help=_SEEDED)]
SeedOrRecipes = Annotated[int | None, typer.Option("--seed", metavar="N", min=0, help=f"{_SEEDED} {_ELSE.format(0)}")]
Threads = Annotated[
    int | None,
    typer.Option("--threads", metavar="N", min=1, help="Threads that compute; equal bits need equal threads."),
]
Precision = Annotated[
    str,
    typer.Option("--precision", metavar="exact|fast", help="As accurate as float32, or faster in 8 bits."),
]
Device = Annotated[
    str, typer.Option("--device", metavar="cpu|cuda", help="Where to train, and to evaluate what was trained.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is in the output folder.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what is in the output folder.")]
Json = Annotated[bool, typer.Option("--json", help="Data as JSON on stdout; messages stay on stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no messages but errors.")]


def overrides(settings: list[str] | None, **given: str | int | None) -> list[str | Override]:
    """The flags as settings of a recipe, where given; `--set` comes last and wins."""
    return [*flags(**given), *(settings or [])]


def words(text: str) -> list[str]:
    """The parts of a list joined by commas, each once."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
