"""A benchmark as one HTML file that opens anywhere: no script, no request to the network, its data within."""

from __future__ import annotations

import base64
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from dopant.benchmarking import cells
from dopant.benchmarking.picture import HUES, draw
from dopant.benchmarking.record import Bench
from dopant.benchmarking.table import remarks
from dopant.reporting import words
from dopant.reporting.drawing import NARROW, WIDE
from dopant.reporting.writing import write_text


def write_page(bench: Bench, path: str | Path) -> Path:
    """Write the page, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    return write_text(path, make_page(bench))


def make_page(bench: Bench) -> str:
    """The page as text; equal benchmarks give equal pages."""
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    engines = cells.present(bench)
    drawn = [
        (section, *(Markup(draw(section, engines, width, f"s{number}-{width}")) for width in (WIDE, NARROW)))
        for number, section in enumerate(cells.sections(bench))
    ]
    template = environment.from_string(_text("dopant.benchmarking", "bench.html"))
    return template.render(
        bench=bench,
        protocol=bench.protocol,
        cells=cells,
        engines=engines,
        hues=HUES,
        drawn=drawn,
        lede=headline(bench),
        remarks=remarks(bench),
        style=Markup(_text("dopant.reporting", "colours.css") + _text("dopant.reporting", "page.css")),
        run=_what_was_run(bench),
        data=base64.b64encode(bench.model_dump_json(indent=1).encode()).decode(),
    )


def headline(bench: Bench) -> str:
    """Where ours stands in the first case, in a sentence."""
    section = cells.sections(bench)[0]
    line = section.lines[0]
    ours = [who for who in cells.present(bench) if who[0] == "dopant"]
    what = f"{cells.case_words(line.case, line.batch)} ({section})"
    if not ours:
        best = min(line.rows.values(), key=lambda row: row.median_us)
        label = cells.COLUMNS[best.engine, best.precision]
        return f"{what}: the fastest is {label} with {cells.microseconds(best.median_us)} µs"
    parts = []
    for who in ours:
        against = [
            f"{cells.times(ahead)} as fast as the best opponent in {others}"
            for others in ("float32", "int8")
            if (ahead := line.ahead(who, others)) is not None
        ]
        parts.append(
            f"{cells.COLUMNS[who]} {cells.microseconds(line.median(who))} µs" + "".join(f", {a}" for a in against)
        )
    return f"{what}: " + "; ".join(parts)


def _what_was_run(bench: Bench) -> list[tuple[str, str]]:
    protocol, machine, versions = bench.protocol, bench.machine, bench.protocol.versions
    runtime = f", onnxruntime {protocol.onnxruntime}" if protocol.onnxruntime else ""
    rows = [
        ("Model", protocol.model),
        ("Sizes", f"{protocol.layers} layers of hidden {protocol.hidden}, vocabulary {protocol.vocabulary:,}"),
        ("Sequence", f"{protocol.steps} time steps in one call"),
        ("Warm", "right after as many untimed calls of the same engine; the engines take turns in random order"),
        ("Flushed", f"{words.size(protocol.flushed_bytes)} are written before each timed call"),
        ("Time", f"median of the rounds, {protocol.seconds_a_case:g} s a case"),
        ("Our path", protocol.active),
        ("Seed", str(protocol.seed)),
        ("Commit", protocol.commit + (", with uncommitted changes" if protocol.dirty else "")),
        ("Versions", f"dopant {versions.dopant}, Python {versions.python}, torch {versions.torch}{runtime}"),
        (
            "Machine",
            f"{machine.cpu}, {machine.cores} cores, {words.size(machine.memory_bytes)} of memory, {machine.os}",
        ),
        ("Begun", protocol.time),
        ("Took", words.duration(protocol.seconds)),
    ]
    return [(name, value) for name, value in rows if value]


def _text(package: str, name: str) -> str:
    return files(package).joinpath("templates", name).read_text(encoding="utf-8")
