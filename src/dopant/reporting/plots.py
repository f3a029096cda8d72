"""The pictures of a report: perplexity against bytes, training curves, and what each path contributes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from dopant.reporting import words
from dopant.reporting.drawing import (
    CHARACTER,
    NARROW,
    SMALL,
    Mark,
    caption,
    draw_line,
    label_ends,
    label_points,
    make_axes,
    pixels,
    scale_perplexity,
)
from dopant.reporting.report import PathPoint, Report, Row
from dopant.reporting.svg import COLOURS, Picture, render

_FACTORS = (1, 2, 3, 5, 10, 15, 20, 25, 30, 40, 50, 70, 100, 150, 200, 300, 500, 700, 1000)  # ticks
_HUES = [name for name in COLOURS if name.startswith("hue")]


def colours(report: Report) -> list[str]:
    """A colour a row: ink for dense, the accent for the best, one hue after another for the rest."""
    chosen, others = [], 0
    for row in report.rows:
        if row.dense:
            chosen.append("ink")
        elif row is report.best:
            chosen.append("accent")
        else:
            chosen.append(_HUES[others % len(_HUES)])
            others += 1
    return chosen


def perplexity_against_bytes(report: Report, width: int, name: str) -> str | None:
    """All methods: bytes of the weights in scope (logarithmic) and test perplexity; None if nothing was measured."""
    points = [
        (row, colour, float(row.stored_bytes), row.perplexity_test)
        for row, colour in zip(report.rows, colours(report), strict=True)
        if row.perplexity_test is not None and row.stored_bytes > 0
    ]
    if not points:
        return None
    scope = words.the_scope(report.protocol)
    picture = Picture(name, width, 440, f"Perplexity against the bytes of {scope}: " + _spoken(report))

    def paint(picture: Picture) -> None:
        axes = make_axes(picture, left=44, right=12, top=64, bottom=52)
        sizes, heights = [point[2] for point in points], [point[3] for point in points]
        axes.set_xscale("log")
        axes.set_xlim(min(sizes) / 1.9, max(sizes) * 1.9)
        scale_perplexity(axes, heights)
        axes.xaxis.set_major_locator(LogLocator(numticks=8))
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda value, _: words.size(value).replace(".00", "").replace(".0 ", " "))
        )
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="x", which="both", length=3)
        caption(picture, axes, "test perplexity (lower is better)", f"bytes of {scope}, logarithmic scale", lift=46)
        dense = report.dense
        if dense is not None:
            _mark_factors(axes, dense.stored_bytes)
            if dense.perplexity_test is not None:
                axes.axhline(dense.perplexity_test, color=COLOURS["muted"], linewidth=0.9, dashes=(4, 3))
        for row, colour, size, height in points:
            axes.plot(
                [size],
                [height],
                marker="o",
                markersize=9 if row is report.best or row.dense else 7.5,
                color=COLOURS[colour],
                markeredgecolor=COLOURS["paper"],
                markeredgewidth=1.2,
                zorder=3,
                gid=picture.tip(words.summary(row, report)),
            )
        marks = [
            Mark(
                f"{_name(row, width)} {words.perplexity(height)}",
                f"{row.folder} {words.perplexity(height)}",
                colour,
                *pixels(axes, size, height),
                row is report.best,
            )
            for row, colour, size, height in points
        ]
        label_points(axes, marks)

    return render(picture, paint)


def training_curves(report: Report, width: int, name: str) -> str | None:
    """Perplexity of the validation split after each epoch, logarithmic; None without curves."""
    drawn = [
        (row, colour)
        for row, colour in zip(report.rows, colours(report), strict=True)
        if any(point.valid_perplexity is not None for point in row.curves)
    ]
    if not drawn:
        return None
    picture = Picture(name, width, 420, "Validation perplexity after each epoch, one line a method.")

    def paint(picture: Picture) -> None:
        longest = max(len(_name(row, width)) for row, _ in drawn) + (5 if width > NARROW else 0)
        axes = make_axes(picture, left=44, right=min(45 + CHARACTER * longest, 0.47 * width), top=40, bottom=48)
        ends = []
        for row, colour in drawn:
            epochs = [point.epoch for point in row.curves]
            values = [_number(point.valid_perplexity) for point in row.curves]
            draw_line(axes, picture, epochs, values, colour, words.summary(row, report), row is report.best)
            end = next(i for i in reversed(range(len(values))) if not math.isnan(values[i]))
            shown = "" if width == NARROW else f" {words.perplexity(values[end], 1)}"
            names = (_name(row, width) + shown, row.folder + shown)
            ends.append((names, values[end], colour, epochs[end], row is report.best))
        epochs = [point.epoch for row, _ in drawn for point in row.curves]
        axes.set_xlim(min(epochs), max(max(epochs), min(epochs) + 1))
        everything = [_number(point.valid_perplexity) for row, _ in drawn for point in row.curves]
        scale_perplexity(axes, everything, always_log=True)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        caption(picture, axes, "validation perplexity, logarithmic scale", "epoch")
        marks = [Mark(*names, colour, *pixels(axes, epoch, value), bold) for names, value, colour, epoch, bold in ends]
        label_ends(axes, marks)

    return render(picture, paint)


def loss_against_factor(report: Report, width: int, name: str) -> str | None:
    """Methods at several factors, one line a method; None where nothing was measured against a dense model."""
    counted = "parameters" if report.protocol.count == "parameters" else "bytes"
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in report.rows:
        factor = row.parameter_factor if counted == "parameters" else row.byte_factor
        if not row.dense and factor is not None and row.loss_percent is not None:
            lines.setdefault(row.label, []).append((factor, row.loss_percent))
    if not lines:
        return None
    picture = Picture(name, width, 420, f"Loss of perplexity against the factor by {counted}, one line a method.")

    def paint(picture: Picture) -> None:
        axes = make_axes(
            picture, left=60, right=min(45 + CHARACTER * max(map(len, lines)), 0.47 * width), top=40, bottom=48
        )
        everything = [point for line in lines.values() for point in line]
        factors, losses = [point[0] for point in everything], [point[1] for point in everything]
        axes.set_xscale("log")
        axes.set_xlim(min(factors) / 1.05, max(factors) * 1.05)
        low, high = min(0.0, *losses), max(0.0, *losses)
        margin = 0.08 * (high - low) or 1.0
        axes.set_ylim(low - margin, high + margin)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: words.percent(value).replace(".0 ", " ")))
        ticks = [tick for tick in _FACTORS if min(factors) / 1.05 <= tick <= max(factors) * 1.05]
        axes.set_xticks(ticks, [f"{tick}×" for tick in ticks])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.axhline(0.0, color=COLOURS["muted"], linewidth=0.9, dashes=(4, 3))
        ends = []
        for number, (label, points) in enumerate(lines.items()):
            points.sort()
            colour = "accent" if number == 0 else _HUES[(number - 1) % len(_HUES)]
            told = f"{label}: " + ", ".join(f"{words.factor(x)} {words.percent(y)}" for x, y in points)
            xs, ys = [x for x, _ in points], [y for _, y in points]
            draw_line(axes, picture, xs, ys, colour, told, bold=number == 0)
            axes.plot(xs, ys, marker="o", markersize=4.5, linestyle="none", color=COLOURS[colour], zorder=4)
            ends.append((label, colour, *points[-1], number == 0))
        caption(picture, axes, "loss against dense", f"times fewer {counted} ({words.scope(report.protocol)})")
        label_ends(axes, [Mark(label, label, colour, *pixels(axes, x, y), bold) for label, colour, x, y, bold in ends])

    return render(picture, paint)


def path_contributions(row: Row, width: int, name: str) -> str | None:
    """Of one doped row: the size of each path, and perplexity with either switched off; None if not logged."""
    points = row.paths
    if not points:
        return None
    picture = Picture(name, width, 300 if width > NARROW else 580, f"{row.label}: {words.path_summary(row)}")
    steps = [point.step for point in points]

    def panel(axes: Axes, title: str, lines: Sequence[tuple[str, str, Callable[[PathPoint], float | None]]]) -> None:
        everything = []
        ends = []
        for label, colour, value in lines:
            values = [_number(value(point)) for point in points]
            known = [index for index, one in enumerate(values) if not math.isnan(one)]
            if known:
                draw_line(axes, picture, steps, values, colour, f"{row.label}, {label}", bold=True)
                ends.append((label, colour, steps[known[-1]], values[known[-1]]))
                everything += values
        axes.set_xlim(min(steps), max(max(steps), min(steps) + 1))
        if title.startswith("size"):
            axes.set_ylim(0, 1.08 * max((one for one in everything if not math.isnan(one)), default=1.0))
        else:
            scale_perplexity(axes, everything, always_log=True)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        caption(picture, axes, title, "step")
        label_ends(axes, [Mark(label, label, colour, *pixels(axes, x, y)) for label, colour, x, y in ends])

    def paint(picture: Picture) -> None:
        if width > NARROW:
            first = make_axes(picture, left=44, right=width / 2 + 110, top=40, bottom=48)
            second = make_axes(picture, left=width / 2 + 54, right=140, top=40, bottom=48)
        else:
            first = make_axes(picture, left=44, right=112, top=40, bottom=338)
            second = make_axes(picture, left=44, right=112, top=330, bottom=48)
        _shade_density(first, points)
        panel(
            first,
            "size of each path (Frobenius norm)",
            [
                ("structure", "accent", lambda point: point.structure_norm),
                ("overlay", "hue0", lambda point: point.overlay_norm),
            ],
        )
        panel(
            second,
            "perplexity with one switched off",
            [
                ("both paths", "ink", lambda point: point.valid_perplexity),
                ("no overlay", "accent", lambda point: point.valid_without_overlay),
                ("no structure", "hue0", lambda point: point.valid_without_structure),
            ],
        )

    return render(picture, paint)


def _name(row: Row, width: int) -> str:
    """A row's name where there is room for it, else the short one of the command line."""
    return row.label if width > NARROW else row.folder


