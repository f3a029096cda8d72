"""Several runs at once, each in a process of its own, with their progress read from their logs."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

from dopant.data import Corpus
from dopant.errors import TRACEBACK, DopantError, InputError, TrainingError, as_sentence
from dopant.recipes.describing import report_trained
from dopant.recipes.places import Places
from dopant.recipes.run import run_recipe
from dopant.recipes.schema import Recipe
from dopant.reporting.records import find_code
from dopant.reporting.report import Report
from dopant.training.memory import keep_freed_memory

_POLL_SECONDS = 0.5
_TAIL_BYTES = 4096
_UNGUARDED = 'a script that calls for it needs `if __name__ == "__main__":` before the call'


@dataclass(frozen=True)
class Job:
    """One run of several.

    Args:
        name: tells it from the others.
        recipe, out, dense: as `run_recipe` takes them.
        after: the name of a job that must be done first, because its model is needed.
        trained: the model is in `out` already and is only to be evaluated.
        options: further arguments of `run_recipe` for this job alone.
    """

    name: str
    recipe: Recipe
    out: Path
    dense: Path | None = None
    after: str | None = None
    trained: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Standing:
    """How far a run is: `waiting`, `training`, `done` or `failed`, steps, and the last validation perplexity."""

    phase: str
    step: int = 0
    steps: int = 0
    perplexity: float | None = None


Listener = Callable[[Mapping[str, Standing]], None]


@dataclass
class _Running:
    process: Any
    answer: Connection
    job: Job
    old_log: tuple[int, int, int] | None = None
    log_end: Standing = field(default_factory=lambda: Standing("training"))


def run_jobs(
    jobs: list[Job],
    corpus: Corpus,
    *,
    workers: int,
    threads: int = 1,
    options: Mapping[str, Any] | None = None,
    listener: Listener | None = None,
    on_end: Callable[[str, Report | DopantError], None] | None = None,
) -> dict[str, Report | DopantError]:
    """Run all jobs, at most `workers` at a time; a job that fails does not stop the others.

    Args:
        jobs: in the order in which they are started.
        corpus: the text of all.
        workers: processes at a time.
        threads: threads that torch uses in each.
        options: further arguments of `run_recipe`.
        listener: told twice a second how all of them stand.
        on_end: told of each job as it ends, while others still run; what it raises ends them all.

    Returns:
        by job name the report, or the error that ended it.

    Raises:
        InputError: a job waits for one that is not there, or for itself; no workers, or no threads.
        TrainingError: no process can begin, as in a script that has no `if __name__ == "__main__":`.
    """
    for what, number in (("runs at a time", workers), ("threads of each run", threads)):
        if number < 1:
            raise InputError(f"{what}: one at least is needed, got {number}")
    if stuck := _waiting_for_ever(jobs):
        others = ", ".join(job.name for job in jobs if job not in stuck)
        raise InputError(f"{stuck[0].name} waits for {stuck[0].after!r}, which is not among {others}")
    context = _context()
    options = {"code": find_code(), **(options or {})}  # of all: later ones run what is loaded now
    waiting = list(jobs)
    told: set[str] = set()
    running: dict[str, _Running] = {}
    ended: dict[str, Report | DopantError] = {}
    try:
        while waiting or running:
            for job in [job for job in waiting if job.after is None or job.after in ended]:
                if len(running) >= workers:
                    break
                waiting.remove(job)
                if job.after is not None and not isinstance(ended[job.after], Report):
                    ended[job.name] = TrainingError(f"{job.name} needs the model of {job.after}, which failed")
                    continue
                receiver, sender = context.Pipe(duplex=False)
                arguments = (sender, job, corpus, threads, {**options, **job.options})
                old_log = stamp(Places(job.out).log)
                process = context.Process(target=_work, args=arguments, daemon=True)
                try:
                    process.start()
                except BrokenPipeError:  # the server has ended: it imports the script, which started processes there
                    raise TrainingError(f"the process of {job.name} could not begin; {_UNGUARDED}") from None
                sender.close()
                running[job.name] = _Running(process, receiver, job, old_log)
            wait_for([r.answer for r in running.values()], timeout=_POLL_SECONDS)
            for name in [name for name, r in running.items() if r.answer.poll() or not r.process.is_alive()]:
                ended[name] = _answer(running.pop(name))
            for name in [name for name in ended if name not in told]:
                told.add(name)
                if on_end is not None:
                    on_end(name, ended[name])
            if listener is not None:
                listener(_standings(jobs, running, ended))
    finally:
        for remaining in running.values():
            remaining.process.terminate()
    return ended


def _waiting_for_ever(jobs: Sequence[Job]) -> list[Job]:
    """Those that cannot begin, whatever others end."""
    waiting: list[Job] = list(jobs)
    ended: set[str | None] = {None}
    while ready := [job for job in waiting if job.after in ended]:
        ended |= {job.name for job in ready}
        waiting = [job for job in waiting if job not in ready]
    return waiting


def _context() -> Any:
    """Where there is one, a server that has torch imported already and forks quickly."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _work(answer: Connection, job: Job, corpus: Corpus, threads: int, options: dict[str, Any]) -> None:
    import signal

    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers, with one message for all
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    keep_freed_memory()
    try:
        if job.trained:
            answer.send(report_trained(job.recipe, corpus, job.out, command=options.get("command", ())))
        else:
            answer.send(run_recipe(job.recipe, corpus, job.out, dense=job.dense, **options))
    except DopantError as error:
        answer.send((type(error), str(error)))
    except Exception as error:  # of a worker nobody else sees it
        if os.environ.get(TRACEBACK) == "1":
            traceback.print_exc()
        answer.send((TrainingError, f"{job.name}: {as_sentence(error)}"))


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers; they must not go on unseen, and in the way of a resume."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _answer(running: _Running) -> Report | DopantError:
    try:
        answer = running.answer.recv()
    except EOFError:
        running.process.join()
        code = running.process.exitcode
        why = "was it killed for memory? resume with fewer jobs" if code < 0 else f"{_UNGUARDED}; else resume"
        return TrainingError(f"the process of {running.job.name} ended with code {code} and no word; {why}")
    running.process.join()
    if isinstance(answer, Report):
        return answer
    kind, text = answer
    error: DopantError = kind(text)
    return error


