"""The training log: one JSON object a line, written as it happens, cut back to a checkpoint on resume."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class TrainingLog:
    """Appends to a JSONL file.

    Args:
        path: the file; None keeps the log in memory only.
        size: bytes to keep of what is there: 0 for a new run, what a checkpoint recorded on resume.
    """

    def __init__(self, path: Path | None, size: int = 0) -> None:
        self.events: list[dict[str, Any]] = []
        self._file = None
        if path is not None:
            self._file = path.open("r+b" if path.exists() else "w+b")
            self.events = [json.loads(line) for line in self._file.read(size).splitlines()]
            self._file.truncate(size)
            self._file.seek(size)

    def write(self, event: str, **values: Any) -> None:
        """Add a line."""
        entry = {"event": event, **values}
        self.events.append(entry)
        if self._file is not None:
            self._file.write(json.dumps(entry, allow_nan=True).encode() + b"\n")
            self._file.flush()

    def size(self) -> int:
        """Bytes that are safely on disk, to be kept in a checkpoint."""
        if self._file is None:
            return 0
        os.fsync(self._file.fileno())
        return self._file.tell()

    def of(self, event: str) -> list[dict[str, Any]]:
        """The entries of one kind, in order, without the kind."""
        return [{k: v for k, v in entry.items() if k != "event"} for entry in self.events if entry["event"] == event]

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
