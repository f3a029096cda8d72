from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import matplotlib
import pytest

from dopant.reporting.svg import COLOURS, Picture, render, standalone


def paint(picture: Picture) -> None:
    axes = picture.figure.add_axes((0.1, 0.1, 0.8, 0.8))
    axes.plot([1, 2], [3, 4], marker="o", color=COLOURS["accent"], gid=picture.tip("a < b & c"))
    axes.text(1.5, 3.5, "costs $1 or $2 <b>", color=COLOURS["ink"])
    axes.fill_between([1, 2], [3, 3], color=COLOURS["faint"])


@pytest.fixture
def picture() -> str:
    return render(Picture("one", 400, 300, 'says "it" & <more>'), paint)


def test_it_is_well_formed(picture: str) -> None:
    assert ET.fromstring(picture).tag == "svg"


def test_two_runs_give_the_same_text(picture: str) -> None:
    assert render(Picture("one", 400, 300, 'says "it" & <more>'), paint) == picture


def test_the_users_settings_of_matplotlib_change_nothing(picture: str) -> None:
    with matplotlib.rc_context({"svg.fonttype": "path", "lines.linewidth": 9, "savefig.bbox": "tight"}):
        assert render(Picture("one", 400, 300, 'says "it" & <more>'), paint) == picture


def test_it_scales(picture: str) -> None:
    root = ET.fromstring(picture)
    assert root.get("viewBox") == "0 0 400 300"
    assert root.get("width") is None


def test_it_is_described(picture: str) -> None:
    root = ET.fromstring(picture)
    assert root.get("role") == "img"
    assert root.get("aria-label") == 'says "it" & <more>'


def test_colours_are_the_pages(picture: str) -> None:
    assert "var(--accent)" in picture
    assert not any(stand_in in picture for stand_in in COLOURS.values())


def test_text_is_text_in_the_pages_font(picture: str) -> None:
    assert "costs $1 or $2 &lt;b&gt;" in picture
    assert "DejaVu" not in picture
    assert "font-size" in picture


def test_tips_are_titles(picture: str) -> None:
    assert [title.text for title in ET.fromstring(picture).iter("title")] == ["a < b & c"]


def test_every_id_is_used_and_begins_with_the_pictures_name(picture: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', picture)
    used = re.findall(r"url\(#([^)]+)\)", picture) + re.findall(r'href="#([^"]+)"', picture)
    assert ids
    assert len(ids) == len(set(ids))
    assert set(ids) == set(used)
    assert all(name.startswith("one-") for name in ids)


def test_nothing_reaches_outside_the_picture(picture: str) -> None:
    assert "<style" not in picture
    assert "metadata" not in picture
    assert "http" not in picture


def test_alone_it_brings_the_pages_colours(picture: str) -> None:
    root = ET.fromstring(standalone(picture))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    style = root[0].text or ""
    for name in COLOURS:
        assert f"--{name}: #" in style
    assert "prefers-color-scheme: dark" in style
    assert [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")] == ["a < b & c"]
