"""How small: a factor or a number of bytes, of what is counted, over which weights."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real
from typing import Literal, get_args

from dopant.errors import PlanError
from dopant.plan.rules import PREFIX, check_pattern

Count = Literal["parameters", "bytes"]
COUNTS: tuple[str, ...] = get_args(Count)
DENSE_BYTES = 4  # a dense parameter is a float32, whatever the compressed model stores

_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_NUMBER = r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?"
_FACTOR = re.compile(rf"({_NUMBER})\s*[x×]?", re.IGNORECASE)
_BYTES = re.compile(rf"({_NUMBER})\s*([kmg]?i?b)?", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """A size to reach: `factor` times smaller than dense float32, or at most `bytes`.

    Args:
        factor: 1 or more, of what `count` says; None if `bytes` is given.
        bytes: tensor bytes of all weights in the scope together, with non-zeros at evenly random places: weights that
            are fit to a matrix with its large entries close together take some more or fewer.
        count: what is counted: stored numbers, or bytes of the stored tensors.
        scope: the structured weights meant: "lstm", "model" (all of them, not biases or layers that are torch's), or
            "re:" and an expression for whole names.

    Raises:
        PlanError: a field holds what it cannot.
    """

    factor: float | None = None
    bytes: int | None = None
    count: Count = "bytes"
    scope: str = "lstm"

    def __post_init__(self) -> None:
        if self.count not in COUNTS:
            raise PlanError(f"count {self.count!r} is not known; choose parameters or bytes")
        check_scope(self.scope)
        if (self.factor is None) == (self.bytes is None):
            raise PlanError("a target is a factor or a number of bytes: give one of the two")
        if self.factor is not None:
            object.__setattr__(self, "factor", _number(self.factor))  # 25 and 25.0 are one target, of one fingerprint
            if self.factor < 1:
                raise PlanError(
                    f"target {self.factor:g}x is below 1x, which would make the weights larger; a factor says "
                    f"how many times smaller: 25x keeps 4 %"
                )
        if self.bytes is not None:
            if not isinstance(self.bytes, int) or isinstance(self.bytes, bool) or self.bytes < 1:
                raise PlanError(f"a target in bytes is a whole number above zero; got {self.bytes!r}")
            if self.count != "bytes":
                raise PlanError(f"a target of {self.bytes:,} bytes counts bytes, not {self.count}")

    def limit(self, parameters: int) -> int:
        """The most that may be held, in units of `count`, where a dense model has `parameters` in the scope.

        Raises:
            PlanError: the target in bytes is more than the dense weights take.
        """
        dense = parameters * (DENSE_BYTES if self.count == "bytes" else 1)
        if self.bytes is not None:
            if self.bytes > dense:
                raise PlanError(
                    f"target of {self.bytes:,} bytes is below 1x: the weights in scope {self.scope!r} take "
                    f"{dense:,} bytes when dense; ask for less"
                )
            return self.bytes
        return int(dense / Fraction(str(self.factor)))

    @property
    def size(self) -> str:
        """In words, without the scope: "25x by parameters"."""
        return f"{self.bytes:,} bytes" if self.bytes is not None else f"{self.factor:g}x by {self.count}"

    def __str__(self) -> str:
        return f"{self.size} (scope: {self.scope})"


def parse_target(value: str | float, count: Count = "bytes", scope: str = "lstm") -> Target:
    """A target from what a user writes: "25x", "25" or 25.0 is a factor, "1.2MB" or "800 kB" are bytes.

    Raises:
        PlanError: `value` is neither, or one of the three is out of range.
    """
    if isinstance(value, str):
        text = value.strip()
        if factor := _FACTOR.fullmatch(text):
            value = float(factor[1])
        elif _BYTES.fullmatch(text):
            return Target(bytes=parse_bytes(text), count="bytes", scope=scope)
        else:
            with suppress(ValueError):  # such as nan and -25x
                value = float(text.rstrip("xX×"))
    return Target(factor=value, count=count, scope=scope)  # type: ignore[arg-type]  # what is no number is refused there


def parse_bytes(value: str | int) -> int:
    """Bytes from "1.2MB", "800 kB", "1MiB" (powers of 1024) or a plain whole number.

    Raises:
        PlanError: `value` is no number of bytes above zero.
    """
    if isinstance(value, bool) or not isinstance(value, (str, Real)):
        raise PlanError(f"{value!r} is no number of bytes; write 1200000 or 1.2MB")
    parts = _BYTES.fullmatch(str(value).strip())
    if not parts:
        raise PlanError(f"{value!r} is no number of bytes; write 1200000, 1.2MB, 800kB or 1MiB")
    unit = _UNITS[(parts[2] or "b").lower()]
    size: float | Fraction = float(parts[1]) * unit
    if 0.5 < size < 2**63:  # what is far outside may have an exponent that no exact number has room for
        try:
            size = Fraction(parts[1].rstrip(".")) * unit
        except ValueError:
            raise PlanError(f"{value!r} is no number of bytes; write 1200000, 1.2MB, 800kB or 1MiB") from None
    if not 1 <= size < 2**63:
        raise PlanError(f"{value!r} is {'less than one byte' if size < 1 else 'more than any file holds'}")
    return int(size)


def check_scope(scope: str) -> None:
    """Raise PlanError unless `scope` is lstm, model or a `re:` pattern."""
    if isinstance(scope, str) and scope.startswith(PREFIX):
        check_pattern(scope)
    elif scope not in ("lstm", "model"):
        raise PlanError(
            f"scope {scope!r} is not known; choose lstm, model, or re: and an expression for whole weight names"
        )


def _number(value: object) -> float:
    """A factor as a float, NumPy's numbers too; PlanError unless it is finite."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise PlanError(f"target {value!r:.40} is no number; write a factor such as 25x, or bytes such as 1.2MB")
    try:
        number = float(value)
    except OverflowError:  # a whole number beyond all floats
        number = math.inf
    if not math.isfinite(number):
        raise PlanError(f"target {number} is no finite number; write a factor such as 25x")
    return number
