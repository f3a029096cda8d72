from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from dopant.benchmarking import dopant_engines
from dopant.benchmarking.record import Bench
from dopant.benchmarking.run import Settings, bench
from dopant.errors import BenchError, InputError
from dopant.models.language_model import LanguageModel
from dopant.native import status
from dopant.runtime import torch_path
from dopant.runtime.torch_path import TorchLSTM, TorchStepper

FIELDS = {"engine", "precision", "part", "case", "batch", "threads", "caches", "median_us", "spread_us"}
OURS = {"engines": ("dopant", "torch"), "seconds": 0.001, "memory": False}


def test_rows_of_every_combination(model: LanguageModel) -> None:
    said: list[tuple[int, int, str]] = []
    settings = Settings(**OURS, batches=(1, 3))
    found = bench(
        model, settings, name="small", seed=5, command=["bench", "x"], listener=lambda *told: said.append(told)
    )
    data = json.loads(found.model_dump_json())
    assert {"rows", "limits", "machine", "protocol"} <= set(data)
    assert all(set(row) == FIELDS | {"rounds", "limit_us"} for row in data["rows"])
    keys = [tuple(row[name] for name in sorted(FIELDS - {"median_us", "spread_us"})) for row in data["rows"]]
    assert len(keys) == len(set(keys)) == 3 * 2 * 2 * 2 * 2
    assert all(row["median_us"] > 0 and row["rounds"] >= 5 for row in data["rows"])
    assert {(one["engine"], one["precision"]) for one in data["rows"]} == {
        ("dopant", "exact"),
        ("dopant", "fast"),
        ("torch", "float32"),
    }
    assert data["protocol"]["command"] == "dopant bench x"
    assert data["protocol"]["seed"] == 5
    assert data["protocol"]["active"] == status().active
    assert data["protocol"]["model"] == "small"
    assert data["machine"]["threads"] == 1
    assert said[0][0] == 0
    assert said[-1][:2] == (16, 16)
    assert Bench.model_validate_json(found.model_dump_json()) == found


def test_what_each_engine_deviates(model: LanguageModel) -> None:
    found = bench(model, Settings(**OURS, parts=("lstm",), cases=("step",), batches=(1,), caches=("warm",)))
    by_precision = {one.precision: one.relative for one in found.deviations}
    assert by_precision["float32"] == 0.0
    assert by_precision["exact"] is not None
    assert by_precision["exact"] < 1e-6
    assert by_precision["fast"] is not None
    assert by_precision["fast"] < 0.05


def test_an_engine_that_computes_something_else_is_not_timed(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(TorchLSTM):
        def sequence(self, x: Any, state: Any = None) -> Any:
            y, state = super().sequence(x, state)
            return 1.01 * y, state

    monkeypatch.setattr(dopant_engines, "library", lambda: None)
    monkeypatch.setattr(dopant_engines, "TorchLSTM", Wrong)
    with pytest.raises(BenchError, match=r"dopant exact differs from torch in float32 by 1\.0e-02 .*something else"):
        bench(model, Settings(**OURS))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batches": (1, 0)}, "batch must be 1 or more, got 0"),
        ({"threads": (0,)}, "threads must be 1 or more, got 0"),
        ({"parts": ("gru",)}, "part 'gru' is not known; choose of lstm, token"),
        ({"cases": ("walk",)}, "case 'walk' is not known; choose of step, sequence"),
        ({"caches": ("cold",)}, "caches 'cold' is not known; choose of warm, flushed"),
        ({"batches": ()}, "there is nothing to measure"),
        ({"seconds": 0.0}, "seconds is the time for a case, above 0"),
        ({"seconds": float("nan")}, "seconds is the time for a case, above 0"),
        ({"engines": ("tensorflow",)}, "engine 'tensorflow' is not known"),
    ],
)
def test_settings_that_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Settings(**given)


@pytest.mark.parametrize("wrong", [7.0, float("nan")])
def test_steps_are_held_to_torch_too(wrong: float, model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(TorchStepper):
        def step(self) -> Any:
            return np.full_like(super().step(), wrong)

    monkeypatch.setattr(dopant_engines, "library", lambda: None)
    monkeypatch.setattr(torch_path, "TorchStepper", Wrong)
    with pytest.raises(BenchError, match=r"dopant exact differs from torch in float32 by .*\(lstm, step, batch 1\)"):
        bench(model, Settings(**OURS))
