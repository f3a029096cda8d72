"""The native library: compiled kernels behind a plain C interface, one shared library for each level of processor.

Knows no torch. Where no library was built, `library()` is None and torch computes.
"""

from dopant.native.bandwidth import cache_sizes, limits
from dopant.native.status import Status, status
from dopant.native.threads import set_threads

__all__ = ["Status", "cache_sizes", "limits", "set_threads", "status"]
