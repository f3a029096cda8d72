"""Settings that reach a recipe from outside, each with the name under which it was given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_KEYS = {"values": "storage.values", "indices": "storage.indices", "distill": "training.distillation.weight"}
_EITHER = {"target": "target_bytes", "target_bytes": "target"}


@dataclass(frozen=True)
class Override:
    """A value for one key of a recipe.

    Args:
        key: dotted, such as "training.epochs".
        value: plain data; it is checked with the recipe.
        place: as whoever gave it wrote it, such as "--target 25x"; what messages call it.
    """

    key: str
    value: Any
    place: str


def arguments(**given: Any) -> list[Override]:
    """Arguments of a function; those that are None were not given, and are left to the recipe."""
    return _overrides(given, lambda name, value: f"{name}={value!r}")


def flags(**given: Any) -> list[Override]:
    """Flags of a command, by the names of its arguments; those that are None were not given."""
    return _overrides(given, lambda name, value: f"--{name.replace('_', '-')} {value}")


def _overrides(given: Mapping[str, Any], written: Callable[[str, Any], str]) -> list[Override]:
    """A target that is given takes the place of the recipe's, in whichever of the two ways that has one."""
    found = []
    for name, value in given.items():
        if value is not None:
            other = _EITHER.get(name)
            if other is not None and given.get(other) is None:
                found.append(Override(other, None, written(name, value)))
            found.append(Override(_KEYS.get(name, name), value, written(name, value)))
    return found
