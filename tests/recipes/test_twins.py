"""Runs that differ in storage alone: the second takes the weights of the first, and trains nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dopant.data import Corpus
from dopant.recipes import run as module
from dopant.recipes.experiments import read_experiment
from dopant.recipes.results import Results, results
from dopant.reporting.report import Report, read_report

Write = Callable[[str], Path]
ROWS = "rows: {recovered: [0], dense: [0], recovered-8: [0], bytes: [0], bytes-8: [0], lmf: [0]}\n"


def make(write: Write, corpus: Corpus, *names: str, **options: Any) -> Results:
    folder = write(ROWS)
    place = folder.parent
    rows = names or None
    return results(
        folder, corpus, rows=rows, out=place / "records", runs=place / "runs", device="cpu", jobs=2, **options
    )


def record(folder: Path, name: str) -> Report:
    return read_report(folder / "records" / f"{name}-seed0.json")


def whys(found: Results) -> dict[str, str]:
    return {state.run.removesuffix("-seed0"): state.why for state in found.states if state.make or state.train}


def test_it_takes_the_weights_of_the_other(write: Write, corpus: Corpus, tmp_path: Path) -> None:
    """Which stands behind it in the table, and is made first: it rounds less."""
    found = make(write, corpus)
    assert whys(found) == {
        "recovered": "has the weights of recovered-8-seed0, stored otherwise; after recovered-8-seed0",
        "dense": "",
        "recovered-8": "after dense-seed0",
        "bytes": "",
        "bytes-8": "",
        "lmf": "",
    }
    first, second = record(tmp_path, "recovered-8"), record(tmp_path, "recovered")
    assert first.run is not None
    assert second.run is not None
    assert (first.run.trained, second.run.trained) == (None, "recovered-8-seed0")
    assert second.run.recipe["storage"]["values"] == "int4"
    assert second.run.dense == first.run.dense is not None
    a, b = first.rows[0], second.rows[0]
    assert b.stored_bytes < 0.8 * a.stored_bytes
    assert (a.parameters, a.curves, a.train_seconds) == (b.parameters, b.curves, b.train_seconds)
    assert b.perplexity_test == pytest.approx(a.perplexity_test, rel=0.05)
    assert b.perplexity_test != a.perplexity_test
    assert not (tmp_path / "runs" / "recovered-seed0.run" / "log.jsonl").exists()
    assert found.report is not None
    labels = {row.folder.removesuffix("-seed0"): row.label for row in found.report.rows}
    assert labels["recovered"] == "Low rank (LMF), fit to dense"
    assert labels["recovered-8"] == "Low rank (LMF), as int8 and gaps, fit to dense"
    assert labels["bytes-8"] == "Low rank (LMF), at 5x by bytes, as int8 and gaps"
    for row in ("bytes", "bytes-8"):  # other storage, other structures
        made = record(tmp_path, row).run
        assert made is not None
        assert made.trained is None
    assert whys(make(write, corpus)) == {}


def test_later_it_does_so_if_the_model_is_there(
    write: Write, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(write, corpus, "recovered-8")
    assert not (tmp_path / "records" / "recovered-seed0.json").exists()
    told = make(write, corpus, "recovered", dry_run=True)
    assert whys(told) == {"recovered": "has the weights of recovered-8-seed0, stored otherwise"}
    for ending in ("", ".run"):
        shutil.move(tmp_path / "runs" / f"recovered-8-seed0{ending}", tmp_path / f"away{ending}")
    assert whys(make(write, corpus, "recovered", dry_run=True)) == {"recovered": ""}
    make(write, corpus, "recovered")
    alone = record(tmp_path, "recovered")
    assert alone.run is not None
    assert alone.run.trained is None
    assert (tmp_path / "runs" / "recovered-seed0.run" / "log.jsonl").exists()

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError

    for ending in ("", ".run"):
        shutil.move(tmp_path / f"away{ending}", tmp_path / "runs" / f"recovered-8-seed0{ending}")
    monkeypatch.setattr(module, "_train", never)
    trial = next(t for t in read_experiment(write(ROWS)).trials if t.row == "recovered")
    taken = module.run_recipe(
        trial.recipe,
        corpus,
        tmp_path / "taken",
        dense=tmp_path / "runs" / "dense-seed0",
        trained=tmp_path / "runs" / "recovered-8-seed0",
    )
    assert taken.rows[0].perplexity_test == pytest.approx(alone.rows[0].perplexity_test, rel=0.05)
    assert taken.rows[0].stored_bytes == alone.rows[0].stored_bytes
