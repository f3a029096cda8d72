"""Dense products on a GPU, whose fast kernels want rows that begin at whole 16 bytes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from dopant.ops.onednn import linear

_NUMBERS = 16  # 64 bytes of float32: more than is needed, so that tiles of several sizes fit


def whole_rows(size: int, like: Tensor) -> int:
    """How long rows of `size` numbers should be: longer on a GPU alone, where they do not begin at whole 16 bytes.

    Rows of 650 floats, as in Zaremba's medium model, make cuBLAS read number by number in TensorFloat-32.
    """
    if not like.is_cuda or size * like.element_size() % 16 == 0:
        return size
    return -(-size // _NUMBERS) * _NUMBERS


def longer(x: Tensor, size: int) -> Tensor:
    """x (..., n) with zeros after each row, (..., size); x itself if there are none to add."""
    return x if x.shape[-1] == size else F.pad(x, (0, size - x.shape[-1]))


def aligned_linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., in), weight (out, in) -> (..., out): `torch.nn.functional.linear`, with zeros at the ends of rows."""
    size = whole_rows(weight.shape[1], weight)
    return linear(longer(x, size), longer(weight, size))
