"""Numbers of 4 bits, two in a byte: as ONNX has its INT4."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dopant.cost import nibble_bytes


def encode_nibbles(levels: Tensor) -> Tensor:
    """Int8 (..., n) from -8 to 7 -> uint8 (..., ⌈n / 2⌉): the first of two in the low half, zeros to fill up."""
    even = F.pad(levels, (0, levels.shape[-1] % 2)).view(torch.uint8)
    return (even[..., ::2] & 15) | (even[..., 1::2] << 4)


def decode_nibbles(codes: Tensor, count: int) -> Tensor:
    """The inverse of `encode_nibbles`: uint8 (..., ⌈count / 2⌉) -> int8 (..., count).

    Raises:
        ValueError: bits beyond the last number that are not zero, or other sizes.
    """
    if codes.shape[-1] != nibble_bytes(count):
        raise ValueError(f"{count} numbers of 4 bits take {nibble_bytes(count)} bytes, got {codes.shape[-1]}")
    halves = torch.stack((codes << 4, codes & 240), dim=-1).flatten(-2)
    if halves[..., count:].any():
        raise ValueError("there are bits beyond the last number of 4 bits")
    return halves[..., :count].view(torch.int8) >> 4
