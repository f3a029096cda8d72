"""Every error a user can meet. Each message says what was got, what was needed, and a way out."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class DopantError(Exception):
    """The base of all errors of this library; the command line prints it and exits with code 2."""


class InputError(DopantError, ValueError):
    """An argument, a text or a path that cannot be used."""


class RecipeError(DopantError, ValueError):
    """A recipe with mistakes; the message lists all of them with their places."""


class PlanError(DopantError, ValueError):
    """A target that cannot be met, or a pattern that matches no weight."""


class FileError(DopantError):
    """A model folder that cannot be read."""


class VersionError(FileError):
    """A model folder written by a format version this release does not know."""


class KindError(FileError):
    """A structure, model or tokenizer kind that nobody has registered."""


class TensorError(FileError):
    """A tensor that is missing, left over, of the wrong size or type, or holds impossible values."""


class ChecksumError(FileError):
    """Contents that differ from the checksum written with them."""


class TrainingError(DopantError):
    """Training cannot go on."""


class DivergenceError(TrainingError):
    """The loss became infinite or not a number."""


class ResumeError(TrainingError):
    """A checkpoint that belongs to another recipe, model or corpus, or that is damaged."""


class ExportError(DopantError):
    """An exported file that does not compute what its model does."""


class BenchError(DopantError):
    """A measurement that would mean nothing."""


def did_you_mean(got: object, known: Iterable[str], otherwise: str = "", *, cutoff: float = 0.6) -> str:
    """`did you mean 'x'?` for the nearest of `known`; `otherwise`, another way out, where none is near."""
    near = get_close_matches(str(got), list(known), n=1, cutoff=cutoff)
    return f"did you mean {near[0]!r}?" if near else otherwise
