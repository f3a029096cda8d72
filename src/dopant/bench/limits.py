"""What the machine allows: the least time for what our engine must read and multiply."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from dopant.bench.record import STEPS, Caches, CaseName, Limits, Part
from dopant.cost import FLOAT32, Cost, Storage
from dopant.models.language_model import LanguageModel

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_STORED = {"exact": FLOAT32, "fast": Storage("int8")}
"""What a precision must read at least: the stored form of its values, a byte for each position."""


def find_limits() -> tuple[Limits | None, str]:
    """The machine's limits as the native library measures them, or why there are none."""
    if find_spec("dopant.native") is None:
        return None, "the machine's limits are left out: this version has no native library to measure them with"
    try:
        return Limits.model_validate(import_module("dopant.native").limits()), ""
    except Exception as error:  # whatever it is, the benchmark is worth having without
        return None, f"the machine's limits are left out: {type(error).__name__}: {error!s:.200}"


def cache_sizes() -> dict[str, int]:
    """Bytes of the data caches L1, L2 and L3 of the first core; empty where the system does not tell."""
    sizes: dict[str, int] = {}
    for index in sorted(_CACHES.glob("index*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction":
            sizes[f"L{level}"] = int(size.rstrip("KMG")) << {"K": 10, "M": 20, "G": 30}.get(size[-1], 0)
    return sizes


def needed(model: LanguageModel, part: Part, precision: str) -> Cost:
    """Multiply-accumulates of a token, and bytes to read; of the embedding, whose rows are few, nothing."""
    weights = [model.lstm._weight(name) for name, _ in model.lstm.named_children()]
    if part == "token":
        weights.append(model.decoder.weight)
    return sum((weight.cost(_STORED[precision]) for weight in weights), Cost())


def least_us(cost: Cost, limits: Limits, sizes: dict[str, int], case: CaseName, batch: int, caches: Caches) -> float:
    """The longer of reading the weights once a step and of multiplying, one thread.

    They are read from the smallest cache that holds them, from memory where caches are flushed before a single step.
    """
    fits = [level for level in sorted(sizes) if sizes[level] >= cost.stored_bytes]
    level = "DRAM" if not fits or (caches == "flushed" and case == "step") else fits[0]
    gb_per_s = limits.bandwidth_gb_per_s.get(level, limits.bandwidth_gb_per_s["DRAM"])
    reading = cost.stored_bytes / gb_per_s / 1e3
    multiplying = 2.0 * cost.macs * batch / limits.fma_gflops / 1e3
    return round(STEPS[case] * max(reading, multiplying), 2)
