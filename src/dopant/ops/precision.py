"""How precisely a GPU multiplies float32 matrices. On a CPU nothing here has any effect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def matrix_products(*, tf32: bool) -> Iterator[None]:
    """Within it float32 products on a GPU, cuDNN's LSTM included, are TensorFloat-32's or are not.

    TensorFloat-32 keeps 10 of the 23 bits of each operand's mantissa and sums in float32, several times as fast.
    The setting that torch starts with is neither: on for cuDNN, off for all else.
    """
    blas, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = blas.allow_tf32, cudnn.allow_tf32
    blas.allow_tf32 = cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        blas.allow_tf32, cudnn.allow_tf32 = before
