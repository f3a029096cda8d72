"""JSON as files must have it: UTF-8, no name twice, no NaN; and the canonical form that is hashed."""

from __future__ import annotations

import hashlib
import json
from typing import Any, NoReturn

from dopant.errors import FileError


def parse(data: bytes, what: str) -> Any:
    """The value in `data`.

    Args:
        data: UTF-8 text.
        what: what is being read, as an error should call it.

    Raises:
        FileError: not UTF-8, not JSON, nested too deep, a name twice in one object, NaN or infinity.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileError(f"{what} is not UTF-8 text: byte {error.start} cannot be read") from error
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
    except RecursionError as error:
        raise FileError(f"{what} is nested too deep to be one of ours") from error
    except ValueError as error:
        raise FileError(f"{what} is not valid JSON: {str(error)[:200]}") from error


def canonical_sha256(value: Any) -> str:
    """SHA-256 in hex of a JSON value: names sorted, no spaces, everything beyond ASCII escaped."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"name {name[:80]!r} is there twice")
        found[name] = value
    return found


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:40]} is too large a number")
    return value