def _standings(
    jobs: list[Job], running: Mapping[str, _Running], ended: Mapping[str, Report | DopantError]
) -> dict[str, Standing]:
    found: dict[str, Standing] = {}
    for job in jobs:
        if job.name in ended:
            report = ended[job.name]
            done = isinstance(report, Report)
            found[job.name] = Standing(
                "done" if done else "failed",
                perplexity=report.rows[0].perplexity_valid if isinstance(report, Report) else None,
            )
        elif job.name in running:
            run = running[job.name]
            run.log_end = last_standing(Places(job.out).log, run.log_end, run.old_log)
            found[job.name] = run.log_end
        else:
            found[job.name] = Standing("waiting")
    return found


def stamp(log: Path) -> tuple[int, int, int] | None:
    """Tells a log from itself when it was written to, and from another in its place; None where there is none."""
    try:
        found = log.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def last_standing(log: Path, before: Standing, old: tuple[int, int, int] | None = None) -> Standing:
    """How far the run that writes `log` is, from the end of the log; `before` where it tells nothing new.

    Args:
        old: the stamp of the log that was there when the run began, which may be that of another run.
    """
    if stamp(log) == old:
        return before
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return before
    step, steps, perplexity = before.step, before.steps, None
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:  # the first line of the tail is cut
            continue
        if entry["event"] == "step":
            step, steps = entry["step"], entry["steps"]
        elif entry["event"] == "epoch":
            step, perplexity = entry["step"], entry["valid_perplexity"]
    if perplexity is None and step >= before.step:  # else the run was begun anew, and what it had is gone
        perplexity = before.perplexity
    return Standing("training", step, steps, perplexity)
