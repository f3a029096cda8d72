"""What is to be made of an experiment: records that are wrong, and the dense models that these need."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from dopant.data import Corpus
from dopant.errors import DopantError
from dopant.recipes.experiments import Experiment, Trial
from dopant.recipes.places import Places
from dopant.recipes.read import kept_text, read_recipe
from dopant.recipes.schema import Recipe
from dopant.recipes.states import State, changed, kept_settings, record_file, state_of
from dopant.reporting.report import read_report


def to_be_made(
    experiment: Experiment,
    records: Path,
    folder: Path,
    text: Corpus | DopantError,
    *,
    chosen: Collection[str],
    replace: bool,
    code: str,
) -> dict[str, State]:
    """How every run stands, by its name, with whether it is made now and what that means for what is there.

    Args:
        records, folder: where records, and models with their runs, are.
        text: what is read, or why it is not there.
        chosen: names of the runs whose records may be made; the models that these need are trained in any case.
        replace: make records of other code again, too.
        code: the commit that runs now.
    """
    states: dict[str, State] = {}
    for trial in experiment.trials:
        state = state_of(trial, experiment, records, text, code)
        wrong = state.state in ("missing", "out of date") or (replace and state.other_code)
        states[trial.name] = dataclasses.replace(state, make=wrong and trial.name in chosen)
    trials = {trial.name: trial for trial in experiment.trials}
    for trial in experiment.trials:
        if states[trial.name].make:
            found = _weights_of(trial, experiment, states, records, folder, text, replace=replace)
            states[trial.name] = dataclasses.replace(states[trial.name], weights_of=found)
    for name, needy in _needed(experiment, states).items():
        state, others = states[name], ", ".join(needy)
        if state.state == "missing" and not state.make:
            states[name] = _told(dataclasses.replace(state, make=True), f"its model is needed for {others}")
        elif not state.make and not is_ready(trials[name], folder, text):
            why = f"its model is needed for {others}; this record stays"
            states[name] = _told(dataclasses.replace(state, train=True), why)
    going_on = _goes_on(experiment, states, folder, text, replace=replace)
    for trial in experiment.trials:
        state = states[trial.name]
        if is_worked_on(state):
            resume = trial.name in going_on
            copy = bool(state.weights_of) and is_of(Places(folder / trial.name), trial.recipe)  # and no loss
            found = "" if resume or copy else _in_the_way(trial, state, folder)
            lost = "" if resume or copy else _lost(trial, folder, found, replace=replace)
            taken = state.weights_of and f"takes the weights of {state.weights_of} and stores them otherwise"
            state = dataclasses.replace(state, resume=resume, blocked="" if replace else found)
            states[trial.name] = _told(state, lost, taken, _waits(needed_by(trial, experiment, state), states))
    return states


def needed_by(trial: Trial, experiment: Experiment, state: State) -> Trial | None:
    """The run whose model another needs: whose weights it takes, else the dense one; None for none."""
    if state.weights_of:
        return next(other for other in experiment.trials if other.name == state.weights_of)
    return experiment.dense_of(trial)


def _weights_of(
    trial: Trial,
    experiment: Experiment,
    states: Mapping[str, State],
    records: Path,
    folder: Path,
    text: Corpus | DopantError,
    *,
    replace: bool,
) -> str:
    """The name of the run whose weights this one takes: it is made now, or its model is there as its record has it.

    What this run has begun or done by itself stays its own.
    """
    finest = experiment.finest_of(trial)
    if finest is None or (_is_own(Places(folder / trial.name), trial.recipe) and not replace):
        return ""
    state = states[finest.name]
    if state.make:
        return finest.name
    if state.state != "done" or (replace and state.other_code) or not is_ready(finest, folder, text):
        return ""
    there, recorded = read_report(Places(folder / finest.name).report), read_report(record_file(records, finest))
    return finest.name if there.rows[0].perplexity_test == recorded.rows[0].perplexity_test else ""


def _goes_on(
    experiment: Experiment, states: Mapping[str, State], folder: Path, text: Corpus | DopantError, *, replace: bool
) -> set[str]:
    """Names of the runs that go on with what is in their folders, or take it if it is done; others begin anew.

    What is done is taken where there is no record of it, or where it is what the record should be of, as a dense model
    that was trained for others. Nothing goes on that was begun with a dense model which is itself thrown away.
    """
    found: set[str] = set()
    thrown_away: set[str] = set()
    worked_on = [trial for trial in experiment.trials if is_worked_on(states[trial.name])]
    # dense ones before those that need them
    for trial in sorted(worked_on, key=lambda trial: trial.recipe.needs_dense):
        places, dense = Places(folder / trial.name), experiment.dense_of(trial)
        same = _is_own(places, trial.recipe) and (dense is None or dense.name not in thrown_away)
        taken = states[trial.name].state == "missing" or (
            dense is None and not replace and is_ready(trial, folder, text)
        )
        if same and (taken or not places.finished):
            found.add(trial.name)
        elif is_there(places):
            thrown_away.add(trial.name)
    return found


def is_worked_on(state: State) -> bool:
    """Whether a run is one of those that are run now."""
    return state.make or state.train


def is_there(places: Places) -> bool:
    """Whether anything is in the places of a run."""
    return os.path.lexists(places.run) or os.path.lexists(places.model)


def is_of(places: Places, recipe: Recipe) -> bool:
    """Whether what lies in a run's folder was made with this recipe."""
    return kept_text(places.recipe, recipe) is not None


