"""From experiments to records to tables: what is missing or out of date is made, and nothing else is touched."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dopant.data import Corpus, read_corpus
from dopant.errors import DopantError, InputError, PlanError, ResumeError, TrainingError
from dopant.recipes.experiments import Experiment, Trial, read_experiment
from dopant.recipes.making import is_there, is_worked_on, needed_by, to_be_made
from dopant.recipes.places import Places
from dopant.recipes.planning import plan_recipes, read_vocabularies
from dopant.recipes.row_label import Usual, label
from dopant.recipes.run import check_device
from dopant.recipes.side_by_side import Job, Listener, run_jobs
from dopant.recipes.states import State, kept_settings, record_file, state_of
from dopant.reporting.drawing import WIDE
from dopant.reporting.join import check_alike, join_seeds, told_apart
from dopant.reporting.plots import loss_against_factor
from dopant.reporting.records import cores, find_code
from dopant.reporting.report import ExperimentRun, Report, read_report, write_report
from dopant.reporting.svg import standalone
from dopant.reporting.writing import write_text

JOBS_ON_A_GPU = 4  # an LSTM's step is many small kernels: one run leaves most of a GPU idle


@dataclass(frozen=True)
class Results:
    """What there is after `results`.

    Args:
        states: of every run, as it stood before.
        report: the table; None where no record counts.
        factors: every point of the sweep; None without any.
    """

    states: tuple[State, ...]
    report: Report | None
    factors: Report | None

    def to_json(self) -> dict[str, Any]:
        """As `dopant results --json` prints it."""
        report = None if self.report is None else self.report.model_dump(mode="json")
        return {"runs": [asdict(state) for state in self.states], "report": report}


def results(
    experiment: str | Path,
    corpus: str | Path | Corpus | None = None,
    *,
    rows: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    out: str | Path | None = None,
    runs: str | Path | None = None,
    jobs: int | None = None,
    threads: int = 1,
    device: str = "auto",
    replace: bool = False,
    dry_run: bool = False,
    tables_only: bool = False,
    announce: Callable[[Sequence[State]], None] | None = None,
    listener: Listener | None = None,
) -> Results:
    """Make the records of an experiment that are missing or out of date, and its tables from all of them.

    Each run is written to `<out>/<row>-seed<k>.json` as it ends, so that whatever happens to the others it is kept; an
    interrupted run goes on from its checkpoint in `<runs>` when this is called again. Where its recipe has changed
    since, its checkpoint is of no use and is thrown away; `why` of its state says so before anything is done.

    What starts from the dense row or learns from it takes that row's model of the same seed from `<runs>`. Where it is
    not there, it is trained first; a record of the dense row that is there already stays as it is.

    What differs from another row in its storage alone takes that row's weights, if that is made now or its model is
    there, and trains nothing.

    Each run is a process of its own that imports the script again: a script calls this below
    `if __name__ == "__main__":`.

    Args:
        experiment: a folder with an `experiment.yaml`.
        corpus: what to read; None for what the recipes name.
        rows: names of rows, or patterns such as "pruning*"; None for all. Tables have all rows in any case.
        seeds: None for all.
        out: folder of the records; None for `results/<name>`.
        runs: folder of models and checkpoints; None for `runs/<name>`.
        jobs: runs at a time; None for one a core, on a GPU at most four.
        threads: threads of each run.
        device: cpu, cuda, cuda:1 for one of several, or auto: cuda where there is one.
        replace: make those again, too, whose records other code has made: another commit, or one that did not note
            its recipe. Without it such a record is only replaced if its recipe or text has changed since.
        dry_run: look, and change nothing.
        tables_only: run nothing; make the tables from the records that are there.
        announce: told how all runs stand before anything is done.
        listener: told twice a second how those stand that are made.

    Raises:
        InputError: no such experiment, row, seed, text or device, or something is in the way.
        RecipeError: mistakes in the experiment or its recipes.
        PlanError: a target that cannot be met.
        TrainingError: some runs failed; the records of all others and the tables are written.
    """
    found = read_experiment(experiment)
    chosen = {trial.name for trial in found.choose(rows, seeds) if not tables_only}
    records, folder = Path(out or Path("results") / found.name), Path(runs or Path("runs") / found.name)
    for place in (records, folder):
        if place.exists() and not place.is_dir():
            raise InputError(f"{place} is a file, and a folder is needed; choose another place")
    device = _device(device)
    text = _text(found, corpus)
    states = to_be_made(found, records, folder, text, chosen=chosen, replace=replace, code=find_code()[0])
    told = tuple(states.values())
    if announce is not None:
        announce(told)
    wanted = [trial for trial in found.trials if is_worked_on(states[trial.name])]
    if dry_run or not wanted:
        return Results(told, *_tables(found, records, text, write=not dry_run))
    if isinstance(text, DopantError):
        raise text
    _check_plans(wanted, text)
    shown = [_shown(experiment), *_flags(corpus, device, threads)]
    # to be told after hours of training would be late
    _read_alike([t for t in found.trials if states[t.name].counts and not states[t.name].make], records)
    work = []
    for trial in wanted:
        _check_free(trial, states[trial.name])
        work.append(_job(trial, needed_by(trial, found, states[trial.name]), wanted, folder, shown, states[trial.name]))
    _check_records([record_file(records, trial) for trial in wanted if states[trial.name].make], records)
    by_name = {trial.name: trial for trial in wanted}
    failed: dict[str, DopantError] = {}

    def keep(name: str, ended: Report | DopantError) -> None:
        if isinstance(ended, Report) and states[name].train:
            return  # trained for others alone: its record stays that of the run that made it
        if isinstance(ended, Report):
            write_report(_record(ended, by_name[name], found), record_file(records, by_name[name]))
        else:
            failed[name] = _with_a_way_out(ended, by_name[name], folder)

    try:
        run_jobs(
            work,
            text,
            workers=_workers(device) if jobs is None else jobs,
            threads=threads,
            options={"device": device},
            listener=listener,
            on_end=keep,
        )
    except KeyboardInterrupt:
        with contextlib.suppress(DopantError, OSError):
            _tables(found, records, text, write=True)
        raise
    tables: tuple[Report | None, Report | None] = None, None
    complaints = [f"{name}: {error}" for name, error in failed.items()]
    try:
        tables = _tables(found, records, text, write=True)
    except (DopantError, OSError) as error:
        if not failed:
            raise
        complaints.append(f"and there are no tables: {error}")
    if failed:
        complained = "\n  ".join(complaints)
        raise TrainingError(
            f"{len(failed)} of {len(wanted)} runs failed, the others are in {records}; the same command tries again "
            f"what is missing:\n  {complained}"
        )
    return Results(told, *tables)


def _text(experiment: Experiment, corpus: str | Path | Corpus | None) -> Corpus | DopantError:
    """The text; where none was named and the recipes' is not here, the error for when it is needed."""
    if isinstance(corpus, Corpus):
        return corpus
    try:
        text = read_corpus(corpus if corpus is not None else experiment.trials[0].recipe.corpus)
    except InputError as error:
        if corpus is not None:
            raise
        return InputError(f"{error}; or name one with --corpus")
    # records tell no one where on a machine something was
    kept = {key: _shown(value) if key == "path" else value for key, value in text.source.items()}
    return dataclasses.replace(text, source=kept)


