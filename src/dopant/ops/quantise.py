"""Eight-bit values with one scale a row, rounded to nearest: float16 as files have it, or float32."""

from __future__ import annotations

import torch
from torch import Tensor

LEVELS = 127


def quantise_rows(matrix: Tensor, scale_type: torch.dtype = torch.float16) -> tuple[Tensor, Tensor]:
    """Matrix (..., rows, columns), any float type -> int8 of the same shape, scales (..., rows), float16 or float32.

    Raises:
        ValueError: a value that is not finite, or too large for its scale to fit a float16 (about 8.3e6).
    """
    matrix = matrix.detach().float()
    largest = matrix.abs().amax(-1) if matrix.shape[-1] else matrix.new_zeros(matrix.shape[:-1])
    scales = _scales(largest, scale_type)
    return _divide(matrix, scales.unsqueeze(-1)), scales


def dequantise_rows(values: Tensor, scales: Tensor) -> Tensor:
    """Int8 (..., rows, columns) and scales (..., rows) -> float32: the product, rounded once."""
    return values * scales.float().unsqueeze(-1)


def quantise_entries(
    values: Tensor, rows: Tensor, count: int, scale_type: torch.dtype = torch.float16
) -> tuple[Tensor, Tensor]:
    """Values (n,) of rows (n,) int64 of a matrix of `count` rows -> int8 (n,), scales (count,), float16 or float32.

    A row without entries has scale 0.

    Raises:
        ValueError: see `quantise_rows`.
    """
    values = values.detach().float()
    scales = _scales(values.new_zeros(count).scatter_reduce(0, rows, values.abs(), "amax"), scale_type)
    return _divide(values, scales[rows]), scales


def dequantise_entries(values: Tensor, rows: Tensor, scales: Tensor) -> Tensor:
    """Int8 (n,) of rows (n,) and scales (count,) -> float32 (n,)."""
    return values * scales.float()[rows]


def _scales(largest: Tensor, scale_type: torch.dtype) -> Tensor:
    """The nearest number of the type to largest / 127, or the next above where that would push a level past 127."""
    if not torch.isfinite(largest).all():
        raise ValueError("values that are not finite cannot be kept as int8")
    scales = (largest / LEVELS).to(scale_type)
    short = scales.float() * (LEVELS + 0.5) <= largest
    # Below 2^-14 float16 loses digits, at last all of them (float32 below 2^-126): rounding down is too much of a step.
    following = (scales.view(torch.int16 if scale_type == torch.float16 else torch.int32) + 1).view(scale_type)
    scales = torch.where(short & (largest > 0), following, scales)
    if torch.isinf(scales).any():
        raise ValueError(
            f"the value {largest.max().item():.4g} is too large for int8 with a float16 scale; keep float32 values"
        )
    return scales


def _divide(values: Tensor, scales: Tensor) -> Tensor:
    divisor = torch.where(scales > 0, scales, torch.ones_like(scales)).float()
    return (values / divisor).round_().to(torch.int8)
