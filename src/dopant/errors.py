"""Every error a user can meet. Each message says what was got, what was needed, and a way out."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from difflib import get_close_matches

TRACEBACK = "DOPANT_TRACEBACK"
"""Set this variable to 1 to see tracebacks after all."""


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


def as_sentence(error: BaseException) -> str:
    """An error of anybody's in a sentence for users; of a mistake in dopant, its type and first line."""
    if isinstance(error, DopantError):
        return str(error)
    if isinstance(error, OSError):
        return _operating_system(error)
    if is_foreseen(error):
        return "not enough memory; take a smaller model or batch, or fewer --jobs"
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def is_foreseen(error: BaseException) -> bool:
    """Whether it is one of ours, or one of the machine's: anything else is a mistake in dopant."""
    return isinstance(error, (DopantError, OSError, MemoryError)) or _is_torch_memory(error)


def _operating_system(error: OSError) -> str:
    place = f"{error.filename}: " if error.filename is not None else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{place}the disk is full; nothing half-written was left behind, make room and run it again"
    reason = error.strerror or str(error) or type(error).__name__
    return f"{place}{reason[:1].lower()}{reason[1:]}"


def _is_torch_memory(error: BaseException) -> bool:
    """torch says so in the words of a RuntimeError: on CUDA, on Windows, on Linux."""
    text = str(error).lower()
    phrases = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, RuntimeError) and any(phrase in text for phrase in phrases)


def did_you_mean(got: object, known: Iterable[str], otherwise: str = "", *, cutoff: float = 0.6) -> str:
    """`did you mean 'x'?` for the nearest of `known`; `otherwise`, another way out, where none is near."""
    near = get_close_matches(str(got), list(known), n=1, cutoff=cutoff)
    return f"did you mean {near[0]!r}?" if near else otherwise
