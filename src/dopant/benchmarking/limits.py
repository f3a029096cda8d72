"""What the machine allows: the least time for what our engine must read and multiply."""

from __future__ import annotations

from math import ceil

from dopant.benchmarking.record import STEPS, Caches, CaseName, Limits, Part
from dopant.cost import Cost, Storage
from dopant.errors import DopantError
from dopant.models.language_model import LanguageModel
from dopant.native import limits as native_limits

_STORED = Storage("int8")
"""What must be read at least: the stored form of the values in 8 bits, a byte for each position."""

_TOGETHER = 32
"""Tokens that share a reading of the decoder."""


def find_limits() -> tuple[Limits | None, str]:
    """The machine's limits as the native library measures them, or why there are none."""
    try:
        return Limits.model_validate(native_limits()), ""
    except DopantError as error:  # the benchmark is worth having without
        return None, f"the machine's limits are left out: {error!s:.200}"


def needed(model: LanguageModel, part: Part) -> tuple[Cost, Cost]:
    """Bytes to read and multiply-accumulates of a token: of the LSTM layers, and of the decoder if it has a part."""
    layers = [model.lstm._weight(name) for name, _ in model.lstm.named_children()]
    decoder = model.decoder.weight.cost(_STORED) if part == "token" else Cost()
    return sum((weight.cost(_STORED) for weight in layers), Cost()), decoder


def least_us(
    layers: Cost,
    decoder: Cost,
    limits: Limits,
    sizes: dict[str, int],
    case: CaseName,
    batch: int,
    caches: Caches,
    precision: str = "exact",
) -> float:
    """The longer of reading the weights and of multiplying, one thread: layers once a step, the decoder for 32 tokens.

    Of `fast`, which multiplies bytes, reading alone: what the machine is known to multiply are floats. Weights are read
    from the smallest cache that holds them, from memory where caches are flushed before a single step.
    """
    steps, total = STEPS[case], layers + decoder
    fits = [level for level in sorted(sizes) if sizes[level] >= total.stored_bytes]
    level = "DRAM" if not fits or (caches == "flushed" and case == "step") else fits[0]
    gb_per_s = limits.bandwidth_gb_per_s.get(level, limits.bandwidth_gb_per_s["DRAM"])
    read = steps * layers.stored_bytes + ceil(steps * batch / _TOGETHER) * decoder.stored_bytes
    multiplying = 2.0 * total.macs * batch * steps / limits.fma_gflops / 1e3 if precision == "exact" else 0.0
    return round(max(read / gb_per_s / 1e3, multiplying), 2)
