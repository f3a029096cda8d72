"""How float32 matrices are multiplied: how precisely on a GPU, and by which library on a processor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from dopant.ops.onednn import fastest_products


@contextmanager
def matrix_products(device: torch.device, *, tf32: bool) -> Iterator[None]:
    """Within it float32 products on a GPU, cuDNN's LSTM included, are TensorFloat-32's or are not.

    TensorFloat-32 keeps 10 of the 23 bits of each operand's mantissa and sums in float32, several times as fast.
    The setting that torch starts with is neither: on for cuDNN, off for all else. On a processor they are float32's
    always, through the faster library (`dopant.ops.onednn`).
    """
    if device.type != "cuda":
        with fastest_products():
            yield
        return
    places, name, value = _settings(tf32)
    before = [getattr(place, name) for place in places]
    try:
        for place in places:
            setattr(place, name, value)
        yield
    finally:
        for place, kept in zip(places, before, strict=True):
            setattr(place, name, kept)


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Within it products have the dtype of what is multiplied, also where torch's autocast would round it first.

    For a gradient of our own, whose backward pass must find what its forward pass had, and for sparse products, which
    know no bfloat16.
    """
    known = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if known else nullcontext()


def _settings(tf32: bool) -> tuple[tuple[Any, ...], str, Any]:
    """Where torch keeps it, under which name, and what to write there; it refuses a mixture of its two ways."""
    backends: Any = torch.backends
    if hasattr(backends, "fp32_precision"):  # from 2.9 on
        return (backends.cuda.matmul, backends.cudnn.rnn), "fp32_precision", "tf32" if tf32 else "ieee"
    return (backends.cuda.matmul, backends.cudnn), "allow_tf32", tf32