def _shown(path: str | Path) -> str:
    """A path as records may tell it: relative to where the command was given, else its name alone."""
    place = Path(path)
    if not place.is_absolute():
        return str(place)
    here = Path.cwd()
    return str(place.relative_to(here)) if place.is_relative_to(here) else place.name


def _flags(corpus: str | Path | Corpus | None, device: str, threads: int) -> list[str]:
    given = [] if corpus is None or isinstance(corpus, Corpus) else ["--corpus", _shown(corpus)]
    return [*given, "--device", device, *(["--threads", str(threads)] if threads != 1 else [])]


def _check_records(files: Sequence[Path], records: Path) -> None:
    """See that these records can be written, before hours of training; makes their folder."""
    for file in files:
        if file.is_dir():
            raise InputError(f"{file} is a folder, and a record is to be written there; move it away")
    try:
        records.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=records):
            pass
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise InputError(f"{records} cannot be written to ({why}); choose another place with --out") from None


def _device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    check_device(device)
    return device


def _workers(device: str) -> int:
    return cores() if device == "cpu" else min(JOBS_ON_A_GPU, cores())


def _check_plans(trials: Sequence[Trial], text: Corpus) -> None:
    recipes = {trial.row: trial.recipe for trial in trials}
    for row, plan in plan_recipes(recipes, read_vocabularies(recipes, text)).items():
        if isinstance(plan, PlanError):
            raise PlanError(f"{row}: {plan}")


def _check_free(trial: Trial, state: State) -> None:
    """See that no finished model is thrown away of which there is no record, or which is not to be made."""
    if state.blocked:
        needed = f", and another model of {trial.name} is needed" if state.train else ""
        too = f", or name {trial.row} in --rows too" if state.train and state.state == "out of date" else ""
        way_out = "move it away, choose another place with --runs, or start anew with --replace"
        raise InputError(f"{state.blocked}{needed}; {way_out}{too}")


