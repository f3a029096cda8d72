"""`dopant compress`: a trained model made small."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dopant.cli.guard import guarded
from dopant.cli.options import (
    METHODS,
    CorpusOrModels,
    CountOrRecipes,
    Device,
    Force,
    Indices,
    Json,
    Out,
    Quiet,
    Resume,
    ScopeOrRecipes,
    SeedOrRecipes,
    Settings,
    TargetBytes,
    TargetOrRecipes,
    Threads,
    Values,
    overrides,
)
from dopant.cli.output import say
from dopant.cli.plans import say_plan
from dopant.cli.progress import watching
from dopant.cli.show_report import show_report

EXAMPLE = "dopant compress runs/first/dense --target 25x --out runs/small"
DISTILLED = 0.5  # the teacher's share of the loss


@guarded
def compress(
    context: typer.Context,
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="The folder of a trained dense model.", show_default=False)
    ],
    out: Out,
    corpus: CorpusOrModels = None,
    target: TargetOrRecipes = None,
    target_bytes: TargetBytes = None,
    count: CountOrRecipes = None,
    scope: ScopeOrRecipes = None,
    method: Annotated[
        str, typer.Option("--method", metavar="METHOD", help=f"One of: {METHODS}; or a recipe.")
    ] = "doped-kronecker",
    distill: Annotated[
        bool, typer.Option("--distill", help="Learn from the dense model's predictions too, not from the text alone.")
    ] = False,
    distill_weight: Annotated[
        float | None,
        typer.Option(
            "--distill-weight",
            metavar="W",
            min=0.0,
            max=1.0,
            help=f"Their share of the loss, 0 to 1. [default: {DISTILLED} with --distill]",
            show_default=False,
        ),
    ] = None,
    values: Values = None,
    indices: Indices = None,
    settings: Settings = None,
    seed: SeedOrRecipes = None,
    threads: Threads = None,
    device: Device = "cpu",
    force: Force = False,
    resume: Resume = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a trained model small, and recover.

    The structures are fitted to the trained weights, then trained on for as many epochs as the dense model was. The
    learning rate is held, the mean of the weights over the second half is kept, the largest non-zeros of all matrices
    stay, and dropout is half of the dense model's; a recipe's file or --set that says otherwise is followed.
    """
    from dopant.recipes.pipeline import compress as run
    from dopant.training.memory import keep_freed_memory

    keep_freed_memory()

    with watching(out.name, out, quiet=quiet):
        report = run(
            model,
            corpus,
            out=out,
            method=method,
            distill=distill_weight if distill_weight is not None else DISTILLED if distill else None,
            overrides=overrides(
                settings,
                target=target,
                target_bytes=target_bytes,
                count=count,
                scope=scope,
                seed=seed,
                values=values,
                indices=indices,
            ),
            threads=threads,
            device=device,
            force=force,
            resume=resume,
            announce=None if quiet else say_plan,
            command=context.obj or (),
        )
    show_report(report, as_json=as_json)
    say(f"wrote {out}", quiet=quiet)
