"""The table of a benchmark for the terminal, at most 100 columns wide."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dopant.benchmarking.cells import (
    COLUMNS,
    Line,
    Section,
    Who,
    microseconds,
    present,
    sections,
    spread_words,
    times,
)
from dopant.benchmarking.record import STEPS, Bench
from dopant.reporting import words


def make_table(bench: Bench) -> RenderableType:
    """One table a section: a line a case, a column an engine, and how far ours are ahead of the best opponents."""
    parts: list[RenderableType] = []
    width = max((len(microseconds(row.median_us)) for row in bench.rows), default=0)
    for section in sections(bench):
        parts += [Text(f"{section}, µs", style="bold"), _table(section, present(bench), width), Text()]
    parts += [Text(line) for line in remarks(bench)]
    return Group(*parts)


def markdown(bench: Bench) -> str:
    """The same as Markdown."""
    engines = present(bench)
    heads = ["steps × batch"]
    for who in engines:
        heads += [COLUMNS[who], "vs fp32", "vs int8"] if who[0] == "dopant" else [COLUMNS[who]]
    blocks = []
    for section in sections(bench):
        lines = [heads, ["---:"] * len(heads), *(_cells(line, engines) for line in section.lines)]
        rows = "\n".join(f"| {' | '.join(cell.strip() for cell in cells)} |" for cells in lines)
        blocks.append(f"{section}, µs:\n\n{rows}")
    protocol = bench.protocol
    versions = (
        f"dopant {protocol.active}, torch {protocol.versions.torch}, ONNX Runtime {protocol.onnxruntime or 'absent'}"
    )
    where = f"{bench.machine.cpu}; commit {protocol.commit[:12]}"
    what = f"{protocol.model[:1].upper()}{protocol.model[1:]}. {versions}; {where}."
    return "\n\n".join([*blocks, " ".join([*remarks(bench), what])])


def _table(section: Section, engines: list[Who], width: int) -> Table:
    """Numbers are `width` characters wide in every section, so that columns stand under one another."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("steps ×\nbatch", justify="right", no_wrap=True, vertical="bottom")
    for who in engines:
        heading = COLUMNS[who].replace(" ", "\n")
        table.add_column(heading, justify="right", no_wrap=True, vertical="bottom", min_width=width)
        if who[0] == "dopant":
            for others in ("fp32", "int8"):
                table.add_column(f"vs\n{others}", justify="right", no_wrap=True, vertical="bottom", min_width=4)
    for line in section.lines:
        table.add_row(*_cells(line, engines))
    return table


def _cells(line: Line, engines: list[Who]) -> list[str]:
    cells = [f"{STEPS[line.case]} × {line.batch:<2}"]
    for who in engines:
        cells.append(microseconds(line.median(who)))
        if who[0] == "dopant":
            cells += [times(line.ahead(who, others)) for others in ("float32", "int8")]
    return cells


def remarks(bench: Bench) -> list[str]:
    """What stands under the tables: the spread, the memory, the limits, what was left out."""
    lines = [f"Medians; {spread_words(bench.rows)}."]
    if any(row.engine == "dopant" for row in bench.rows):
        lines.append("vs: times faster than the best opponent in float32 (fp32) and in int8.")
    for part in dict.fromkeys(held.part for held in bench.memory):
        found = [
            f"{COLUMNS[held.engine, held.precision]} {words.size(held.bytes)}"
            for held in bench.memory
            if held.part == part
        ]
        lines.append(f"Memory, {'LSTM alone' if part == 'lstm' else 'whole model'}: {', '.join(found)}.")
    if bench.limits is not None:
        read = ", ".join(f"{level} {speed:.0f}" for level, speed in bench.limits.bandwidth_gb_per_s.items())
        lines.append(f"Limits of the machine, 1 thread: reading {read} GB/s; {bench.limits.fma_gflops:.0f} GFLOP/s.")
        exact = [row for row in bench.rows if (row.precision, row.caches) == ("exact", "warm")]
        shares = [f"{row.median_us / row.limit_us:.1f}" for row in exact if row.limit_us]
        if shares:
            times = " to ".join(dict.fromkeys((min(shares, key=float), max(shares, key=float))))
            lines.append(f"dopant exact takes {times} times the limit (1 thread, warm).")
    return [*lines, *(f"Note: {note}." for note in bench.notes)]
