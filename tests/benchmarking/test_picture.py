from __future__ import annotations

from dopant.benchmarking import cells
from dopant.benchmarking.picture import draw
from dopant.benchmarking.record import Bench


def test_a_legend_names_every_engine_below_the_cases(measured: Bench) -> None:
    section, engines = cells.sections(measured)[0], cells.present(measured)
    plain, named = (draw(section, engines, 960, "a", legend=legend) for legend in (False, True))
    for who in engines:
        assert f"● {cells.COLUMNS[who]}" in named
        assert f"● {cells.COLUMNS[who]}" not in plain
