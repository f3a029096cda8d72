"""Runs that differ in storage alone: those that round more take the weights of the finest, and train nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dopant.data import Corpus
from dopant.errors import InputError
from dopant.ops.steps import dequantise_steps, quantise_steps
from dopant.recipes.experiments import read_experiment
from dopant.recipes.results import Results, results
from dopant.reporting.report import Report, read_report, write_report
from dopant.reporting.words import trainings
from dopant.storage import load_model

Write = Callable[[str], Path]
ROWS = "rows: {recovered: [0], dense: [0], recovered-8: [0], bytes: [0], bytes-8: [0], lmf: [0]}\n"


def make(write: Write, corpus: Corpus, *names: str, **options: Any) -> Results:
    folder = write(ROWS)
    place = folder.parent
    rows = names or None
    return results(
        folder, corpus, rows=rows, out=place / "records", runs=place / "runs", device="cpu", jobs=2, **options
    )


def forget(folder: Path, name: str, *, record: bool = True, model: bool = True) -> None:
    if record:
        (folder / "records" / f"{name}-seed0.json").unlink()
    if model:
        for ending in ("", ".run"):
            shutil.rmtree(folder / "runs" / f"{name}-seed0{ending}")


def trained(folder: Path, name: str) -> bool:
    return (folder / "runs" / f"{name}-seed0.run" / "log.jsonl").exists()


def record(folder: Path, name: str) -> Report:
    return read_report(folder / "records" / f"{name}-seed0.json")


def whys(found: Results) -> dict[str, str]:
    return {state.run.removesuffix("-seed0"): state.why for state in found.states if state.make or state.train}


TAKES = "takes the weights of recovered-8-seed0 and stores them otherwise"


def test_it_takes_the_weights_of_the_other(write: Write, corpus: Corpus, tmp_path: Path) -> None:
    """Which stands behind it in the table, and is made first: it rounds less."""
    found = make(write, corpus)
    assert whys(found) == {
        "recovered": f"{TAKES}; after recovered-8-seed0",
        "dense": "",
        "recovered-8": "after dense-seed0",
        "bytes": "",
        "bytes-8": "",
        "lmf": "",
    }
    first, second = record(tmp_path, "recovered-8"), record(tmp_path, "recovered")
    assert first.run is not None
    assert second.run is not None
    assert second.run.recipe["storage"]["values"] == "huffman"
    assert second.run.dense == first.run.dense is not None
    a, b = first.rows[0], second.rows[0]
    assert (a.weights_of, b.weights_of) == ("", "recovered-8-seed0")
    assert b.stored_bytes < 0.8 * a.stored_bytes
    assert a.parameters == b.parameters
    assert (b.curves, b.train_seconds) == ((), None)
    assert b.perplexity_test == pytest.approx(a.perplexity_test, rel=0.05)
    assert b.perplexity_test != a.perplexity_test
    assert found.report is not None
    labels = {row.folder.removesuffix("-seed0"): row.label for row in found.report.rows}
    assert labels["recovered"] == "Low rank (LMF), fit to dense"
    assert labels["recovered-8"] == "Low rank (LMF), as int8, fit to dense"
    assert labels["bytes-8"] == "Low rank (LMF), at 5x by bytes, as int8"
    assert trainings(found.report) == "5 times"
    assert not trained(tmp_path, "recovered")
    assert all(trained(tmp_path, row) for row in ("recovered-8", "bytes", "bytes-8"))  # bytes: other structures
    assert whys(make(write, corpus)) == {}
    forget(tmp_path, "dense", record=False)
    forget(tmp_path, "recovered", model=False)
    found = make(write, corpus)  # no dense model is trained for it
    assert whys(found) == {"recovered": TAKES}
    assert record(tmp_path, "recovered").rows == second.rows


def test_what_has_trained_by_itself_stays_its_own(write: Write, corpus: Corpus, tmp_path: Path) -> None:
    make(write, corpus, "recovered")
    assert trained(tmp_path, "recovered")
    alone = record(tmp_path, "recovered")
    forget(tmp_path, "recovered", model=False)
    assert whys(make(write, corpus, "recovered*")) == {"recovered": "", "recovered-8": ""}
    assert record(tmp_path, "recovered").rows == alone.rows
    assert alone.rows[0].weights_of == ""
    forget(tmp_path, "recovered")
    assert whys(make(write, corpus, "recovered", dry_run=True)) == {"recovered": TAKES}


def test_what_was_taken_before_is_taken_again_or_in_the_way(write: Write, corpus: Corpus, tmp_path: Path) -> None:
    make(write, corpus, "recovered*")
    forget(tmp_path, "recovered", model=False)
    assert whys(make(write, corpus, "recovered")) == {"recovered": TAKES}
    forget(tmp_path, "recovered", model=False)
    forget(tmp_path, "recovered-8")
    with pytest.raises(InputError, match=r"recovered-seed0 is a finished model"):
        make(write, corpus, "recovered")
    make(write, corpus, "recovered", replace=True)
    assert trained(tmp_path, "recovered")


def test_no_weights_are_taken_that_are_not_those_of_the_record(write: Write, corpus: Corpus, tmp_path: Path) -> None:
    """Fit to another dense model, or of other code where that is to be replaced."""
    make(write, corpus, "recovered*")
    folder = write(ROWS)
    dense = folder / "dense.yaml"
    options = {"out": tmp_path / "records", "runs": tmp_path / "runs", "device": "cpu", "dry_run": True}
    before = dense.read_text()
    dense.write_text(before.replace("init: 0.2", "init: 0.2\n  dropout: 0.5"))
    told = whys(results(folder, corpus, rows=["dense", "recovered"], **options))
    assert told["recovered"].startswith("of dense, which it needs: model.dropout is 0.5, was 0.0; made by")
    assert TAKES not in told["recovered"]
    dense.write_text(before)
    for row in ("recovered", "recovered-8"):
        found = record(tmp_path, row)
        older = found.model_copy(update={"protocol": found.protocol.model_copy(update={"commit": "0" * 40})})
        write_report(older, tmp_path / "records" / f"{row}-seed0.json")
    told = whys(make(write, corpus, "recovered", dry_run=True, replace=True))
    assert TAKES not in told["recovered"]
    told = whys(make(write, corpus, "recovered*", dry_run=True, replace=True))
    assert f"{TAKES}; after recovered-8-seed0" in told["recovered"]
    forget(tmp_path, "recovered")
    other = record(tmp_path, "recovered-8")
    row = other.rows[0].model_copy(update={"perplexity_test": 1.0})
    write_report(other.model_copy(update={"rows": (row,)}), tmp_path / "records" / "recovered-8-seed0.json")
    assert whys(make(write, corpus, "recovered", dry_run=True)) == {"recovered": ""}


def test_the_finest_rounds_nothing_more(tmp_path: Path, write_in: Callable[[Path, str], Path]) -> None:
    folder = write_in(tmp_path / "experiment", ROWS)
    plain = (folder / "recovered.yaml").read_text()
    kinds = {"others-4": ("int4", "int4"), "others-8": ("int4", "int8"), "half": ("float16", "int8")}
    for name, (values, others) in kinds.items():
        (folder / f"{name}.yaml").write_text(f"{plain}storage: {{values: {values}, others: {others}}}\n")
    (folder / "experiment.yaml").write_text(
        "rows: {dense: [0], others-4: [0], others-8: [0], half: [0], recovered: [0]}"
    )
    experiment = read_experiment(folder)
    finest = {trial.row: experiment.finest_of(trial) for trial in experiment.trials}
    names = {row: found and found.row for row, found in finest.items()}
    assert names == {"dense": None, "others-4": "half", "others-8": "half", "half": None, "recovered": None}


def test_its_numbers_are_those_of_the_other_rounded(write: Write, corpus: Corpus, tmp_path: Path) -> None:
    make(write, corpus, "recovered*")
    fine, coarse = (load_model(tmp_path / "runs" / f"{row}-seed0").model for row in ("recovered-8", "recovered"))
    rounded = dequantise_steps(*quantise_steps(fine.lstm.weight_l0.left))
    assert torch.equal(rounded, coarse.lstm.weight_l0.left)
    assert torch.equal(fine.decoder.weight.matrix, coarse.decoder.weight.matrix)
