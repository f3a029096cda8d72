"""Large float32 products through oneDNN where MKL, which torch takes for them, is the slower of the two.

MKL keeps its AVX-512 kernels for Intel's processors. On AMD's with AVX-512 oneDNN, which torch has too, takes half the
time; a copy of the result into torch's layout is small beside that. Torch has no setting for this, but tensors in
oneDNN's layout are multiplied by oneDNN, forward and backward.
"""

from __future__ import annotations

import functools
import math
import platform
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

_LARGE = 1 << 23  # multiply-accumulates: with fewer, what there is to do beside them takes as long
_DEEP = 128  # inputs: with fewer, the copy of the result takes as long as what is saved
_DIMENSIONS = 5  # oneDNN's layout has no more


class _State(threading.local):
    within = False


_state = _State()


@contextmanager
def fastest_products() -> Iterator[None]:
    """Within it large products of `linear` go through oneDNN where that is faster; sums round otherwise.

    In this thread, and for training and evaluation alone: what oneDNN's layout does not have is a second derivative,
    and no exporter knows it.
    """
    before, _state.within = _state.within, mkl_holds_back()
    try:
        yield
    finally:
        _state.within = before


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., in), weight (out, in) -> (..., out): `torch.nn.functional.linear`."""
    plain = not (torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"))
    if plain and _state.within and _is_large(x, weight):
        product: Tensor = F.linear(x.to_mkldnn(), weight).to_dense()
        return product
    return F.linear(x, weight)


def _is_large(x: Tensor, weight: Tensor) -> bool:
    floats = x.dtype == weight.dtype == torch.float32 and x.device.type == weight.device.type == "cpu"
    if not floats or not 1 < x.dim() <= _DIMENSIONS or x.shape[-1] < _DEEP:
        return False
    return math.prod(x.shape[:-1]) * weight.numel() >= _LARGE


@functools.cache
def mkl_holds_back() -> bool:
    """Whether this is a processor with AVX-512 that MKL has no AVX-512 for, and a torch that has both libraries."""
    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return both and torch.backends.cpu.get_cpu_capability() == "AVX512" and _vendor() == "AuthenticAMD"


def _vendor() -> str:
    """What the processor says of its maker; "" where nothing tells."""
    try:
        found = re.search(r"^vendor_id\s*:\s*(\w+)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return platform.processor().rpartition(" ")[2]  # Windows: "AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD"
    return found[1] if found else ""
