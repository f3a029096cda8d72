"""Whole numbers of one step for a whole matrix, which are then coded by frequency.

The uniform quantiser: with a code whose lengths follow the frequencies none of as many bits leaves a squared error that
is smaller by more than a tenth of a bit or two (Gish & Pierce, Asymptotically efficient quantizing, 1968). A scale for
each row, as numbers of a fixed length want it, would only spend bytes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

FINENESS = 6.0
"""Steps in a standard deviation of the numbers; what others cost is in docs/decisions/0017-huffman.md."""
LAST = 127
_SAMPLE = 4096


def quantise_steps(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values of any shape and float type, on the CPU -> int8 of the same shape, step (), float32.

    What is whole multiples of a step already stays as it is.

    Raises:
        ValueError: a value that is not finite.
    """
    values = values.detach().float()
    if not torch.isfinite(values).all():
        raise ValueError("values that are not finite cannot be kept as whole numbers")
    found = whole_steps(values)
    if found is not None:
        return found
    finest = values.abs().max().double() / LAST
    step = torch.maximum(values.double().square().mean().sqrt() / FINENESS, finest)
    # few digits, so that products with whole numbers are exact and the step is found again; never 0
    step = step.to(torch.bfloat16).float().clamp_min(torch.finfo(torch.float32).tiny)
    levels = (values / step).round_().clamp_(-LAST, LAST).to(torch.int8)
    common = max(1, int(np.gcd.reduce(np.unique(levels.numpy()))))
    return levels // common, step * common


def dequantise_steps(levels: Tensor, step: Tensor) -> Tensor:
    """Int8 of any shape and step () -> float32: the product."""
    return levels * step


def whole_steps(values: Tensor) -> tuple[Tensor, Tensor] | None:
    """Int8 and the largest step of which float32 values are exactly these multiples; None if there is none."""
    if len(np.unique(values.flatten()[:_SAMPLE].numpy())) > 2 * LAST + 1 or not torch.isfinite(values).all():
        return None
    sizes = torch.from_numpy(np.unique(values.abs().numpy()))
    sizes = sizes[sizes > 0]
    if not len(sizes):
        return torch.zeros_like(values, dtype=torch.int8), values.new_zeros(())
    if len(sizes) > LAST:
        return None
    for least in range(1, LAST + 1):
        step = sizes[0] / least
        levels = (sizes / step).round()
        if levels[-1] > LAST:
            break
        if bool((levels * step == sizes).all()):
            return (values / step).round_().to(torch.int8), step
    return None
