from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dopant.data import Corpus
from dopant.recipes.describing import model_name, report_trained, schedule
from dopant.recipes.read import recipe_from
from dopant.recipes.schema import Recipe
from dopant.reporting.report import Report

Tiny = Callable[..., Recipe]
Snapshot = Callable[[Path], dict[str, bytes]]


def test_a_model_has_the_name_of_a_size_only_with_its_sizes() -> None:
    found = [
        recipe_from({"model": model}).model for model in ("medium", {"size": "medium", "hidden": 8}, {"tied": True})
    ]
    assert [model_name(one) for one in found] == ["medium", "2×8", "2×200, tied"]


@pytest.mark.parametrize(
    ("training", "told"),
    [
        ({}, "times 0.5 an epoch after 4"),
        ({"constant_epochs": 13}, "held"),
        ({"decay": 1.0, "average_from": 0.45}, "held, weights averaged from 45% on"),
    ],
)
def test_the_protocol_tells_of_the_rate_and_of_means(training: dict[str, Any], told: str) -> None:
    recipe = recipe_from({"method": "dense", "training": {"tf32": True, **training}})
    assert schedule(recipe)["optimiser"].endswith(f"clip 5, {told}, in TensorFloat-32")


def test_a_model_that_is_there_is_only_evaluated(
    tiny: Tiny, corpus: Corpus, dense_run: tuple[Path, Report], snapshot: Snapshot
) -> None:
    folder, trained = dense_run
    before = snapshot(folder.parent)
    row = report_trained(tiny("dense", start="dense"), corpus, folder).rows[0]
    assert row.perplexity_test == trained.rows[0].perplexity_test
    assert (row.parameters, row.file_bytes) == (2 * 64 * 32, trained.rows[0].file_bytes)
    assert row.train_seconds is None
    assert snapshot(folder.parent) == before
