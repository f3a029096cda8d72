from __future__ import annotations

import base64
import re
from pathlib import Path

from dopant.benchmarking.page import headline, make_page, write_page
from dopant.benchmarking.record import Bench


def test_the_page_is_whole_and_loads_nothing(measured: Bench, tmp_path: Path) -> None:
    page = write_page(measured, tmp_path / "bench.html").read_text()
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "tiny &lt;b&gt;untrained&lt;/b&gt;" in page
    assert "<b>untrained" not in page
    data = re.findall(r'href="data:application/json;base64,([^"]+)"', page)
    assert Bench.model_validate_json(base64.b64decode(data[0])) == measured
    assert page.count("<svg") == 2 * 4  # each section in two widths
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert "dopant fast, 1 step, batch 1: 25.0 µs" in page
    assert make_page(measured) == page


def test_every_colour_that_is_used_is_defined(measured: Bench) -> None:
    """In the light scheme, the dark one, and in print."""
    page = make_page(measured)
    defined = re.findall(r"(--\w+): #", page)
    for colour in set(re.findall(r"var\((--\w+)\)", page)):
        assert defined.count(colour) >= 2, colour


def test_the_headline(measured: Bench) -> None:
    assert headline(measured) == (
        "1 step, batch 1 (LSTM alone, 1 thread, caches warm): dopant exact 100 µs, 10× as fast as the best opponent in "
        "float32, 3.0× as fast as the best opponent in int8; dopant fast 25.0 µs, 40× as fast as the best opponent in "
        "float32, 12× as fast as the best opponent in int8"
    )
    others = measured.model_copy(update={"rows": tuple(row for row in measured.rows if row.engine != "dopant")})
    assert headline(others).endswith("the fastest is ORT int8 with 300 µs")
    assert "dopant exact" not in make_page(others)
