"""How the runs of an experiment stand: which records are there, and whether they are of today's recipes and text."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dopant import version
from dopant.data import Corpus
from dopant.errors import DopantError, InputError, RecipeError
from dopant.recipes.describing import schedule
from dopant.recipes.experiments import Experiment, Trial, flat
from dopant.recipes.read import recipe_from
from dopant.recipes.row_label import label
from dopant.recipes.schema import Recipe
from dopant.reporting.report import ExperimentRun, Report, read_report

NOT_KEPT = ("description", "corpus", "seed")
"""Keys of a recipe that its record has in another form, or does not need: prose, the text's checksum, the seed."""

_NO_NUMBER = (*NOT_KEPT, "training.checkpoint_every", "training.trace_every", "training.cuda_graph")
"""Keys of a recipe that change no number of a record, or by rounding alone."""

StateName = Literal["done", "missing", "out of date", "older code", "another's"]


@dataclass(frozen=True)
class State:
    """How one run of an experiment stands.

    Args:
        run: its name, and that of its record.
        state: `done`; `missing`; `out of date` (the record is of another recipe or text); `older code` (the record
            does not say which recipe it is of); `another's` (the file is no record, or that of another run).
        why: in words.
        counts: whether its record is part of the tables.
        other_code: whether its record was made by other code than this.
        make: whether it is to be made now.
        train: whether its model alone is to be trained now, because others need it; its record stays as it is.
        resume: whether it then goes on with what is in its folder, or takes it if it is done; else it begins anew.
        weights_of: the run whose weights it then takes, to store them otherwise and to train nothing; "" for none.
        blocked: what of a finished model keeps it from beginning anew, as that was not asked for; "" for nothing.
    """

    run: str
    state: StateName
    why: str
    counts: bool = False
    other_code: bool = False
    make: bool = False
    train: bool = False
    resume: bool = False
    weights_of: str = ""
    blocked: str = ""


def record_file(records: Path, trial: Trial) -> Path:
    """Where the record of a run is."""
    return records / f"{trial.name}.json"


def kept_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings of a run as its record keeps them."""
    return {key: value for key, value in recipe.model_dump(mode="json").items() if key not in NOT_KEPT}


def state_of(trial: Trial, experiment: Experiment, records: Path, text: Corpus | DopantError, code: str = "") -> State:
    """How a run stands, where `code` is the commit that runs now."""
    file = record_file(records, trial)
    if not os.path.lexists(file):
        return State(trial.name, "missing", "")

    def found(state: StateName, why: str, *, counts: bool = False, other_code: bool = True) -> State:
        return State(trial.name, state, why, counts, other_code)

    try:
        record = read_report(file)
    except InputError as error:
        return found("another's", str(error).splitlines()[0])
    protocol, run = record.protocol, record.run
    made = f"made by {_code(record)} on {protocol.time[:10]}"
    if len(record.rows) != 1 or protocol.seed != trial.seed:
        return found("another's", f"{file} is no record of one row with seed {trial.seed}")
    other_text = ""
    if isinstance(text, Corpus) and protocol.checksum != text.checksum:
        other_text = f"the text has sha256 {text.checksum[:12]} now"
    if run is None:
        contradicted = _contradictions(record, trial.recipe)
        if contradicted:
            return found("older code", f"{made}, of another recipe: {contradicted}")
        if other_text:
            return found("older code", f"{made}, on another text: {other_text}")
        return found("older code", f"{made}, which did not note its recipe", counts=True)
    if (run.experiment, run.row, run.seed) != (experiment.name, trial.row, trial.seed):
        return found("another's", f"{file} is the record of {run.experiment}, {run.row}, seed {run.seed}")
    theirs = (protocol.versions.dopant, protocol.commit, protocol.dirty)
    other_code = theirs != (version.VERSION, code, False)
    differing = ", ".join(
        filter(None, [changed(run.recipe, trial.recipe), _other_dense(run, trial, experiment), other_text])
    )
    if differing:
        return found("out of date", f"{differing}; {made}", other_code=other_code)
    return found("done", made, counts=True, other_code=other_code)


def _code(record: Report) -> str:
    return f"commit {record.protocol.commit[:12]}{' with changes' if record.protocol.dirty else ''}"


def _contradictions(record: Report, recipe: Recipe) -> str:
    """What an old record says of its run that the recipe says otherwise."""
    row, protocol = record.rows[0], record.protocol
    told = {"method": row.method, "label": row.label}
    ours: dict[str, Any] = {"method": recipe.method, "label": label(recipe)}
    expected = schedule(recipe)
    if recipe.method != "dense":  # which has no target
        expected["target"] = recipe.target if recipe.target_bytes is None else f"{recipe.target_bytes} bytes"
    ours |= expected
    theirs = told | {key: getattr(protocol, key) for key in expected}
    return ", ".join(f"{key} {theirs[key]}, not {ours[key]}" for key in ours if theirs[key] != ours[key])


def changed(kept: dict[str, Any], recipe: Recipe) -> str:
    """What is set otherwise now, of what changes numbers; a key that is new since then had its default."""
    try:
        before = flat(recipe_from(kept))
    except RecipeError:
        return "its recipe has settings that this version does not know"
    now = flat(recipe)
    differing = [key for key in now if now[key] != before.get(key) and key not in _NO_NUMBER]
    changes = [f"{key} is {now[key]}, was {before.get(key)}" for key in differing]
    return ", ".join(changes[:3]) + (f" and {len(changes) - 3} more" if len(changes) > 3 else "")


def _other_dense(run: ExperimentRun, trial: Trial, experiment: Experiment) -> str:
    """What is set otherwise now in the dense row that a run starts from or learns from."""
    dense = experiment.dense_of(trial)
    if dense is None:
        return ""  # if it needed one, its own recipe has changed
    if run.dense is None:
        return "it does not say of which dense model it is"
    differing = changed(run.dense, dense.recipe)
    return f"of {dense.row}, which it needs: {differing}" if differing else ""
