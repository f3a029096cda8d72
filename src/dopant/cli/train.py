"""`dopant train`: one recipe, one model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from dopant.cli.guard import guarded
from dopant.cli.options import (
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

EXAMPLE = "dopant train doped-kronecker --corpus python-docs --out runs/mine --set model=tiny"


@guarded
def train(
    context: typer.Context,
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a shipped recipe.", show_default=False)
    ],
    out: Out,
    corpus: Annotated[
        str | None,
        typer.Option(
            "--corpus",
            "-c",
            metavar="CORPUS",
            help="python-docs, a folder with train, valid and test text, or one text file. [default: the recipe's]",
            show_default=False,
        ),
    ] = None,
    dense: Annotated[
        Path | None,
        typer.Option("--dense", metavar="MODEL", help="A trained dense model, for recipes that start from one."),
    ] = None,
    target: TargetOrRecipes = None,
    target_bytes: TargetBytes = None,
    count: CountOrRecipes = None,
    scope: ScopeOrRecipes = None,
    values: Values = None,
    indices: Indices = None,
    settings: Settings = None,
    seed: SeedOrRecipes = None,
    threads: Threads = None,
    device: Device = "cpu",
    accelerate: Annotated[
        bool,
        typer.Option(
            "--accelerate",
            help="Share the batch among processes: torchrun --nproc-per-node 2 -m dopant train … --accelerate.",
        ),
    ] = False,
    force: Force = False,
    resume: Resume = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train what a recipe describes.

    DIR becomes the model folder; DIR.run beside it keeps the log, the plan and the report. An interrupted run goes on
    with --resume.
    """
    from dopant.recipes.pipeline import train as run
    from dopant.training.memory import keep_freed_memory

    keep_freed_memory()

    speaks = not accelerate or os.environ.get("RANK", "0") == "0"  # one of all processes
    quiet = quiet or not speaks
    with watching(out.name, out, quiet=quiet):
        report = run(
            recipe,
            corpus,
            out=out,
            dense=dense,
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
            accelerate=accelerate,
            force=force,
            resume=resume,
            announce=None if quiet else say_plan,
            command=context.obj or (),
        )
    if speaks:
        show_report(report, as_json=as_json)
    say(f"wrote {out}", quiet=quiet)
