"""Rows of an experiment that start from, or learn from, its own dense row."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from dopant.data import Corpus, make_corpus
from dopant.errors import InputError, TrainingError
from dopant.recipes.experiments import read_experiment
from dopant.recipes.results import Results, State, results
from dopant.recipes.run import run_recipe
from dopant.recipes.side_by_side import Standing
from dopant.recipes.states import kept_settings
from dopant.reporting.report import Report, read_report, write_report
from dopant.reporting.table import markdown_table

Write = Callable[..., Path]
Snapshot = Callable[[Path], dict[str, bytes]]
ROWS = "rows: {recovered: [0, 1], dense: [0, 1], distilled: [0], lmf: [0]}\n"
LONGEST = "rows: {recovered-longest: [0], dense-longest: [0]}\n"


def run(folder: Path, place: Path, corpus: Corpus, **options: Any) -> Results:
    return results(folder, corpus, out=place / "records", runs=place / "runs", device="cpu", **{"jobs": 2, **options})


@pytest.fixture(scope="module")
def made(
    corpus: Corpus, tmp_path_factory: pytest.TempPathFactory, write_in: Callable[[Path, str], Path]
) -> tuple[Path, Results, list[Mapping[str, Standing]]]:
    """An experiment with all its records, and how its runs stood as it was made; not to be written to."""
    place = tmp_path_factory.mktemp("made")
    heard: list[Mapping[str, Standing]] = []
    folder = write_in(place / "experiment", ROWS + "sweep: {rows: [recovered], targets: [2x], seeds: [1]}\n")
    return place, run(folder, place, corpus, listener=heard.append), heard


@pytest.fixture
def place(made: tuple[Path, Results, Any], tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(made[0], tmp_path / "copy")
    return tmp_path / "copy"


def again(place: Path, corpus: Corpus, **options: Any) -> Results:
    return run(place / "experiment", place, corpus, **options)


def state(found: Results, name: str) -> State:
    return next(state for state in found.states if state.run == name)


def worked_on(found: Results) -> dict[str, str]:
    return {s.run: "train" if s.train else "make" for s in found.states if s.make or s.train}


def record(place: Path, name: str) -> Report:
    return read_report(place / "records" / f"{name}.json")


def forget(place: Path, name: str, *, record: bool = True, model: bool = True) -> None:
    if record:
        (place / "records" / f"{name}.json").unlink()
    if model:
        shutil.rmtree(place / "runs" / name)
        shutil.rmtree(place / "runs" / f"{name}.run")


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def stop_at(name: str) -> Callable[[Mapping[str, Standing]], None]:
    """As Ctrl-C in the middle of a run."""

    def listen(standings: Mapping[str, Standing]) -> None:
        if standings[name].step >= 50:
            raise KeyboardInterrupt

    return listen


def test_rows_start_and_learn_from_the_dense_model_of_their_seed(
    made: tuple[Path, Results, list[Mapping[str, Standing]]], corpus: Corpus, tmp_path: Path
) -> None:
    """They wait for it, though they stand before it."""
    place, found, heard = made
    needy = {
        "recovered-seed0": "dense-seed0",
        "distilled-seed0": "dense-seed0",
        "recovered-seed1": "dense-seed1",
        "recovered-2x-seed1": "dense-seed1",
    }
    began = 0
    for standings in heard:
        for name, dense in needy.items():
            if standings[name].phase != "waiting":
                began += 1
                assert standings[dense].phase == "done"
    assert began
    assert {state.run: state.why for state in found.states if state.run in needy} == {
        name: f"after {dense}" for name, dense in needy.items()
    }

    trials = {trial.name: trial for trial in read_experiment(place / "experiment").trials}
    alone = {}
    for seed in (0, 1):
        dense = place / "runs" / f"dense-seed{seed}"
        report = run_recipe(trials["recovered-seed1"].recipe, corpus, tmp_path / f"from{seed}", dense=dense)
        alone[seed] = report.rows[0].perplexity_test
    assert alone[1] != alone[0]
    one = record(place, "recovered-seed1")
    assert one.rows[0].perplexity_test == alone[1]
    assert one.run is not None
    assert one.run.dense == kept_settings(trials["dense-seed1"].recipe)
    assert one.run.dense["method"] == "dense"
    assert one.protocol.command.endswith("experiment --rows recovered --seeds 1 --device cpu")
    for name in ("dense-seed0", "lmf-seed0"):
        other = record(place, name).run
        assert other is not None
        assert other.dense is None


def test_a_table_tells_of_each_row_how_it_began(made: tuple[Path, Results, Any]) -> None:
    report, factors = made[1].report, made[1].factors
    assert report is not None
    assert [row.label for row in report.rows] == [
        "Low rank (LMF), fit to dense",
        "Dense",
        "Low rank (LMF), distilled 0.5",
        "Low rank (LMF), at 4x by parameters",
    ]
    assert all(row.loss_percent is not None for row in report.rows if not row.dense)
    assert (report.protocol.start, report.protocol.distillation) == ("mixed", None)
    assert "distilled from" not in markdown_table(report)
    assert factors is not None
    assert factors.protocol.start == "dense"


def test_losses_are_against_the_dense_row_that_others_began_with(write: Write, corpus: Corpus, tmp_path: Path) -> None:
    """Though another one, trained on from it, stands before it."""
    report = run(write("rows: {dense-on: [0], dense: [0]}\n"), tmp_path, corpus).report
    assert report is not None
    on, dense = report.rows
    assert (on.label, dense.label) == ("Dense, trained on", "Dense")
    assert dense.loss_percent is None
    assert on.loss_percent == pytest.approx(100 * (on.perplexity_test / dense.perplexity_test - 1))


def test_a_change_of_the_dense_recipe_makes_records_of_what_needs_it_out_of_date(place: Path, corpus: Corpus) -> None:
    """Not so one that changes no number; nor is a row concerned that needs no dense model."""
    dense = place / "experiment" / "dense.yaml"
    change(dense, "checkpoint_every: 10", "checkpoint_every: 0")
    assert {state.state for state in again(place, corpus, dry_run=True).states} == {"done"}
    change(dense, "init: 0.2", "init: 0.2\n  dropout: 0.1")
    found = again(place, corpus, dry_run=True)
    fresh = {state.run for state in found.states if state.state == "done"}
    assert fresh == {"lmf-seed0"}
    why = "of dense, which it needs: model.dropout is 0.1, was 0.0; made by "
    assert state(found, "distilled-seed0").why.startswith(why)
    assert found.report is not None
    assert [row.method for row in found.report.rows] == ["lmf"]
    assert again(place, corpus, jobs=1).factors is not None
    assert {state.state for state in again(place, corpus, dry_run=True).states} == {"done"}
    run = record(place, "distilled-seed0").run
    assert run is not None
    assert run.dense is not None
    assert run.dense["model"]["dropout"] == 0.1


def test_a_record_that_does_not_say_its_dense_recipe_is_out_of_date(place: Path, corpus: Corpus) -> None:
    old = record(place, "recovered-seed0")
    assert old.run is not None
    silent = old.model_copy(update={"run": old.run.model_copy(update={"dense": None})})
    write_report(silent, place / "records" / "recovered-seed0.json")
    found = again(place, corpus, dry_run=True)
    assert worked_on(found) == {"recovered-seed0": "make"}
    assert state(found, "recovered-seed0").why.startswith("it does not say of which dense model it is; made by ")


def test_a_dense_model_that_is_there_is_used(place: Path, corpus: Corpus, snapshot: Snapshot) -> None:
    old = record(place, "recovered-seed1").rows
    forget(place, "recovered-seed1")
    weights = place / "runs" / "dense-seed1" / "model.safetensors"
    when, before = weights.stat().st_mtime_ns, snapshot(place / "records")["dense-seed1.json"]
    found = again(place, corpus, seeds=[1], rows=["recovered"])
    assert worked_on(found) == {"recovered-seed1": "make"}
    assert state(found, "recovered-seed1").why == ""
    assert record(place, "recovered-seed1").rows[0].perplexity_test == old[0].perplexity_test
    assert weights.stat().st_mtime_ns == when
    assert snapshot(place / "records")["dense-seed1.json"] == before


def test_a_dense_model_is_used_whatever_of_its_recipe_changes_no_number(place: Path, corpus: Corpus) -> None:
    forget(place, "recovered-seed1")
    change(place / "experiment" / "dense.yaml", "checkpoint_every: 10", "checkpoint_every: 0")
    weights = place / "runs" / "dense-seed1" / "model.safetensors"
    when = weights.stat().st_mtime_ns
    assert worked_on(again(place, corpus, seeds=[1], rows=["recovered"])) == {"recovered-seed1": "make"}
    assert weights.stat().st_mtime_ns == when


def test_a_dense_model_that_was_trained_for_others_is_taken_when_its_own_record_is_made(
    place: Path, corpus: Corpus
) -> None:
    change(place / "experiment" / "dense.yaml", "init: 0.2", "init: 0.2\n  dropout: 0.1")
    forget(place, "dense-seed0", record=False)
    found = again(place, corpus, seeds=[0], rows=["distilled"])
    assert worked_on(found) == {"dense-seed0": "train", "distilled-seed0": "make"}
    weights = place / "runs" / "dense-seed0" / "model.safetensors"
    when = weights.stat().st_mtime_ns
    assert worked_on(again(place, corpus, seeds=[0], rows=["dense"])) == {"dense-seed0": "make"}
    assert weights.stat().st_mtime_ns == when
    own = read_report(place / "runs" / "dense-seed0.run" / "report.json").rows[0].perplexity_test
    assert record(place, "dense-seed0").rows[0].perplexity_test == own
    run = record(place, "dense-seed0").run
    assert run is not None
    assert run.recipe["model"]["dropout"] == 0.1
    assert state(again(place, corpus, dry_run=True), "distilled-seed0").state == "done"


def test_a_dense_model_that_is_missing_is_trained_and_its_record_stays(
    place: Path, corpus: Corpus, snapshot: Snapshot
) -> None:
    """As where records come from elsewhere, and models do not."""
    old = record(place, "recovered-seed0").rows
    elsewhere = record(place, "dense-seed0")
    protocol = elsewhere.protocol.model_copy(update={"commit": "f" * 40})
    write_report(elsewhere.model_copy(update={"protocol": protocol}), place / "records" / "dense-seed0.json")
    forget(place, "recovered-seed0")
    forget(place, "dense-seed0", record=False)
    before = snapshot(place)
    heard: list[Sequence[State]] = []
    found = again(place, corpus, rows=["recovered"], dry_run=True, announce=heard.append)
    assert snapshot(place) == before
    assert tuple(heard[0]) == found.states
    assert worked_on(found) == {"recovered-seed0": "make", "dense-seed0": "train"}
    dense = state(found, "dense-seed0")
    assert dense.why.endswith("; its model is needed for recovered-seed0; this record stays")
    assert (dense.state, dense.counts) == ("done", True)
    assert state(found, "recovered-seed0").why == "after dense-seed0"
    assert found.report is not None

    again(place, corpus, rows=["recovered"])
    assert snapshot(place / "records")["dense-seed0.json"] == before["records/dense-seed0.json"]
    assert record(place, "recovered-seed0").rows[0].perplexity_test == old[0].perplexity_test  # equal seeds, equal bits
    assert worked_on(again(place, corpus, dry_run=True)) == {}
    # and the model is there now
    forget(place, "recovered-seed0")
    assert worked_on(again(place, corpus, dry_run=True)) == {"recovered-seed0": "make"}


def test_no_dense_model_is_trained_for_what_is_not_made(place: Path, corpus: Corpus) -> None:
    forget(place, "dense-seed0", record=False)
    forget(place, "recovered-seed0")
    forget(place, "lmf-seed0")
    assert worked_on(again(place, corpus, rows=["lmf"], dry_run=True)) == {"lmf-seed0": "make"}
    assert worked_on(again(place, corpus, tables_only=True)) == {}
    assert not (place / "runs" / "dense-seed0").exists()


def test_a_dense_row_without_a_record_is_made_where_it_is_needed(write: Write, corpus: Corpus, tmp_path: Path) -> None:
    folder = write(ROWS)
    found = run(folder, tmp_path, corpus, rows=["recovered", "lmf"], seeds=[0])
    assert worked_on(found) == {"recovered-seed0": "make", "dense-seed0": "make", "lmf-seed0": "make"}
    assert state(found, "dense-seed0").why == "its model is needed for recovered-seed0"
    assert {path.stem for path in (tmp_path / "records").glob("*-seed*")} == set(worked_on(found))
    assert run(folder, tmp_path, corpus, dry_run=True, rows=["dense"], seeds=[0]).states[1].state == "done"


def test_what_needs_a_dense_model_that_fails_fails_with_it_alone(write: Write, corpus: Corpus, tmp_path: Path) -> None:
    folder = write(ROWS)
    (tmp_path / "runs" / "dense-seed0.run").mkdir(parents=True)
    (tmp_path / "runs" / "dense-seed0.run" / "letters.txt").write_text("mine")
    with pytest.raises(TrainingError) as error:
        run(folder, tmp_path, corpus)
    first, *told = str(error.value).splitlines()
    assert first.startswith("3 of 6 runs failed")
    assert sorted(told) == [
        f"  dense-seed0: {tmp_path}/runs/dense-seed0.run is not the folder of a run; move it away or choose another "
        "place",
        "  distilled-seed0: distilled-seed0 needs the model of dense-seed0, which failed",
        "  recovered-seed0: recovered-seed0 needs the model of dense-seed0, which failed",
    ]
    records = {path.stem for path in (tmp_path / "records").glob("*-seed*")}
    assert records == {"lmf-seed0", "dense-seed1", "recovered-seed1"}


def test_interrupted_work_on_a_dense_model_goes_on(write: Write, corpus: Corpus, tmp_path: Path) -> None:
    """First in the dense model that is trained again, then in what needs it."""
    folder = write(LONGEST)
    run(folder, tmp_path, corpus, rows=["dense*"])
    forget(tmp_path, "dense-longest-seed0", record=False)
    before = (tmp_path / "records" / "dense-longest-seed0.json").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path, corpus, listener=stop_at("dense-longest-seed0"))
    again = run(folder, tmp_path, corpus, dry_run=True)
    assert worked_on(again) == {"recovered-longest-seed0": "make", "dense-longest-seed0": "train"}
    assert "thrown away" not in state(again, "dense-longest-seed0").why
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path, corpus, listener=stop_at("recovered-longest-seed0"))
    own = read_report(tmp_path / "runs" / "dense-longest-seed0.run" / "report.json")
    assert own.protocol.resumed
    assert worked_on(run(folder, tmp_path, corpus)) == {"recovered-longest-seed0": "make"}
    assert record(tmp_path, "recovered-longest-seed0").protocol.resumed
    assert (tmp_path / "records" / "dense-longest-seed0.json").read_bytes() == before


def test_what_was_begun_with_a_dense_model_that_is_replaced_begins_anew(
    write: Write, corpus: Corpus, tmp_path: Path
) -> None:
    folder = write(LONGEST)
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path, corpus, listener=stop_at("recovered-longest-seed0"))
    change(folder / "dense-longest.yaml", "init: 0.2", "init: 0.2\n  dropout: 0.1")
    place = tmp_path / "runs" / "recovered-longest-seed0.run"
    found = run(folder, tmp_path, corpus, dry_run=True)
    lost = f"the unfinished run begun with another dense model in {place} is thrown away"
    assert state(found, "recovered-longest-seed0").why == f"{lost}; after dense-longest-seed0"

    run(folder, tmp_path, corpus, rows=["dense*"])  # alone: then nothing tells of it beforehand
    told = f"recovered-longest-seed0: {place} belongs to another recipe, model or corpus .*; remove {place} to start"
    with pytest.raises(TrainingError, match=told):
        run(folder, tmp_path, corpus)
    change(folder / "dense-longest.yaml", "dropout: 0.1", "dropout: 0.2")
    run(folder, tmp_path, corpus)
    assert not record(tmp_path, "recovered-longest-seed0").protocol.resumed
    assert {state.state for state in run(folder, tmp_path, corpus, dry_run=True).states} == {"done"}


def test_a_finished_model_of_another_dense_model_is_not_deleted_unasked(
    place: Path, corpus: Corpus, snapshot: Snapshot
) -> None:
    forget(place, "recovered-seed0", model=False)
    change(place / "experiment" / "dense.yaml", "init: 0.2", "init: 0.2\n  dropout: 0.1")
    before = snapshot(place)
    told = "recovered-seed0 is a finished model made with another dense model, and there is no record of it"
    assert f"{told}; it is in the way" in state(again(place, corpus, seeds=[0], dry_run=True), "recovered-seed0").why
    with pytest.raises(InputError, match=told):
        again(place, corpus, seeds=[0])
    assert snapshot(place) == before


def test_a_dense_model_of_another_recipe_is_in_the_way(place: Path, corpus: Corpus, snapshot: Snapshot) -> None:
    change(place / "experiment" / "dense.yaml", "init: 0.2", "init: 0.2\n  dropout: 0.1")
    before = snapshot(place)
    model = place / "runs" / "dense-seed0"
    why = state(again(place, corpus, rows=["distilled"], dry_run=True), "dense-seed0").why
    assert why.endswith(f"; {model} is of another recipe or text ({model}.run/recipe.yaml); it is in the way")
    with pytest.raises(InputError, match=rf"{model} is of another recipe or text .*, or name dense in --rows too"):
        again(place, corpus, rows=["distilled"])
    assert snapshot(place) == before
    found = again(place, corpus, rows=["distilled", "dense"], seeds=[0])
    assert worked_on(found) == {"dense-seed0": "make", "distilled-seed0": "make"}


def test_a_dense_model_of_another_text_is_in_the_way(place: Path, corpus: Corpus, snapshot: Snapshot) -> None:
    """Though its record is of this text. With --replace it goes, and the record stays."""
    text = make_corpus("other", corpus.train + "a cat is here\n", corpus.valid, corpus.test)
    recipe = next(t.recipe for t in read_experiment(place / "experiment").trials if t.name == "dense-seed0")
    model = place / "runs" / "dense-seed0"
    run_recipe(recipe, text, model, force=True)
    forget(place, "distilled-seed0")
    before = snapshot(place)
    with pytest.raises(InputError) as error:
        again(place, corpus)
    assert str(error.value) == (
        f"{model} is of another recipe or text ({model}.run/recipe.yaml), and another model of dense-seed0 is needed; "
        "move it away, choose another place with --runs, or start anew with --replace"
    )
    assert snapshot(place) == before
    look = again(place, corpus, rows=["distilled"], replace=True, dry_run=True)
    assert state(look, "dense-seed0").why.endswith("recipe.yaml); it is thrown away")
    again(place, corpus, rows=["distilled"], replace=True)
    assert snapshot(place)["records/dense-seed0.json"] == before["records/dense-seed0.json"]
    assert read_report(place / "runs" / "dense-seed0.run" / "report.json").protocol.checksum == corpus.checksum


def test_a_model_folder_without_its_run_is_not_deleted_unasked(place: Path, corpus: Corpus, snapshot: Snapshot) -> None:
    shutil.rmtree(place / "runs" / "dense-seed0.run")
    forget(place, "distilled-seed0")
    before = snapshot(place)
    with pytest.raises(InputError, match=r"dense-seed0 has no finished run beside it \(\S+dense-seed0\.run\) to"):
        again(place, corpus)
    assert snapshot(place) == before


def test_a_dense_model_whose_report_is_damaged_is_not_taken(place: Path, corpus: Corpus, snapshot: Snapshot) -> None:
    (place / "runs" / "dense-seed0.run" / "report.json").write_text("{}")
    forget(place, "distilled-seed0")
    before = snapshot(place)
    with pytest.raises(InputError, match="dense-seed0 is of another recipe or text"):
        again(place, corpus)
    assert snapshot(place) == before
