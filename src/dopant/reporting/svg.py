"""Pictures as SVG that becomes part of an HTML page: text stays text, colours follow the page's scheme."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import matplotlib
import matplotlib.style
from matplotlib.figure import Figure

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"

COLOURS = {
    "ink": "#010102",
    "muted": "#010103",
    "faint": "#010104",
    "paper": "#010105",
    "accent": "#010106",
    **{f"hue{index}": f"#0102{index:02x}" for index in range(9)},
}
"""Names of colours that the page defines (as CSS variables), and what stands for them while drawing."""

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text as text: the reader's fonts, selectable, small
    "svg.hashsalt": "dopant",  # else each run names its clip paths anew
    "text.parse_math": False,  # a dollar in a label is a dollar
    "axes.unicode_minus": True,
}


@dataclass
class Picture:
    """A figure of `width` × `height` pixels while it is drawn.

    Args:
        name: unique on the page; every id in the picture begins with it.
        description: what it shows, for those who cannot see it.
        tips: text to show when the pointer rests on the artist with that gid.
    """

    name: str
    width: int
    height: int
    description: str
    figure: Figure = field(init=False)
    tips: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.figure = Figure(figsize=(self.width / 72, self.height / 72), dpi=72)
        self.figure.patch.set_visible(False)

    def tip(self, text: str) -> str:
        """A new gid whose artist shows `text` under the pointer."""
        gid = f"tip{len(self.tips)}"
        self.tips[gid] = text
        return gid


def render(picture: Picture, paint: Callable[[Picture], None]) -> str:
    """Paint the picture and return it as one <svg> element for a page that defines the colours.

    Equal pictures give equal text.
    """
    file = io.StringIO()
    with matplotlib.style.context("default"), matplotlib.rc_context(_SETTINGS):  # artists read it when made
        paint(picture)
        picture.figure.savefig(file, format="svg", metadata={"Date": None})
    return _inline(file.getvalue(), picture)


def standalone(picture: str) -> str:
    """A picture that `render` made as a file of its own, with the page's colours and its dark scheme."""
    root = ET.fromstring(picture)
    style = ET.Element("style")
    own = "text { font-family: system-ui, sans-serif; }\nsvg { background: var(--paper); }\n"
    style.text = f"\n{resource('colours.css')}{own}"
    root.insert(0, style)
    root.set("xmlns", _SVG.strip("{}"))
    return ET.tostring(root, encoding="unicode") + "\n"


def resource(name: str) -> str:
    """A file of `templates`."""
    return files("dopant.reporting").joinpath("templates", name).read_text(encoding="utf-8")


def _inline(text: str, picture: Picture) -> str:
    root = ET.fromstring(text)
    for parent in list(root.iter()):
        for child in list(parent):
            # a style sheet within would hold for the whole page, metadata points to places elsewhere
            if child.tag == f"{_SVG}metadata" or (
                child.tag == f"{_SVG}defs" and child.find(f"{_SVG}style") is not None
            ):
                parent.remove(child)
    used = {name for element in root.iter() for name in _references(element.attrib)}
    for element in root.iter():
        _relabel(element, picture, used)
        element.tag = element.tag.removeprefix(_SVG)
        element.text = element.text if element.tag in ("text", "tspan", "title") else None
        element.tail = "\n" if element.tag == "g" else None
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-label", picture.description)
    return ET.tostring(root, encoding="unicode").strip()


def _references(attributes: Mapping[str, str]) -> list[str]:
    linked = [value[1:] for key, value in attributes.items() if key == _HREF and value.startswith("#")]
    return linked + re.findall(r"url\(#([^)]+)\)", " ".join(attributes.values()))


def _relabel(element: ET.Element, picture: Picture, used: set[str]) -> None:
    """Ids that are unique on the page (and only those in use), tips, the page's colours and fonts, fewer digits."""
    own = element.attrib.pop("id", None)
    if own in used:
        element.set("id", f"{picture.name}-{own}")
    for key, value in list(element.attrib.items()):
        del element.attrib[key]
        if key == _HREF:
            element.set("href", f"#{picture.name}-{value[1:]}")
        elif key == "style":
            element.set(key, _restyle(value))
        elif not (key == "transform" and value.startswith("rotate(-0")):
            value = re.sub(r"url\(#([^)]+)\)", rf"url(#{picture.name}-\1)", value)
            shortened = key in ("d", "x", "y", "width", "height", "transform")
            element.set(key, re.sub(r"-?\d+\.\d+", _shorten, value).strip() if shortened else value)
    if own in picture.tips:
        title = ET.Element("title")
        title.text = picture.tips[own]
        element.insert(0, title)


def _restyle(value: str) -> str:
    """Colours by name; the size and weight of a font, but not its family."""
    for name, stand_in in COLOURS.items():
        value = value.replace(stand_in, f"var(--{name})")
    value = re.sub(r"font: (?:(\w+) )?([\d.]+px) [^;]*", r"font-weight: \1; font-size: \2", value)
    return re.sub(r"font-family: [^;]*;? ?|font-weight: ; ", "", value)


def _shorten(found: re.Match[str]) -> str:
    return f"{float(found[0]):.2f}".rstrip("0").rstrip(".")
