"""A benchmark as cells: which engines stand side by side, and by how much ours are ahead. Table and page share it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dopant.benchmarking.record import STEPS, Bench, Caches, CaseName, Part, Row

Who = tuple[str, str]
"""Engine and precision."""

COLUMNS: dict[Who, str] = {
    ("torch", "float32"): "torch",
    ("torch-int8", "int8"): "torch int8",
    ("onnxruntime", "float32"): "ORT",
    ("onnxruntime-int8", "int8"): "ORT int8",
    ("dopant", "exact"): "dopant exact",
    ("dopant", "fast"): "dopant fast",
}
"""What the engines are called in tables and pictures, in their order; ORT is ONNX Runtime."""

PART_WORDS: dict[Part, str] = {"lstm": "LSTM alone", "token": "whole token"}
CACHES_WORDS: dict[Caches, str] = {"warm": "caches warm", "flushed": "caches flushed"}


@dataclass(frozen=True)
class Line:
    """One case: what each engine took."""

    case: CaseName
    batch: int
    rows: dict[Who, Row]

    def median(self, who: Who) -> float | None:
        """Microseconds."""
        row = self.rows.get(who)
        return None if row is None else row.median_us

    def ahead(self, who: Who, others: str) -> float | None:
        """How many times faster `who` is than the best opponent of a precision, float32 or int8."""
        mine = self.median(who)
        theirs = [row.median_us for (name, precision), row in self.rows.items() if precision == others]
        return None if mine is None or not theirs else min(theirs) / mine


@dataclass(frozen=True)
class Section:
    """The cases of one part, number of threads and state of the caches."""

    part: Part
    threads: int
    caches: Caches
    lines: tuple[Line, ...]

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        return f"{PART_WORDS[self.part]}, {threads}, {CACHES_WORDS[self.caches]}"


def sections(bench: Bench) -> list[Section]:
    """The rows in their order, put together."""
    found: dict[tuple[Part, int, Caches], dict[tuple[CaseName, int], dict[Who, Row]]] = {}
    for row in bench.rows:
        cases = found.setdefault((row.part, row.threads, row.caches), {})
        cases.setdefault((row.case, row.batch), {})[row.engine, row.precision] = row
    return [
        Section(part, threads, caches, tuple(Line(case, batch, rows) for (case, batch), rows in cases.items()))
        for (part, threads, caches), cases in found.items()
    ]


def present(bench: Bench) -> list[Who]:
    """The engines that ran, in the order of `COLUMNS`."""
    ran = {(row.engine, row.precision) for row in bench.rows}
    return [who for who in COLUMNS if who in ran]


def case_words(case: CaseName, batch: int) -> str:
    """``35 steps, batch 8``."""
    return f"{STEPS[case]} step{'s' * (STEPS[case] > 1)}, batch {batch}"


def microseconds(number: float | None) -> str:
    """``72.5``, ``1,899``; seconds from one on: ``1.24 s``."""
    if number is None:
        return "–"
    if number >= 999_999.5:
        return f"{number / 1e6:.2f} s"
    return f"{number:,.{1 if number < 99.95 else 0}f}"


def times(number: float | None) -> str:
    """``5.8×``, ``18×``."""
    if number is None:
        return "–"
    return f"{number:,.{2 if number < 0.995 else 1 if number < 9.95 else 0}f}×"


def half_spread(row: Row) -> str:
    """Half the distance between the quartiles in per cent of the median: ``3``."""
    return f"{50.0 * row.spread_us / row.median_us:.0f}" if row.median_us else "–"


def spread_words(rows: Iterable[Row]) -> str:
    """How far the rounds lie apart, in one clause."""
    shares = sorted(100.0 * row.spread_us / row.median_us for row in rows if row.median_us)
    if not shares:
        return "nothing was timed"
    middle = shares[len(shares) // 2]
    return f"the quartiles are {middle:.0f} % of the median apart in a typical case, {shares[-1]:.0f} % in the worst"
