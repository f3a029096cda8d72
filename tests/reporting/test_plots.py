from __future__ import annotations

import itertools
import math
import re
import xml.etree.ElementTree as ET

import pytest

from dopant.reporting.drawing import NARROW, WIDE
from dopant.reporting.plots import (
    colours,
    loss_against_factor,
    path_contributions,
    perplexity_against_bytes,
    training_curves,
)
from dopant.reporting.report import CurvePoint, Report

WIDTHS = pytest.mark.parametrize("width", [WIDE, NARROW])


def texts(picture: str | None) -> list[str]:
    assert picture is not None
    return [element.text or "" for element in ET.fromstring(picture).iter("text")]


def places(picture: str | None, wanted: list[str]) -> list[float]:
    assert picture is not None
    return [float(e.get("y", "nan")) for e in ET.fromstring(picture).iter("text") if (e.text or "") in wanted]


def changed(report: Report, **changes: object) -> Report:
    return report.model_copy(update={"rows": tuple(row.model_copy(update=changes) for row in report.rows)})


def test_dense_and_the_best_stand_out(report: Report) -> None:
    chosen = colours(report)
    assert chosen[0] == "ink"
    assert [row.method for row, colour in zip(report.rows, chosen, strict=True) if colour == "accent"] == [
        "doped-kronecker"
    ]
    others = [colour for colour in chosen if colour.startswith("hue")]
    assert len(others) == len(set(others)) == 9


def test_more_rows_than_colours_still_get_one(report: Report) -> None:
    many = report.model_copy(update={"rows": report.rows * 3})
    assert len(colours(many)) == 33


def test_each_method_is_labelled_with_its_perplexity(report: Report) -> None:
    found = texts(perplexity_against_bytes(report, WIDE, "a"))
    for row in report.rows:
        assert f"{row.label} {row.perplexity_test:.2f}" in found


def test_a_narrow_picture_uses_the_short_names(report: Report) -> None:
    assert "doped-kronecker 42.40" in texts(perplexity_against_bytes(report, NARROW, "a"))
    assert "doped-kronecker" in texts(training_curves(report, NARROW, "a"))


def test_a_label_that_does_not_fit_gives_way_to_the_short_name(report: Report) -> None:
    long = report.rows[-1].model_copy(update={"label": "a long name, " * 12, "folder": "short"})
    many = report.model_copy(update={"rows": (*report.rows[:-1], long)})
    for picture, value in ((perplexity_against_bytes, f"{long.perplexity_test:.2f}"), (training_curves, "")):
        found = texts(picture(many, WIDE, "a"))
        assert any(text.startswith("short " + value) for text in found)
        assert not any(text.startswith("a long name") for text in found)
        assert any(text.startswith(report.rows[1].label) for text in found)  # the others keep theirs


@WIDTHS
def test_no_label_lies_on_another(width: int, report: Report) -> None:
    labels = [f"{name} {row.perplexity_test:.2f}" for row in report.rows for name in (row.label, row.folder)]
    found = sorted(places(perplexity_against_bytes(report, width, "a"), labels))
    assert len(found) == len(report.rows)
    left = [y for y in found if y != max(found)]  # dense, at the lower right
    assert all(b - a > 15 for a, b in itertools.pairwise(left))


def test_the_axes_say_what_they_show(report: Report) -> None:
    found = texts(perplexity_against_bytes(report, WIDE, "a"))
    assert "bytes of the LSTM weights, logarithmic scale" in found
    assert "test perplexity (lower is better)" in found
    assert {"1×", "10× fewer bytes", "100×", "1,000×", "100 kB", "1 MB"} <= set(found)


def test_points_have_tips(report: Report) -> None:
    picture = perplexity_against_bytes(report, WIDE, "a")
    assert picture is not None
    titles = [title.text or "" for title in ET.fromstring(picture).iter("title")]
    assert any("Doped Kronecker: 25.0× fewer parameters" in title for title in titles)
    assert len(titles) == len(report.rows)


def test_perplexities_far_apart_get_a_logarithmic_scale(report: Report) -> None:
    rows = (*report.rows[:5], report.rows[5].model_copy(update={"perplexity_test": 4000.0}))
    found = texts(perplexity_against_bytes(report.model_copy(update={"rows": rows}), WIDE, "a"))
    assert {"100", "1,000"} <= set(found)


