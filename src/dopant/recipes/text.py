"""YAML as recipes use it: plain data with the place of every key; no aliases, tags, duplicates or surprises.

Scalars follow YAML 1.2: `1e-3` is a number, and `yes`, `on` or `12:30` are text.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 32

_TAG = "tag:yaml.org,2002:"
_SCALARS = (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?[0-9]+$", list("-+0123456789")),
    (
        "float",
        r"^[-+]?(?:(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$",
        list("-+.0123456789"),
    ),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012  # PyYAML's way to replace its YAML 1.1 rules


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012


for _name, _expression, _first in _SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_TAG + _name, re.compile(_expression), _first)


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # YAML 1.1 folds these as line breaks unless they are escaped, and only double quotes escape
    style = '"' if any(mark in text for mark in "\x85\u2028\u2029") else None
    return dumper.represent_scalar(_TAG + "str", text, style=style)


_Dumper.add_representer(str, _represent_text)

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, order=True)
class Mistake:
    """Something wrong in a recipe.

    Args:
        line: 1-based, 0 where there is none.
        place: "file:line" or the override.
        key: dotted, "" for the whole.
        text: what was got, what was needed, a way out.
    """

    line: int
    place: str
    key: str
    text: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, self.key, self.text) if part)


@dataclass
class Document:
    """Data read from YAML, where each part of it stands, and what is wrong with it as YAML."""

    name: str
    data: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def mistake(self, line: int, path: KeyPath, text: str) -> None:
        """Note a mistake in the text."""
        place = f"{self.name}:{line}" if line else self.name
        self.mistakes.append(Mistake(line, place, dotted(path), text))


def dotted(path: KeyPath) -> str:
    """("training", "epochs") -> "training.epochs"."""
    return ".".join(map(str, path))


def read_yaml(text: str, name: str) -> Document:
    """Read one document; whatever is wrong is in the document's `mistakes`."""
    document = Document(name)
    if len(text) > MAX_CHARACTERS:
        document.mistake(0, (), f"a recipe has at most {MAX_CHARACTERS:,} characters, got {len(text):,}")
        return document
    try:
        if _check_events(text, document):
            loader = _Loader(text)
            node = loader.get_single_node()
            document.data = None if node is None else _data(node, (), document)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        document.mistake(mark.line + 1 if mark else 0, (), f"not valid YAML: {error.problem or error.context}")
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        document.mistake(line, (), f"not valid YAML: the character {chr(int(error.character))!r} is not allowed")
    return document


def write_yaml(data: Any) -> str:
    """Plain data as YAML that `read_yaml` reads back as the same, keys in their order."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _check_events(text: str, document: Document) -> bool:
    """Refuse what plain data does not need before anything is built from it."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                document.mistake(line, (), "a recipe is one document; a second one begins here")
                return False
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            document.mistake(line, (), "anchors and aliases are not allowed in a recipe; write the value out")
        elif (tag := getattr(event, "tag", None)) is not None:
            document.mistake(line, (), f"the tag {tag!r} is not allowed in a recipe; write plain values")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            document.mistake(line, (), f"nested more than {MAX_DEPTH} deep; no recipe needs that")
            return False
    return not document.mistakes


def _data(node: yaml.Node, path: KeyPath, document: Document) -> Any:
    document.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, document)
    if isinstance(node, yaml.SequenceNode):
        return [_data(item, (*path, i), document) for i, item in enumerate(node.value)]
    return _scalar(node, path, document)


def _mapping(node: yaml.MappingNode, path: KeyPath, document: Document) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = key_node.value
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _TAG + "str":
            shown = key if isinstance(key, str) else "a collection"
            document.mistake(line, path, f"keys are text, got {shown}; put it in quotes if it is meant so")
            continue
        if key in data:
            first = document.lines[(*path, key)]
            document.mistake(line, (*path, key), f"given twice, first in line {first}; keep one of the two")
            continue
        document.lines[(*path, key)] = line
        data[key] = _data(value_node, (*path, key), document)
    return data


def _scalar(node: yaml.Node, path: KeyPath, document: Document) -> Any:
    kind, text = node.tag.removeprefix(_TAG), node.value
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        try:
            return int(text)
        except ValueError:  # Python refuses to convert thousands of digits
            document.mistake(node.start_mark.line + 1, path, f"a number of {len(text)} digits is too long")
            return None
    if kind == "float":
        number = float(re.sub(r"\.(inf|nan)", r"\1", text.lower()))
        if not math.isfinite(number):
            document.mistake(node.start_mark.line + 1, path, f"numbers in a recipe are finite, got {text}")
        return number
    return text