def _mark_factors(axes: Axes, dense_bytes: int) -> None:
    """A faint upright line at each 1×, 10×, 100× fewer bytes."""
    low, high = axes.get_xlim()
    for power in range(5):
        place = dense_bytes / 10**power
        if low < place < high:
            axes.axvline(place, color=COLOURS["faint"], linewidth=0.8, zorder=0)
            text = f"{10**power:,}×" + (" fewer bytes" if power == 1 else "")
            axes.annotate(
                text,
                (place, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 6),
                textcoords="offset points",
                size=SMALL,
                color=COLOURS["muted"],
                ha="center",
            )


def _shade_density(axes: Axes, points: Sequence[PathPoint]) -> None:
    """The overlay's density as a grey area, full height at 100 %."""
    density = [_number(point.density) for point in points]
    known = [index for index, value in enumerate(density) if not math.isnan(value)]
    if not known:
        return
    twin: Axes = axes.twinx()
    twin.set_zorder(axes.get_zorder() - 1)
    twin.set_ylim(0, 1.08)
    twin.set_axis_off()
    twin.fill_between([point.step for point in points], density, color=COLOURS["faint"], linewidth=0, alpha=0.6)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _spoken(report: Report) -> str:
    return "; ".join(
        f"{row.label} {words.perplexity(row.perplexity_test)} at {words.size(row.stored_bytes)}" for row in report.rows
    )
