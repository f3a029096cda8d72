"""All engines by their names, and which of them can run here."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from dopant.benchmarking.dopant_engines import EXACT, FAST
from dopant.benchmarking.engine import Engine
from dopant.benchmarking.onnxruntime_engines import ONNXRUNTIME, ONNXRUNTIME_INT8
from dopant.benchmarking.torch_engines import TORCH, TORCH_INT8
from dopant.errors import InputError, did_you_mean

ENGINES: tuple[Engine, ...] = (EXACT, FAST, TORCH, TORCH_INT8, ONNXRUNTIME, ONNXRUNTIME_INT8)
NAMES: tuple[str, ...] = tuple(dict.fromkeys(engine.name for engine in ENGINES))


def choose(names: Sequence[str]) -> tuple[list[Engine], list[str]]:
    """The engines of these names that can run here, and why others cannot.

    Raises:
        InputError: an unknown name, or none that can run.
    """
    for name in names:
        if name not in NAMES:
            way_out = did_you_mean(name, NAMES, f"there are {', '.join(NAMES)}")
            raise InputError(f"engine {name!r} is not known; {way_out}")
    notes = {name: note for name in dict.fromkeys(names) if (note := _missing(name))}
    engines = [engine for engine in ENGINES if engine.name in names and engine.name not in notes]
    said = list(dict.fromkeys(notes.values()))
    if not engines:
        raise InputError("; ".join(said) or f"no engine was chosen; there are {', '.join(NAMES)}")
    return engines, said


def _missing(name: str) -> str | None:
    """Why an engine cannot run here."""
    if name.startswith("onnxruntime"):
        absent = [package for package in ("onnx", "onnxruntime") if find_spec(package) is None]
        if absent:
            are = "is" if len(absent) == 1 else "are"
            return (
                f"onnxruntime is left out: {' and '.join(absent)} {are} not installed; "
                "get it with: pip install 'dopant[onnx]'"
            )
    return None