def _is_own(places: Places, recipe: Recipe) -> bool:
    """The same, and it has trained; it has not taken another run's weights."""
    return is_of(places, recipe) and places.log.exists()


def is_ready(trial: Trial, folder: Path, text: Corpus | DopantError) -> bool:
    """Whether a run's model is there, of this text if there is one, of its recipe but for what changes no number."""
    places = Places(folder / trial.name)
    if not places.finished:
        return False
    try:
        made = read_recipe(places.recipe)
        checksum = read_report(places.report).protocol.checksum
    except DopantError:
        return False
    same = made.seed == trial.seed and not changed(kept_settings(made), trial.recipe)
    return same and (not isinstance(text, Corpus) or checksum == text.checksum)


def _in_the_way(trial: Trial, state: State, folder: Path) -> str:
    """What is wrong with a finished model that would be thrown away, though nobody has asked for that; "" for none."""
    places = Places(folder / trial.name)
    if state.state == "missing" and places.finished:
        of = "made with another dense model" if is_of(places, trial.recipe) else f"of another recipe ({places.recipe})"
        return f"{places.model} is a finished model {of}, and there is no record of it"
    if state.train and places.finished:
        return f"{places.model} is of another recipe or text ({places.recipe})"
    if state.train and places.model.exists():
        return f"{places.model} has no finished run beside it ({places.run}) to tell its recipe and text"
    return ""


def _needed(experiment: Experiment, states: Mapping[str, State]) -> dict[str, list[str]]:
    """By the name of a dense run those of the runs that are made and need its model."""
    found: dict[str, list[str]] = {}
    for trial in experiment.trials:
        dense = experiment.dense_of(trial)
        if dense is not None and states[trial.name].make and not states[trial.name].weights_of:
            found.setdefault(dense.name, []).append(trial.name)
    return found


def _lost(trial: Trial, folder: Path, found: str, *, replace: bool) -> str:
    """What is thrown away, though nobody has asked for that by name, when this run begins anew; `found` in the way."""
    places = Places(folder / trial.name)
    if found:
        return f"{found}; it is {'thrown away' if replace else 'in the way'}"
    if places.finished or not places.recipe.exists():
        return ""
    of = "begun with another dense model" if is_of(places, trial.recipe) else "of another recipe"
    return f"the unfinished run {of} in {places.run} is thrown away"


def _waits(dense: Trial | None, states: Mapping[str, State]) -> str:
    return f"after {dense.name}" if dense is not None and is_worked_on(states[dense.name]) else ""


def _told(state: State, *more: str) -> State:
    return dataclasses.replace(state, why="; ".join(filter(None, [state.why, *more])))
