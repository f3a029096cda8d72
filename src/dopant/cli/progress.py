"""How far the runs are: bars on a terminal, lines anywhere else. All of it goes to stderr."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dopant.cli.output import say

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from dopant.recipes.side_by_side import Listener, Standing

_POLL_SECONDS = 0.5


@contextmanager
def progress(*, quiet: bool) -> Iterator[Listener]:
    """Where a comparison tells how its runs stand."""
    if quiet:
        yield lambda standings: None
    elif sys.stderr.isatty():
        with _bars() as bars:
            yield Bars(bars)
    else:
        yield Lines()


@contextmanager
def watching(name: str, folder: Path, *, quiet: bool) -> Iterator[None]:
    """Show how far the run is that writes the model `folder`, by its log."""
    from dopant.recipes.places import Places
    from dopant.recipes.side_by_side import Standing, last_standing, stamp

    log = Places.of(folder).log
    old = stamp(log)
    done = threading.Event()
    standing = Standing("training")

    def watch(listener: Listener) -> None:
        nonlocal standing
        while not done.wait(_POLL_SECONDS):
            standing = last_standing(log, standing, old)
            listener({name: standing})

    with progress(quiet=quiet) as listener:
        watcher = threading.Thread(target=watch, args=(listener,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
        listener({name: replace(last_standing(log, standing), phase="done")})


class Bars:
    """A bar for each run."""

    def __init__(self, bars: Progress) -> None:
        self.bars = bars
        self.tasks: dict[str, TaskID] = {}

    def __call__(self, standings: Mapping[str, Standing]) -> None:
        """Show how the runs stand now."""
        for name, standing in standings.items():
            if name not in self.tasks:
                self.tasks[name] = self.bars.add_task(name, total=1.0, start=False, state="")
            task = self.tasks[name]
            if standing.phase in ("training", "done") and not self.bars.tasks[task].started:
                self.bars.start_task(task)
            self.bars.update(task, completed=share(standing), state=state(standing))
            if standing.phase in ("done", "failed"):
                self.bars.stop_task(task)


class Lines:
    """A line whenever a run starts, ends an epoch, or ends."""

    def __init__(self) -> None:
        self.before: dict[str, tuple[str, float | None]] = {}

    def __call__(self, standings: Mapping[str, Standing]) -> None:
        """Say what has changed since the last time."""
        for name, standing in standings.items():
            news = (standing.phase, standing.perplexity)
            if standing.phase != "waiting" and self.before.get(name) != news:
                self.before[name] = news
                say(f"{name}: {state(standing)}")


def share(standing: Standing) -> float:
    """From 0 to 1."""
    if standing.phase == "done":
        return 1.0
    return min(standing.step / standing.steps, 1.0) if standing.steps else 0.0


def state(standing: Standing) -> str:
    """In words."""
    steps = f" {standing.step:,} of {standing.steps:,} steps" if standing.steps and standing.phase == "training" else ""
    valid = "" if standing.perplexity is None else f", validation perplexity {standing.perplexity:,.2f}"
    return f"{standing.phase}{steps}{valid}"


def _bars() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[state]}", style="dim", markup=False),
        console=Console(stderr=True),
    )
