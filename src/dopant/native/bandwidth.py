"""What this machine can do at best: reading from each cache, and multiplying."""

from __future__ import annotations

import os
from typing import TypedDict

from dopant.errors import InputError
from dopant.native.library import choice

_DRAM = 256 << 20  # bytes
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
    l1 = _cache("SC_LEVEL1_DCACHE_SIZE", 32 << 10)
    l2 = _cache("SC_LEVEL2_CACHE_SIZE", 1 << 20)
    l3 = _cache("SC_LEVEL3_CACHE_SIZE", 8 * l2)
    return {"L1": l1 // 2, "L2": l2 // 2, "L3": min(4 * l2, (l2 + l3) // 2), "DRAM": min(max(_DRAM, 2 * l3), _MOST)}


def _cache(name: str, usual: int) -> int:
    try:
        return os.sysconf(name) or usual
    except (ValueError, OSError):  # the system does not say
        return usual
