"""A folder that appears at once or not at all: written beside its place, then renamed."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dopant.errors import FileError, InputError

_PARTIAL = ".partial-"
_PREVIOUS = ".previous"
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux's renameat2
_ours: set[str] = set()  # what this process is writing; what else has its number is of one that had it before


@contextmanager
def written_beside(folder: Path, *, replace: bool) -> Iterator[Path]:
    """Give an empty folder to write into; when the block ends well, it takes the place of `folder`.

    At any moment `folder` is the old one, or the new one; of two writers at once the later one's. What a killed process
    leaves is a hidden sibling `.NAME.partial-HOST-PID-RANDOM`, which the next writer on that machine removes.

    Args:
        folder: where the files are to be in the end.
        replace: whether an old folder of that name gives way; it is removed after the new one is there.

    Raises:
        InputError: `folder` exists and `replace` is false.
        FileError: the disk is full, or the folder cannot be written.
    """
    folder = Path(os.path.realpath(folder))
    host = re.sub(r"[^A-Za-z0-9]", "_", socket.gethostname())
    partial = folder.with_name(f".{folder.name}{_PARTIAL}{host}-{os.getpid()}-{secrets.token_hex(4)}")
    _ours.add(partial.name)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _restore(folder)
        if folder.exists() and not replace:
            raise InputError(f"{folder} exists already; choose another place, or replace it with force")
        _clean(folder, host)
        partial.mkdir()
        yield partial
        for file in partial.iterdir():
            _sync(file)
        _sync(partial)
        _put(partial, folder, replace)
        _sync(folder.parent)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FileError(f"the disk is full: {folder} was not written; make room and try again") from error
        raise FileError(f"{folder} cannot be written: {error.strerror or error}") from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        _ours.discard(partial.name)


def existing(folder: Path) -> Path:
    """The folder to read: itself, or the old one that a writer was killed in the middle of replacing."""
    previous = _previous(Path(os.path.realpath(folder)))
    return previous if not folder.exists() and previous.is_dir() else folder


def _put(partial: Path, folder: Path, replace: bool) -> None:
    if not replace or not folder.exists():
        try:
            partial.rename(folder)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise InputError(f"{folder} was written by someone else in the meantime") from error
            raise
    elif _exchange(partial, folder):
        shutil.rmtree(partial, ignore_errors=True)
    else:  # no atomic exchange here: between the two renames `existing` finds the old folder
        previous = _previous(folder)
        folder.rename(previous)
        try:
            partial.rename(folder)
        except BaseException:
            previous.rename(folder)
            raise
        shutil.rmtree(previous, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two paths in one step; false where the system or the file system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    at = ctypes.c_int(-100)  # AT_FDCWD; both paths are absolute
    return bool(rename(at, os.fsencode(first), at, os.fsencode(second), ctypes.c_uint(_EXCHANGE)) == 0)


def _previous(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}{_PREVIOUS}")


def _restore(folder: Path) -> None:
    previous = _previous(folder)
    if previous.is_dir():
        if folder.exists():
            shutil.rmtree(previous)
        else:
            previous.rename(folder)


def _clean(folder: Path, host: str) -> None:
    """Remove what writers of this folder left that are no longer running."""
    prefix = f".{folder.name}{_PARTIAL}{host}-"
    for leftover in folder.parent.iterdir():
        pid = leftover.name.removeprefix(prefix).partition("-")[0]
        if leftover.name.startswith(prefix) and pid.isdigit() and leftover.name not in _ours and not _running(int(pid)):
            shutil.rmtree(leftover, ignore_errors=True)


def _running(pid: int) -> bool:
    if pid == os.getpid():
        return False
    if os.name != "posix":  # elsewhere the question would end the process
        return True
    with suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
    return True


def _sync(path: Path) -> None:
    """Have the disk hold what was written; folders cannot be synced everywhere."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # Windows syncs what may be written
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
