"""The picture of a benchmark: a line a case, a dot an engine, time on a logarithmic scale."""

from __future__ import annotations

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from dopant.benchmarking.cells import COLUMNS, Section, Who, case_words, microseconds
from dopant.benchmarking.record import STEPS
from dopant.reporting.drawing import NARROW, SMALL, make_axes
from dopant.reporting.svg import COLOURS, Picture, render

HUES: dict[Who, str] = {
    ("torch", "float32"): "hue6",
    ("torch-int8", "int8"): "hue2",
    ("onnxruntime", "float32"): "hue0",
    ("onnxruntime-int8", "int8"): "hue1",
    ("dopant", "exact"): "ink",
    ("dopant", "fast"): "accent",
}
_LINE = 34.0  # pixels
_LEGEND = 24


def draw(section: Section, engines: list[Who], width: int, name: str, *, legend: bool = False) -> str:
    """The section as one <svg> element; what the colours mean shows the page, or a legend below."""
    labels = [
        f"{STEPS[line.case]} × {line.batch}" if width <= NARROW else case_words(line.case, line.batch)
        for line in section.lines
    ]
    height = round(64 + _LINE * len(labels)) + _LEGEND * legend
    picture = Picture(name, width, height, f"Time of each engine: {section}")

    def paint(picture: Picture) -> None:
        axes = make_axes(picture, left=140 if width > NARROW else 60, right=16, top=8, bottom=48 + _LEGEND * legend)
        known = [row.median_us for line in section.lines for row in line.rows.values()]
        axes.set_xscale("log")
        axes.set_xlim(min(known) / 1.3, max(known) * 1.3)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_yticks(range(len(labels)), labels)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if width > NARROW else (1,), numticks=12))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        box = axes.get_position()
        picture.figure.text(
            box.x1,
            (8 + _LEGEND * legend) / picture.height,
            "µs, logarithmic scale; left is faster",
            size=SMALL,
            color=COLOURS["muted"],
            ha="right",
        )
        for number, who in enumerate(engines if legend else ()):
            at = (box.x0 + (box.x1 - box.x0) * number / len(engines), 8 / picture.height)
            picture.figure.text(*at, f"● {COLUMNS[who]}", size=SMALL, color=COLOURS[HUES[who]])
        for place, line in enumerate(section.lines):
            for who in engines:
                row = line.rows.get(who)
                if row is None:
                    continue
                axes.plot(
                    [row.median_us], [place], marker="o", markersize=9 if who[0] == "dopant" else 7.5,
                    color=COLOURS[HUES[who]], linestyle="none", zorder=4 if who[0] == "dopant" else 3, clip_on=False,
                    gid=picture.tip(f"{COLUMNS[who]}, {labels[place]}: {microseconds(row.median_us)} µs"),
                )  # fmt: skip

    return render(picture, paint)
