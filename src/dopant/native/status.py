"""Which path computes, for whoever asks."""

from __future__ import annotations

from dataclasses import dataclass

from dopant.native.library import build_note, built, choice


@dataclass(frozen=True)
class Status:
    """Which path computes.

    Args:
        active: the level of the native library in use, or "torch".
        reason: why, in one line.
        built: the levels that were built.
        build: what the build said of itself, in one line.
    """

    active: str
    reason: str
    built: tuple[str, ...]
    build: str


def status() -> Status:
    """Which path computes here, and why.

    Raises:
        InputError: the environment forces a level that this processor cannot run or that was not built.
    """
    chosen = choice()
    return Status(chosen.level or "torch", chosen.reason, built(), build_note())
