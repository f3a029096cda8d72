"""`dopant compare`: the main job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

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
    Values,
    overrides,
    words,
)
from dopant.cli.output import say
from dopant.cli.plans import say_plans
from dopant.cli.progress import progress
from dopant.cli.show_report import show_report
from dopant.errors import TrainingError

if TYPE_CHECKING:
    from dopant.errors import PlanError
    from dopant.plan import Plan

EXAMPLE = "dopant compare --corpus python-docs --model tiny --target 25x --out runs/first"


@guarded
def compare(
    context: typer.Context,
    out: Out,
    corpus: CorpusOrModels = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="tiny, small, medium, large, or a folder with a trained dense model. "
            "[default: the recipes' own, else tiny]",
            show_default=False,
        ),
    ] = None,
    target: TargetOrRecipes = None,
    target_bytes: TargetBytes = None,
    count: CountOrRecipes = None,
    scope: ScopeOrRecipes = None,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            metavar="A,B,C",
            help=f"Some of: {METHODS}; or recipes. [default: all methods]",
            show_default=False,
        ),
    ] = None,
    values: Values = None,
    indices: Indices = None,
    settings: Settings = None,
    seed: SeedOrRecipes = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", metavar="N", min=1, help="Runs at a time. [default: one a core]"),
    ] = None,
    threads: Annotated[
        int, typer.Option("--threads", metavar="N", min=1, help="Threads of each run; equal bits need equal threads.")
    ] = 1,
    device: Device = "cpu",
    force: Force = False,
    resume: Resume = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model dense and small by every method.

    Every method gets the same text, schedule and budget. DIR then holds report.html, report.json and one model folder
    for each method.
    """
    from dopant.recipes.pipeline import compare as run

    plans: dict[str, object] = {}

    def announce(found: Mapping[str, Plan | PlanError]) -> None:
        plans.update(found)
        if not quiet:
            say_plans(found)

    with progress(quiet=quiet) as listener:
        report = run(
            corpus,
            model,
            methods=None if methods is None else words(methods),
            out=out,
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
            jobs=jobs,
            threads=threads,
            device=device,
            force=force,
            resume=resume,
            announce=announce,
            listener=listener,
            command=context.obj or (),
        )
    show_report(report, as_json=as_json)
    say(f"wrote {out / 'report.html'}", quiet=quiet)
    failed = [row.folder for row in report.rows if row.note and not isinstance(plans.get(row.folder), Exception)]
    if failed:  # not so what no plan could be made for, which was told and was not asked for by name
        raise TrainingError(f"{', '.join(failed)} failed, as the table's notes say; --resume tries again")
