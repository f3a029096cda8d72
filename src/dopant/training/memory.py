"""A process that trains keeps the memory it frees."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of mallopt(3), glibc's


def keep_freed_memory() -> None:
    """Let glibc keep what this process frees for what it allocates next; with another C library nothing is done.

    Each step allocates tens of megabytes of logits and gradients and frees them. Given back to the system, they come
    anew a page at a time, of zeros; `results/benchmarks/training-on-a-processor.json` has what that takes. For good and
    of the whole process, so not for a user's own.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    # an older glibc takes no more than 32 MiB; one that takes neither is to go on as it does by itself
    if mallopt is not None and (mallopt(_MMAP_THRESHOLD, 1 << 30) or mallopt(_MMAP_THRESHOLD, 32 << 20)):
        mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
