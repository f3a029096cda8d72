from __future__ import annotations

import pytest
from rich.console import Console

from dopant.benchmarking.cells import microseconds, sections, times
from dopant.benchmarking.record import Bench
from dopant.benchmarking.table import make_table


def shown(bench: Bench, width: int = 100) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(make_table(bench))
    return console.export_text()


def test_a_table_of_all_engines_fits_a_hundred_columns(measured: Bench) -> None:
    text = shown(measured)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert "…" not in text
    assert "LSTM alone, 1 thread, caches warm, µs" in lines
    first = next(line for line in lines if line.lstrip().startswith("1 × 1 "))
    assert first.split() == ["1", "×", "1", "4,000", "500", "1,000", "300", "100", "10×", "3.0×", "25.0", "40×", "12×"]
    last = next(line for line in lines if line.startswith("35 × 32"))
    assert "3.84 s" in last
    ends = {line.rstrip().__len__() for line in lines if "×" in line and line.rstrip().endswith("×")}
    assert len(ends) == 1  # in all sections columns stand under one another
    assert "dopant exact takes 2.0 to 1920.0 times the limit" in text.replace(",", "")
    assert "Note: something is left out." in text


def test_without_ours_there_is_nothing_to_compare(measured: Bench) -> None:
    text = shown(measured.model_copy(update={"rows": tuple(r for r in measured.rows if r.engine != "dopant")}))
    assert "vs" not in text
    assert "dopant" not in text


def test_ahead_is_against_the_best_of_a_precision(measured: Bench) -> None:
    line = sections(measured)[0].lines[0]
    assert line.ahead(("dopant", "exact"), "float32") == 10.0
    assert line.ahead(("dopant", "fast"), "int8") == 12.0
    assert line.ahead(("nobody", "exact"), "int8") is None


@pytest.mark.parametrize(
    ("number", "text"),
    [(7.249, "7.2"), (99.94, "99.9"), (99.96, "100"), (1899.4, "1,899"), (1_126_351.0, "1.13 s"), (None, "–")],
)
def test_microseconds(number: float | None, text: str) -> None:
    assert microseconds(number) == text


@pytest.mark.parametrize(("number", "text"), [(0.5, "0.50×"), (5.84, "5.8×"), (17.6, "18×"), (None, "–")])
def test_times(number: float | None, text: str) -> None:
    assert times(number) == text