def test_tiny_differences_look_tiny(report: Report) -> None:
    rows = tuple(row.model_copy(update={"perplexity_test": 76.0 + i / 1000}) for i, row in enumerate(report.rows[:3]))
    found = texts(perplexity_against_bytes(report.model_copy(update={"rows": rows}), WIDE, "a"))
    ticks = [float(text) for text in found if text.replace(".", "").isdigit()]
    assert max(ticks) - min(ticks) > 1


@WIDTHS
def test_what_was_not_measured_is_left_out(width: int, report: Report) -> None:
    rows = (report.rows[1].model_copy(update={"perplexity_test": None}), *report.rows[2:])
    found = texts(perplexity_against_bytes(report.model_copy(update={"rows": rows}), width, "a"))
    assert not any(text.startswith(("Pruning", "pruning")) for text in found)
    assert perplexity_against_bytes(changed(report, perplexity_test=None), width, "a") is None


@WIDTHS
def test_one_row_alone_can_be_drawn(width: int, report: Report) -> None:
    alone = report.model_copy(update={"rows": report.rows[:1]})
    assert perplexity_against_bytes(alone, width, "a")
    assert training_curves(alone, width, "a")


@WIDTHS
def test_curves_end_at_their_labels(width: int, report: Report) -> None:
    found = texts(training_curves(report, width, "a"))
    names = [text.split(" 4")[0].split(" 5")[0] for text in found]
    for row in report.rows:
        assert (row.label if width == WIDE else row.folder) in names


@WIDTHS
def test_curves_with_holes_and_of_one_epoch(width: int, report: Report) -> None:
    one = CurvePoint(epoch=1, tokens=1, train_perplexity=2.0, valid_perplexity=3.0)
    hole = CurvePoint(epoch=2, tokens=1, train_perplexity=None, valid_perplexity=None)
    assert "NaN" not in (training_curves(changed(report, curves=(one,)), width, "a") or "NaN")
    assert "NaN" not in (training_curves(changed(report, curves=(one, hole, one)), width, "a") or "NaN")
    assert training_curves(changed(report, curves=(hole,)), width, "a") is None
    assert training_curves(changed(report, curves=()), width, "a") is None


@WIDTHS
def test_paths_are_named(width: int, report: Report) -> None:
    doped = next(row for row in report.rows if row.paths)
    found = texts(path_contributions(doped, width, "a"))
    assert {"structure", "overlay", "both paths", "no overlay", "no structure"} <= set(found)
    assert path_contributions(report.rows[0], width, "a") is None


@WIDTHS
def test_paths_with_one_point_or_without_numbers(width: int, report: Report) -> None:
    doped = next(row for row in report.rows if row.paths)
    short = doped.model_copy(update={"paths": doped.paths[:1]})
    assert path_contributions(short, width, "a")
    nothing = {name: None for name in type(doped.paths[0]).model_fields if name != "step"}
    empty = doped.model_copy(update={"paths": tuple(point.model_copy(update=nothing) for point in doped.paths)})
    assert path_contributions(empty, width, "a")


@WIDTHS
def test_all_lines_lie_within_the_picture(width: int, report: Report) -> None:
    picture = training_curves(report, width, "a")
    assert picture is not None
    numbers = [float(x) for path in re.findall(r' d="([^"]+)"', picture) for x in re.findall(r"-?[\d.]+", path)]
    assert all(math.isfinite(number) and -10 <= number <= max(width, 440) + 10 for number in numbers)


def test_a_sweep_is_a_line_a_method(report: Report) -> None:
    dense, pruning, lmf, *_ = report.rows
    points = [
        row.model_copy(update={"parameter_factor": factor, "loss_percent": loss})
        for row in (pruning, lmf)
        for factor, loss in ((25.0, 7.9), (10.2, 1.0), (50.0, 20.0))
    ]
    picture = loss_against_factor(report.model_copy(update={"rows": (dense, *points)}), WIDE, "a")
    assert {pruning.label, lmf.label, "15×", "25×", "50×", "loss against dense"} <= set(texts(picture))
    assert f"{lmf.label}: 10.2× +1.0 %, 25.0× +7.9 %, 50.0× +20.0 %" in [
        element.text for element in ET.fromstring(picture or "").iter("title")
    ]
    assert loss_against_factor(report.model_copy(update={"rows": (dense,)}), WIDE, "a") is None
