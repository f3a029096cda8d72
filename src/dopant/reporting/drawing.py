"""Axes, lines and their labels, drawn alike in every picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from dopant.reporting.labels import apart
from dopant.reporting.svg import COLOURS, Picture

WIDE = 960
NARROW = 360
CHARACTER = 7.6  # pixels, an upper bound for the mean width of a label's letters
SMALL = 12.0  # pixels, ticks and captions
_TEXT = 13.0  # pixels, labels
_LINE = 17.0  # pixels from one label to the next


@dataclass(frozen=True)
class Mark:
    """A label and the point it belongs to, in pixels from the picture's lower left.

    `short` stands for `text` where that would not fit into the picture.
    """

    text: str
    short: str
    colour: str
    x: float
    y: float
    bold: bool = False

    def fitting(self, room: float) -> str:
        """What to write into so many pixels."""
        return self.text if CHARACTER * len(self.text) <= room else self.short


def make_axes(picture: Picture, left: float, right: float, top: float, bottom: float) -> Axes:
    """Axes with the given margins in pixels: faint horizontal lines, no frame."""
    box = (
        left / picture.width,
        bottom / picture.height,
        (picture.width - left - right) / picture.width,
        (picture.height - top - bottom) / picture.height,
    )
    axes: Axes = picture.figure.add_axes(box)
    axes.patch.set_visible(False)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(COLOURS["muted"])
    axes.tick_params(colors=COLOURS["muted"], labelsize=SMALL, length=0, which="both", pad=5)
    axes.grid(axis="y", color=COLOURS["faint"], linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def caption(picture: Picture, axes: Axes, above: str, below: str, lift: float = 20) -> None:
    """What the upright axis shows, `lift` pixels above it, and what the other shows, below."""
    box = axes.get_position()
    figure = picture.figure
    left, right = box.x0 - 40 / picture.width, box.x1
    top = box.y1 + lift / picture.height
    figure.text(left, top, above, size=_TEXT, color=COLOURS["ink"], ha="left", va="baseline")
    figure.text(right, box.y0 - 38 / picture.height, below, size=SMALL, color=COLOURS["muted"], ha="right")


def scale_perplexity(axes: Axes, values: Sequence[float | None], always_log: bool = False) -> None:
    """Limits around the values and plain numbers at the ticks; logarithmic if they span too much."""
    known = [value for value in values if value is not None and math.isfinite(value) and value > 0]
    if not known:
        return
    low, high = min(known), max(known)
    middle = (low + high) / 2  # differences below a per cent shall look as small as they are
    low, high = min(low, 0.99 * middle), max(high, 1.01 * middle)
    if always_log or high > 3 * low:
        margin = max((high / low) ** 0.06, 1.02)
        axes.set_yscale("log")
        axes.set_ylim(low / margin, high * margin)
        few = high / low < 4
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 6, 8) if few else (1, 2, 5), numticks=12))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.minorticks_off()
    else:
        margin = 0.08 * (high - low) or 0.05 * high
        axes.set_ylim(low - margin, high + margin)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}" if value < 1e4 else f"{value:.0e}"))


def draw_line(
    axes: Axes, picture: Picture, x: Sequence[float], y: Sequence[float], colour: str, tip: str, bold: bool
) -> None:
    """A line with a dot at its last value; NaN leaves a gap."""
    known = [index for index, value in enumerate(y) if not math.isnan(value)]
    axes.plot(
        x, y, color=COLOURS[colour], linewidth=2.2 if bold else 1.3, solid_capstyle="round", gid=picture.tip(tip),
        zorder=4 if bold else 3, marker="o", markersize=4.5, markevery=[known[-1]], clip_on=False,
    )  # fmt: skip


def label_points(axes: Axes, marks: Sequence[Mark]) -> None:
    """Labels right of the points in the left part, left of those in the right part, none over another."""
    box = axes.get_window_extent()
    middle = box.x0 + 0.6 * box.width
    width = axes.figure.bbox.width
    aligned = max((mark.x for mark in marks if mark.x < middle), default=box.x0) + 16
    labels = []  # (mark, x, side, wanted y)
    for mark in marks:
        if mark.x < middle:
            labels.append((mark, mark.x + 16 if aligned - mark.x > 90 else aligned, "left", mark.y))
        else:  # below the dashed line of the dense model
            labels.append((mark, mark.x + 6, "right", mark.y - 13))
    ends = [x + CHARACTER * len(mark.fitting(width - x)) for mark, x, side, _ in labels if side == "left"]
    starts = [x - CHARACTER * len(mark.fitting(x)) for mark, x, side, _ in labels if side == "right"]
    together = [labels] if max(ends, default=0.0) > min(starts, default=math.inf) else [
        [label for label in labels if label[2] == side] for side in ("left", "right")
    ]  # fmt: skip
    for group in together:
        places = apart([label[3] for label in group], _LINE, box.y0 + 8, box.y1 - 8)
        for (mark, x, side, _), y in zip(group, places, strict=True):
            _label(axes, mark, x, y, side)


def label_ends(axes: Axes, marks: Sequence[Mark]) -> None:
    """Labels right of the axes, at the height of the lines' ends, none over another."""
    box = axes.get_window_extent()
    indent = 20 if len(marks) < 4 else 38
    for mark, y in zip(marks, apart([mark.y for mark in marks], _LINE, box.y0, box.y1), strict=True):
        _label(axes, mark, box.x1 + indent, y, "left")


def _label(axes: Axes, mark: Mark, x: float, y: float, side: str) -> None:
    width = axes.figure.bbox.width
    if side == "left":
        axes.annotate(
            "", (mark.x + 6, mark.y), (x - 3, y), xycoords="figure pixels", textcoords="figure pixels",
            arrowprops={"arrowstyle": "-", "color": COLOURS[mark.colour], "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0},
            annotation_clip=False,
        )  # fmt: skip
    axes.annotate(
        mark.fitting(width - x if side == "left" else x),
        (x, y),
        xycoords="figure pixels",
        size=_TEXT if width > NARROW else SMALL,
        color=COLOURS[mark.colour],
        weight="bold" if mark.bold else "normal",
        ha=side,
        va="center_baseline",
        annotation_clip=False,
    )


def pixels(axes: Axes, x: float, y: float) -> tuple[float, float]:
    """Where (x, y) lies, in pixels from the picture's lower left; limits must be set before."""
    place = axes.transData.transform((x, y))
    return float(place[0]), float(place[1])
