"""What this machine can do at best: reading from each cache, and multiplying."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from dopant.errors import InputError
from dopant.native.library import choice

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_USUAL = {"L1": 32 << 10, "L2": 1 << 20, "L3": 8 << 20}  # bytes, where the system does not tell
_DRAM = 256 << 20
_MOST = 512 << 20


class MachineLimits(TypedDict):
    """Of one thread: GB/s read from each cache and from memory, billions of floating-point operations a second."""

    bandwidth_gb_per_s: dict[str, float]
    fma_gflops: float


def limits() -> MachineLimits:
    """Measure the machine; takes about a second.

    Raises:
        InputError: there is no native library to measure with.
    """
    chosen = choice()
    if chosen.library is None:
        raise InputError(f"the native library measures them, and it does not serve: {chosen.reason}")
    bandwidth = {name: chosen.library.dopant_read_bandwidth(size) / 1e9 for name, size in _sizes().items()}
    if min(bandwidth.values()) < 0.0:
        raise InputError("there is not enough memory to measure the machine's limits with")
    return {"bandwidth_gb_per_s": bandwidth, "fma_gflops": chosen.library.dopant_multiply_add_peak() / 1e9}


def _sizes() -> dict[str, int]:
    """Bytes to read so that they come from a cache of this machine, or from memory."""
    sizes = _USUAL | cache_sizes()
    l1, l2, l3 = sizes["L1"], sizes["L2"], sizes["L3"]
    return {"L1": l1 // 2, "L2": l2 // 2, "L3": min(4 * l2, (l2 + l3) // 2), "DRAM": min(max(_DRAM, 2 * l3), _MOST)}


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
