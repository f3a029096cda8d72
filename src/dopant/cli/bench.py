"""`dopant bench`: how fast a model runs, beside the best that others offer for the dense one."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dopant.cli.guard import guarded
from dopant.cli.options import (
    CountOrRecipes,
    Force,
    Json,
    Quiet,
    ScopeOrRecipes,
    Seed,
    TargetOrRecipes,
    overrides,
    words,
)
from dopant.cli.output import say, show_json, stdout

if TYPE_CHECKING:
    from dopant.benchmarking.run import Listener
    from dopant.models import LanguageModel
    from dopant.recipes.overrides import Override

EXAMPLE = "dopant bench --model medium --target 25x --count parameters --part lstm --batch 1,8,32 --out runs/bench"

METHOD, VOCABULARY = "doped-kronecker", 10_000  # of an untrained model
ENGINES = "dopant,torch,torch-int8,onnxruntime,onnxruntime-int8"
"""For --help, which cannot wait for torch; a test holds it against `dopant.benchmarking.engines.NAMES`."""


@guarded
def bench(
    context: typer.Context,
    folder: Annotated[
        Path | None, typer.Argument(metavar="[MODEL]", help="A model folder; or give --model.", show_default=False)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="SIZE", help="An untrained model: tiny, small, medium, large."),
    ] = None,
    target: TargetOrRecipes = None,
    count: CountOrRecipes = None,
    method: Annotated[
        str | None,
        typer.Option("--method", metavar="METHOD", help=f"How --model is made small. [default: {METHOD}]"),
    ] = None,
    scope: ScopeOrRecipes = None,
    vocabulary: Annotated[
        int | None, typer.Option("--vocabulary", metavar="N", min=1, help=f"Words of --model. [default: {VOCABULARY}]")
    ] = None,
    engines: Annotated[
        str, typer.Option("--engines", metavar="NAMES", help="Who runs it, joined by commas.")
    ] = ENGINES,
    part: Annotated[
        str, typer.Option("--part", metavar="lstm,token", help="The LSTM alone, or whole tokens.")
    ] = "lstm,token",
    case: Annotated[
        str, typer.Option("--case", metavar="step,sequence", help="One time step, or 35 in one call.")
    ] = "step,sequence",
    batch: Annotated[str, typer.Option("--batch", metavar="N,...", help="Sequences at once.")] = "1,8,32",
    threads: Annotated[str, typer.Option("--threads", metavar="N,...|all", help="Threads of every engine.")] = "1,all",
    caches: Annotated[
        str, typer.Option("--caches", metavar="warm,flushed", help="As the last call left them, or overwritten.")
    ] = "warm,flushed",
    seconds: Annotated[float, typer.Option("--seconds", metavar="S", help="For a case, all engines together.")] = 4.0,
    memory: Annotated[bool, typer.Option("--memory/--no-memory", help="Measure what each engine holds.")] = True,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder for bench.json and bench.html.")
    ] = None,
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure how fast a model runs.

    Our runtime, torch and ONNX Runtime take turns in one process: times in µs, median and spread, with warm caches and
    flushed ones. The opponents run the same model with dense weights, in float32 and in 8 bits.
    """
    from dopant.benchmarking.page import write_page
    from dopant.benchmarking.run import Settings
    from dopant.benchmarking.run import bench as run
    from dopant.benchmarking.table import make_table
    from dopant.errors import InputError
    from dopant.reporting.records import write_kept

    settings = Settings(
        engines=tuple(words(engines)),
        parts=tuple(words(part)),  # type: ignore[arg-type]  # Settings says which there are
        cases=tuple(words(case)),  # type: ignore[arg-type]
        batches=_numbers("--batch", batch),
        threads=_threads(threads),
        caches=tuple(words(caches)),  # type: ignore[arg-type]
        seconds=seconds,
        memory=memory,
    )
    if out is not None and out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, and a folder is needed; choose another place")
    if out is not None and not force and (out / "bench.json").exists():
        raise InputError(f"{out} holds a benchmark already; choose another folder, or replace it with --force")
    if (folder is None) == (model is None):
        raise InputError("give a model folder, or an untrained model with --model, and not both")
    if folder is not None:
        made = {"--target": target, "--count": count, "--method": method, "--scope": scope, "--vocabulary": vocabulary}
        if given := [option for option, value in made.items() if value is not None]:
            raise InputError(
                f"{', '.join(given)}: for an untrained model (--model) alone; that of a folder is what it is"
            )
        from dopant.storage.folder import load_model

        subject, name = load_model(folder).model, folder.name or str(folder)
    else:
        changes = overrides([], target=target, count=count, scope=scope)
        subject, name = _untrained(str(model), method or METHOD, changes, vocabulary or VOCABULARY, seed)
    with _progress(quiet=quiet) as listener:
        found = run(
            subject, settings, name=name, folder=folder, seed=seed, command=context.obj or (), listener=listener
        )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_kept(out / "bench.json", found)
        say(f"{write_page(found, out / 'bench.html')}", quiet=quiet)
    if as_json:
        show_json(found.model_dump(mode="json"))
    else:
        stdout().print(make_table(found))


def _untrained(
    model: str, method: str, changes: list[str | Override], vocabulary: int, seed: int
) -> tuple[LanguageModel, str]:
    """The model of a plan, its weights random, as its file would hold them; and what to call it."""
    import torch

    from dopant.errors import InputError
    from dopant.models import SIZES
    from dopant.models import LanguageModel as Model
    from dopant.plan import apply_plan
    from dopant.recipes.planning import plan_recipe
    from dopant.recipes.read import read_recipe
    from dopant.storage import load_model, save

    if model not in SIZES:
        raise InputError(f"model {model!r} is not known; choose {', '.join(SIZES)}, or give a model folder")
    recipe = read_recipe(method, [f"model={model}", *changes])
    plan = plan_recipe(recipe, vocabulary)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = Model(recipe.config(vocabulary)).eval()
    apply_plan(made, plan, "new", torch.Generator().manual_seed(seed))
    with tempfile.TemporaryDirectory() as place:  # what would run is what a file holds, rounded as the plan says
        made = load_model(save(Path(place) / "model", made, storage=plan.storages())).model
    return made, f"{model}, untrained, {method} at {recipe.plan_target()}"


def _numbers(option: str, text: str) -> tuple[int, ...]:
    from dopant.errors import InputError

    numbers = []
    for word in words(text):
        if not re.fullmatch(r"-?[0-9]{1,6}", word):
            raise InputError(f"{option} takes whole numbers joined by commas, such as 1,8,32; got {word[:40]!r}")
        numbers.append(int(word))
    return tuple(dict.fromkeys(numbers))


def _threads(text: str) -> tuple[int, ...]:
    from dopant.reporting.records import cores

    return _numbers("--threads", ",".join(str(cores()) if word == "all" else word for word in words(text)))


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Listener]:
    """A bar on a terminal, lines anywhere else; on stderr."""
    if quiet:
        yield lambda done, total, text: None
    elif not sys.stderr.isatty():
        said: set[str] = set()

        def line(done: int, total: int, text: str) -> None:
            if text not in said:
                said.add(text)
                say(f"[{done}/{total}] {text}")

        yield line
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("", total=None)
            yield lambda done, total, text: bar.update(task, completed=done, total=total, description=text)
