"""The training log: one JSON object a line, written as it happens, cut back to a checkpoint on resume."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from dopant.errors import FileError, ResumeError


class TrainingLog:
    """Appends to a JSONL file.

    Args:
        path: the file; None keeps the log in memory only.
        size: bytes to keep of what is there: 0 for a new run, what a checkpoint recorded on resume.

    Raises:
        ResumeError: what is there is not the log that the checkpoint goes with.
        FileError: the file cannot be written; also later, by the methods.
    """

    def __init__(self, path: Path | None, size: int = 0) -> None:
        self.path = path
        self.events: list[dict[str, Any]] = []
        self._file = None
        if path is None:
            return
        try:
            file = path.open("r+b" if path.exists() else "w+b")
        except OSError as error:
            raise _unwritable(path, error) from error
        try:
            self.events = _read(path, file.read(size), size)
            file.truncate(size)
            file.seek(size)
        except BaseException:
            file.close()
            raise
        self._file = file

    def write(self, event: str, **values: Any) -> None:
        """Add a line."""
        entry = {"event": event, **values}
        self.events.append(entry)
        if self._file is not None:
            try:
                self._file.write(json.dumps(entry, allow_nan=True).encode() + b"\n")
                self._file.flush()
            except OSError as error:
                raise _unwritable(self.path, error) from error

    def size(self) -> int:
        """Bytes that are safely on disk, to be kept in a checkpoint."""
        if self._file is None:
            return 0
        try:
            os.fsync(self._file.fileno())
            return self._file.tell()
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def of(self, event: str) -> list[dict[str, Any]]:
        """The entries of one kind, in order, without the kind."""
        return [{k: v for k, v in entry.items() if k != "event"} for entry in self.events if entry["event"] == event]

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:  # a line that did not fit is still in the buffer
                raise _unwritable(self.path, error) from error


def _read(path: Path, kept: bytes, size: int) -> list[dict[str, Any]]:
    try:
        events = [json.loads(line) for line in kept.splitlines()]
    except ValueError:
        events = [None]
    if len(kept) < size or not all(isinstance(event, dict) and "event" in event for event in events):
        raise ResumeError(
            f"{path} is not the log that the checkpoint beside it goes with: its first {size:,} bytes are "
            "missing or altered; put it back, or start anew with --force"
        )
    return events


def _unwritable(path: Path | None, error: OSError) -> FileError:
    return FileError(f"the log {path} could not be written: {error.strerror or error}; free some space and resume")
