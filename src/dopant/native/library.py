"""Which native library serves: the best that was built and that this processor can run, or the one that is forced."""

from __future__ import annotations

import os
import sys
from ctypes import CDLL
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dopant.errors import InputError
from dopant.native.interface import VERSION, declare

LEVELS = ("generic", "avx2", "avx512", "avx512vnni")
"""From the least to the best; a processor of one level runs all before it."""

VARIABLE = "DOPANT_NATIVE"
"""In the environment: a level forces that level, 0 switches the native library off."""

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Choice:
    """A library and its level, or none; and why."""

    library: CDLL | None
    level: str
    reason: str


def library() -> CDLL | None:
    """The native library, loaded once and ready to be called; None where torch has to serve.

    Raises:
        InputError: the environment forces a level that this processor cannot run or that was not built.
    """
    return choice().library


@cache
def choice() -> Choice:
    """What `library` gives, with its level and the reason; as `DOPANT_NATIVE` said when first asked.

    Raises:
        InputError: as `library`.
    """
    forced = os.environ.get(VARIABLE, "").strip()
    if forced and forced not in ("0", *LEVELS):
        raise InputError(f"{VARIABLE} is {forced!r}; it can be 0 or one of {', '.join(LEVELS)}")
    if forced == "0":
        return Choice(None, "", f"{VARIABLE}=0 in the environment")
    try:
        level, reason = _forced(forced) if forced else _best()
        return Choice(_load(level), level, reason)
    except _UnusableError as error:
        if forced:
            raise InputError(f"{VARIABLE} is {forced!r}, but {error}; unset it, or take another") from None
        return Choice(None, "", str(error))


def built() -> tuple[str, ...]:
    """The levels that were built."""
    return tuple(level for level in LEVELS if _path(level).exists())


def build_note() -> str:
    """What the build said of itself: the compiler and the levels, or why there are none."""
    try:
        return (FOLDER / "built.txt").read_text(encoding="utf-8").strip()
    except OSError:
        return "not built: this copy of dopant was never installed"


class _UnusableError(Exception):
    """A library that is not there, cannot be loaded, or cannot be run here."""


def _best() -> tuple[str, str]:
    best = _processor()
    reason = f"the best level of this processor is {best}" + ("" if best in built() else ", which was not built")
    for level in reversed([level for level in built() if LEVELS.index(level) <= LEVELS.index(best)]):
        try:
            _load(level)
            return level, reason
        except _UnusableError as error:
            reason += f"; {error}"
    raise _UnusableError(reason)


def _forced(level: str) -> tuple[str, str]:
    if level not in built():
        raise _UnusableError(f"that level was not built (built: {', '.join(built()) or 'none'})")
    best = _processor()
    if LEVELS.index(level) > LEVELS.index(best):
        raise _UnusableError(f"the best level of this processor is {best}")
    return level, f"{VARIABLE}={level} in the environment"


def _processor() -> str:
    """The best level of this processor, which the generic library tells."""
    answer: bytes = _load("generic").dopant_best_level()
    return answer.decode()


@cache
def _load(level: str) -> CDLL:
    path = _path(level)
    if not path.exists():
        raise _UnusableError(build_note())
    try:
        loaded = CDLL(str(path))
        version = loaded.dopant_version()
        if version != VERSION:
            raise _UnusableError(f"{path.name} speaks interface {version} and not {VERSION}: build it again")
        declare(loaded)
    except (OSError, AttributeError) as error:
        raise _UnusableError(f"{path.name} cannot be loaded: {error}") from error
    return loaded


def _path(level: str) -> Path:
    return FOLDER / f"libdopant-{level}.{'dylib' if sys.platform == 'darwin' else 'so'}"
