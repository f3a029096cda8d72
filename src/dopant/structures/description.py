"""Structures as JSON and back: `{"kind": "low_rank", "rank": 34}`. Files and plans speak this."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from dopant.errors import FileError, InputError, KindError
from dopant.structures.base import KINDS, OMITTED, Structure

_MAX_DEPTH = 16
_MAX_INT = 2**48


def describe(structure: Structure) -> dict[str, Any]:
    """The structure as JSON-ready data."""
    described: dict[str, Any] = {"kind": structure.kind}
    for field in fields(structure):  # type: ignore[arg-type]  # every structure is a dataclass
        value = getattr(structure, field.name)
        if value != field.default or not field.metadata.get(OMITTED):
            described[field.name] = _encode(value)
    return described


def structure_from(data: Any) -> Structure:
    """The structure that `describe` told of.

    Raises:
        KindError: the kind is not registered.
        FileError: anything else is wrong with the description.
    """
    return _structure_from(data, 0)


def _structure_from(data: Any, depth: int) -> Structure:
    if depth > _MAX_DEPTH:
        raise FileError(f"a structure is nested more than {_MAX_DEPTH} deep; no structure of ours needs that")
    if not isinstance(data, dict) or not isinstance(data.get("kind"), str):
        raise FileError(f"a structure must be an object with a 'kind', got {str(data)[:80]}")
    cls = KINDS.get(data["kind"])
    if cls is None:
        raise KindError(f"structure kind {data['kind'][:40]!r} is unknown; known are {', '.join(sorted(KINDS))}")
    names = {field.name for field in fields(cls)}  # type: ignore[arg-type]
    required = {f.name for f in fields(cls) if f.default is f.default_factory}  # type: ignore[arg-type]
    given = set(data) - {"kind"}
    if not required <= given <= names:
        raise FileError(
            f"structure {data['kind']!r} needs {', '.join(sorted(required)) or 'nothing'}, "
            f"got {', '.join(sorted(map(str, given)))[:200] or 'nothing'}"
        )
    try:
        structure = cls(**{name: _decode(data[name], depth) for name in given})
        if describe(structure) != {**describe(structure), **data}:
            raise FileError(f"structure {str(data)[:80]} is to be written as {str(describe(structure))[:80]}")
    except (InputError, TypeError, ValueError, AttributeError) as error:
        raise FileError(f"structure {data['kind']!r}: {error}") from error
    return structure


def _encode(value: Any) -> Any:
    if isinstance(value, Structure):
        return describe(value)
    return [_encode(item) for item in value] if isinstance(value, tuple) else value


def _decode(value: Any, depth: int) -> Any:
    if isinstance(value, dict):
        return _structure_from(value, depth + 1)
    if isinstance(value, list):
        if depth > _MAX_DEPTH:
            raise FileError(f"a structure is nested more than {_MAX_DEPTH} deep; no structure of ours needs that")
        return tuple(_decode(item, depth + 1) for item in value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _MAX_INT:
        raise FileError(f"a structure's numbers must be whole and below 2^48, got {str(value)[:40]}")
    return value