def _job(
    trial: Trial, needed: Trial | None, wanted: Sequence[Trial], folder: Path, shown: Sequence[str], state: State
) -> Job:
    places = Places(folder / trial.name)
    command = ("results", shown[0], "--rows", trial.row, "--seeds", str(trial.seed), *shown[1:])
    options = {"resume": state.resume, "force": is_there(places) and not state.resume, "command": command}
    if needed is None:
        return Job(trial.name, trial.recipe, places.model, options=options)
    after, model = needed.name if needed in wanted else None, folder / needed.name
    if state.weights_of:
        return Job(trial.name, trial.recipe, places.model, after=after, options={**options, "weights_of": model})
    return Job(trial.name, trial.recipe, places.model, dense=model, after=after, options=options)


def _with_a_way_out(error: DopantError, trial: Trial, folder: Path) -> DopantError:
    if isinstance(error, ResumeError):
        what, _, _ = str(error).rpartition("; ")  # its way out is a flag of other commands
        return ResumeError(f"{what}; remove {Places(folder / trial.name).run} to start anew")
    return error


def _record(report: Report, trial: Trial, experiment: Experiment) -> Report:
    dense = experiment.dense_of(trial)
    run = ExperimentRun(
        experiment=experiment.name,
        row=trial.row,
        model=report.protocol.model,
        seed=trial.seed,
        epochs=report.protocol.epochs,
        recipe=kept_settings(trial.recipe),
        dense=None if dense is None else kept_settings(dense.recipe),
    )
    return report.model_copy(update={"run": run})


def _tables(
    experiment: Experiment, records: Path, text: Corpus | DopantError, *, write: bool
) -> tuple[Report | None, Report | None]:
    """All records that count as the table, those of the sweep as a second one with its picture."""
    counting = [trial for trial in experiment.trials if state_of(trial, experiment, records, text).counts]
    read = list(zip(counting, _read_alike(counting, records), strict=True))

    def labelled(rows: Iterable[str], usual: Usual) -> dict[str, list[Report]]:
        """Of each row, as labels are today: they follow what rows differ in, which may have come later."""
        found: dict[str, list[Report]] = {}
        for trial, report in read:
            told = label(trial.recipe, usual)
            found.setdefault(trial.row, []).append(_labelled(report, told))
        return {row: found[row] for row in rows if row in found}

    table = labelled(experiment.rows, experiment.usual)
    joined = join_seeds(table, experiment.dense) if table else None
    points = labelled(
        [row for line in experiment.swept.values() for row in line], dataclasses.replace(experiment.usual, target=None)
    )
    points = _lines_apart(points, experiment.swept)
    dense = {row: reports for row, reports in table.items() if reports[0].rows[0].dense}
    factors = join_seeds({**dense, **points}, experiment.dense) if any(row not in table for row in points) else None
    if joined is not None:
        joined = joined.model_copy(update={"rows": told_apart(joined.rows)})
    if write and joined is not None:
        write_report(joined, records / "report.json")
    if write and factors is not None:
        write_report(factors, records / "factors.json")
        picture = loss_against_factor(factors, WIDE, "factors")
        if picture is not None:
            write_text(records / "factors.svg", standalone(picture))
    return joined, factors


def _lines_apart(points: Mapping[str, list[Report]], swept: Mapping[str, Sequence[str]]) -> dict[str, list[Report]]:
    """The points of a sweep, by row: what has one label is one line, so that of another recipe has another."""
    lines = {base: [row for row in line if row in points] for base, line in swept.items()}
    ends = [points[line[0]][0].rows[0].model_copy(update={"folder": base}) for base, line in lines.items() if line]
    told = zip(filter(None, lines.values()), told_apart(ends), strict=True)
    return {row: [_labelled(report, end.label) for report in points[row]] for line, end in told for row in line}


def _labelled(report: Report, text: str) -> Report:
    (row,) = report.rows
    return report.model_copy(update={"rows": (row.model_copy(update={"label": text}),)})


def _read_alike(trials: Sequence[Trial], records: Path) -> list[Report]:
    """The records of these runs.

    Raises:
        InputError: they cannot be compared; two files that contradict each other are named.
    """
    files = [record_file(records, trial) for trial in trials]
    reports = [read_report(file) for file in files]
    for file, report in zip(files, reports, strict=True):
        try:
            check_alike([reports[0], report])
        except InputError as error:
            raise InputError(f"{files[0]} and {file}: {error}") from None
    return reports
