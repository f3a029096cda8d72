"""What a benchmark leaves: its numbers, and what made them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from dopant.reporting.records import make_record
from dopant.reporting.writing import write_text


def keep(path: Path, result: Mapping[str, object], started: datetime, *, seed: int = 0, device: str = "cpu") -> None:
    """Write `result` with the record of the run that began at `started`, whole or not at all."""
    record = json.loads(make_record([], seed=seed, device=device, started=started).model_dump_json())
    record["command"] = "python " + " ".join(sys.argv)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({**result, "record": record}, indent=1) + "\n")
