"""`dopant compare`: the main job."""

from __future__ import annotations

from typing import Annotated

import typer

from dopant.cli.guard import guarded
from dopant.cli.options import (
    METHODS,
    Corpus,
    Count,
    Device,
    Force,
    Indices,
    Json,
    Out,
    Quiet,
    Resume,
    Scope,
    Seed,
    Settings,
    Target,
    TargetBytes,
    Values,
    overrides,
)
from dopant.cli.output import say
from dopant.cli.plans import say_plans
from dopant.cli.progress import progress
from dopant.cli.show_report import show_report

EXAMPLE = "dopant compare --corpus python-docs --model tiny --target 25x --out runs/first"


@guarded
def compare(
    context: typer.Context,
    out: Out,
    corpus: Corpus = "python-docs",
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", metavar="MODEL", help="tiny, small, medium, large, or a folder with a trained dense model."
        ),
    ] = "tiny",
    target: Target = None,
    target_bytes: TargetBytes = None,
    count: Count = "bytes",
    scope: Scope = "lstm",
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
    seed: Seed = 0,
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

    with progress(quiet=quiet) as listener:
        report = run(
            corpus,
            model,
            methods=None if methods is None else [name.strip() for name in methods.split(",") if name.strip()],
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
            announce=None if quiet else say_plans,
            listener=listener,
            command=context.obj or (),
        )
    show_report(report, as_json=as_json)
    say(f"wrote {out / 'report.html'}", quiet=quiet)
