"""Whole numbers of one step for a whole matrix, in a code by frequency.

The uniform quantiser: with a code whose lengths follow the frequencies no other of as many bits leaves a squared error
that is smaller by more than a tenth of a bit or two (Gish & Pierce, Asymptotically efficient quantizing, 1968). A scale
for each row, as numbers of a fixed length want it, would only spend bytes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dopant.cost import FINENESS, STEP_BYTES
from dopant.ops.gaps import Codes
from dopant.ops.huffman import decode_huffman, encode_huffman

LAST = 65535
"""No whole number is larger: times a step of 8 binary digits it is a float32, exactly."""
_GO_ON = 127  # a byte of this size is added to the next
_SAMPLE, _FEW, _LEAST = 4096, 1024, 127


def encode_steps(values: Tensor) -> tuple[Codes, Tensor]:
    """Values as `quantise_steps` takes them -> their whole numbers coded, (bytes,) uint8, and the step.

    A number is a byte, -126 to 126; larger ones are several: a byte of 127 or -127 is added to what follows.
    """
    levels, step = quantise_steps(values)
    numbers = levels.reshape(-1).numpy()
    sizes = np.abs(numbers)
    ends = np.cumsum(sizes // _GO_ON + 1)
    symbols = np.repeat(np.sign(numbers), sizes // _GO_ON + 1) * _GO_ON
    symbols[ends - 1] = np.sign(numbers) * (sizes % _GO_ON)
    return encode_huffman(symbols.astype(np.int8).view(np.uint8)), step


def decode_steps(codes: Codes, count: int) -> Tensor:
    """The inverse of `encode_steps` but for the step: (bytes,) uint8 -> (count,) int32.

    Raises:
        ValueError: codes that hold no such numbers, or more or fewer.
    """
    symbols = decode_huffman(codes, count * (LAST // _GO_ON + 1)).view(np.int8)
    if symbols.size and symbols.min() < -_GO_ON:
        raise ValueError(f"{-_GO_ON - 1} is no byte of a number; they go from -{_GO_ON} to {_GO_ON}")
    ends = np.abs(symbols) != _GO_ON
    if symbols.size and not ends[-1]:
        raise ValueError("the codes end within a number")
    if np.count_nonzero(ends) != count:
        raise ValueError(f"the codes hold {np.count_nonzero(ends)} numbers where {count} are needed")
    numbers = np.diff(np.cumsum(symbols, dtype=np.int64)[ends], prepend=0)
    if numbers.size and np.abs(numbers).max() > LAST:
        raise ValueError(f"a number is larger than {LAST}")
    return torch.from_numpy(numbers.astype(np.int32))


def steps_bytes(values: Tensor) -> int:
    """The bytes of values in a file, step included; what is not finite, and cannot be stored, is counted as zero."""
    return len(encode_steps(values.detach().float().nan_to_num(0.0, 0.0, 0.0).cpu())[0]) + STEP_BYTES


def quantise_steps(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values of any shape and float type, on the CPU -> int32 of the same shape, step (), float32.

    The step is a sixth of their root mean square. What is whole multiples of a step already stays as it is.

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
    most = min(LAST, int(torch.finfo(torch.float32).max / step.double()))
    levels = (values / step).round_().clamp_(-most, most).to(torch.int32)
    common = max(1, int(np.gcd.reduce(np.unique(levels.numpy()))))
    return levels // common, step * common


def dequantise_steps(levels: Tensor, step: Tensor) -> Tensor:
    """Whole numbers of any shape and step () -> float32: the product."""
    return levels * step


def whole_steps(values: Tensor) -> tuple[Tensor, Tensor] | None:
    """Int32 and the largest step of which float32 values are exactly these multiples; None if none is found.

    It is found where there are at most some thousand different values, and the smallest is at most 127 steps.
    """
    if len(np.unique(values.flatten()[:_SAMPLE].numpy())) > _FEW or not torch.isfinite(values).all():
        return None
    sizes = torch.from_numpy(np.unique(values.abs().numpy()))
    sizes = sizes[sizes > 0]
    if not len(sizes):
        return torch.zeros_like(values, dtype=torch.int32), values.new_zeros(())
    for least in range(1, _LEAST + 1):
        step = sizes[0] / least
        levels = (sizes / step).round()
        if levels[-1] > LAST:
            break
        if bool((levels * step == sizes).all()):
            return (values / step).round_().to(torch.int32), step
    return None
