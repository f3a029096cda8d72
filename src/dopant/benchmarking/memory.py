"""What an engine holds in memory, seen from a process of its own.

python -m dopant.benchmarking.memory FOLDER ENGINE PRECISION PART
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from dopant.benchmarking.engine import Engine
from dopant.benchmarking.record import Memory, Part

_STATUS = Path("/proc/self/status")
_LIMIT_SECONDS = 300


def held(engine: Engine, part: Part, folder: Path) -> Memory:
    """Measure it for the model of a folder; bytes is None where there is no /proc or the process failed."""
    found = None
    if _STATUS.exists():
        command = [sys.executable, "-m", "dopant.benchmarking.memory", str(folder), engine.name, engine.precision, part]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_LIMIT_SECONDS)
            found = int(json.loads(done.stdout.splitlines()[-1]))
        except (OSError, subprocess.SubprocessError, ValueError, IndexError):
            found = None
    return Memory(engine=engine.name, precision=engine.precision, part=part, bytes=found)


def main(folder: str, name: str, precision: str, part: Part) -> None:
    """Print the growth of the resident set, after a tiny model has brought in what is imported or allocated once."""
    import torch

    from dopant.benchmarking.engines import ENGINES
    from dopant.benchmarking.subject import Subject
    from dopant.models.language_model import LanguageModel, LanguageModelConfig
    from dopant.storage.folder import load_model, save

    torch.set_num_threads(1)
    engine = next(one for one in ENGINES if (one.name, one.precision) == (name, precision))

    def made(path: str | Path) -> object:
        subject = Subject(load_model(path).model)
        run = engine.build(subject, part, 1)(subject.inputs(part, "sequence", 1))
        run()
        return run  # the subject goes, with what the engine does not hold

    with tempfile.TemporaryDirectory() as place:
        made(save(Path(place) / "tiny", LanguageModel(LanguageModelConfig(40, 24))))
    before = _resident()
    kept = made(folder)
    print(max(0, _resident() - before))
    del kept


def _resident() -> int:
    gc.collect()
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc: what is free goes back to the system
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmRSS"))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4])  # type: ignore[arg-type]
