"""`dopant results`: from experiments to records to tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dopant.cli.guard import guarded
from dopant.cli.options import Json, Quiet, words
from dopant.cli.output import say, show, show_json
from dopant.cli.progress import progress
from dopant.cli.show_report import show_report
from dopant.errors import InputError

if TYPE_CHECKING:
    from dopant.recipes.states import State

EXAMPLE = "dopant results experiments/ptb-small --rows pruning,lmf --dry-run"


@guarded
def results(
    experiment: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder with an experiment.yaml and recipes.", show_default=False)
    ],
    corpus: Annotated[
        str | None,
        typer.Option("--corpus", "-c", metavar="CORPUS", help="What to read. [default: what the recipes name]"),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option("--rows", metavar="A,B,C", help="Make these alone; patterns such as 'pruning*' too."),
    ] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", metavar="0,1,2", help="Make these alone.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder of the records. [default: results/NAME]")
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option("--runs", metavar="DIR", help="Folder of models and checkpoints. [default: runs/NAME]"),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", metavar="N", min=1, help="Runs at a time. [default: one a core, 4 on a GPU]"),
    ] = None,
    threads: Annotated[
        int, typer.Option("--threads", metavar="N", min=1, help="Threads of each run; equal bits need equal threads.")
    ] = 1,
    device: Annotated[
        str,
        typer.Option(
            "--device", metavar="auto|cpu|cuda[:N]", help="Where to train and evaluate; auto: on a GPU if there is one."
        ),
    ] = "auto",
    replace: Annotated[
        bool, typer.Option("--replace", help="Make again also what other code has made, or no recipe is known of.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show how every run stands; change nothing.")] = False,
    tables_only: Annotated[bool, typer.Option("--tables-only", help="Run nothing; join what is there.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make what is missing or out of date of an experiment.

    Every run leaves a record ROW-seedK.json as it ends; at the end, all records become one table, and those of a sweep
    a picture. What is interrupted goes on when the same command is given again. A dense model that is needed, because
    rows start from it or learn from it, is trained first where it is not there. A row that differs from another in
    its storage alone takes that row's weights, where they are there, and trains nothing.
    """
    from dopant.recipes.pipeline import results as run

    def announce(states: Sequence[State]) -> None:
        if dry_run and not as_json:
            show("\n".join(lines(states)))
        elif not dry_run:
            # a row that is not in the table is told of in any case
            told = [s for s in states if s.make or s.train or (not s.counts and s.state != "missing")]
            for state, line in zip(told, lines(told), strict=True):
                say(line, quiet=quiet and (state.make or state.counts))
            say(counted(states), quiet=quiet)

    try:
        with progress(quiet=quiet or dry_run) as listener:
            found = run(
                experiment,
                corpus,
                rows=None if rows is None else words(rows),
                seeds=None if seeds is None else _numbers(seeds),
                out=out,
                runs=runs,
                jobs=jobs,
                threads=threads,
                device=device,
                replace=replace,
                dry_run=dry_run,
                tables_only=tables_only,
                announce=announce,
                listener=lambda standings: listener({n: s for n, s in standings.items() if s.phase != "waiting"}),
            )
    except KeyboardInterrupt:
        say("what is done is kept; the same command goes on with the rest")
        raise
    if as_json:
        show_json(found.to_json())
    elif dry_run:
        say(counted(found.states), quiet=quiet)
    elif found.report is None:
        say("no record counts yet, so there is no table", quiet=quiet)
    else:
        show_report(found.report, as_json=False)


def lines(states: Sequence[State]) -> list[str]:
    """A line a run: its name, how it stands, why, and whether it is made now."""
    name, stands = (max((len(f(s)) for s in states), default=0) for f in (lambda s: s.run, word))
    return [f"{state.run:{name}}  {word(state):{stands}}  {state.why}".rstrip() for state in states]


def word(state: State) -> str:
    """How a run stands, and what becomes of it now."""
    if state.train:
        return f"{state.state}, model to be trained"
    if not state.make:
        return state.state
    return "missing, to be made" if state.state == "missing" else f"{state.state}, to be replaced"


def counted(states: Sequence[State]) -> str:
    """How many there are of each, and how many are made now."""
    kinds = list(dict.fromkeys(state.state for state in states))
    told = ", ".join(f"{sum(state.state == kind for state in states)} {kind}" for kind in kinds)
    models = sum(state.train for state in states)
    for_them = f", for which {models} dense {'model is' if models == 1 else 'models are'} trained" if models else ""
    return f"{len(states)} runs: {told}; {sum(state.make for state in states)} to be made now{for_them}"


def _numbers(text: str) -> list[int]:
    numbers = words(text)
    for number in numbers:
        if not (number.isascii() and number.isdecimal()):
            raise InputError(f"--seeds {text}: {number!r} is no seed; write whole numbers such as 0,1,2")
    return [int(number) for number in numbers]
