"""Whole numbers of 8 bits or 4 with one scale a row, rounded to nearest: float16 as files have it, or float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """Which whole numbers a row is multiples of its scale by: those from -last to last.

    Args:
        last: the largest.
        clips: shares of a row's largest magnitude. The row has the scale, of those by which one of them is `last`,
            that leaves the least squared error; 1 comes first, so that what lies on a grid already stays as it is.
    """

    last: int
    clips: tuple[float, ...] = (1.0,)


_BLOCK = 1 << 16  # numbers at a time: what is tried on them stays in the cache

INT8 = Grid(127)
INT4 = Grid(7, tuple(1.0 - step / 32 for step in range(17)))
"""With so few levels it pays to cut the largest off: below half of it never, by trial."""


def quantise_rows(matrix: Tensor, scale_type: torch.dtype = torch.float16, grid: Grid = INT8) -> tuple[Tensor, Tensor]:
    """Matrix (..., rows, columns), any float type -> int8 of the same shape, scales (..., rows), float16 or float32.

    Raises:
        ValueError: a value that is not finite, or too large for its scale to fit a float16 (127 · 65504 with INT8).
    """
    matrix = matrix.detach().float()
    rows = matrix.flatten(0, -2)
    levels, scales = torch.empty_like(rows, dtype=torch.int8), rows.new_empty(len(rows), dtype=scale_type)
    step = max(1, _BLOCK // max(1, rows.shape[1]))
    for first in range(0, len(rows), step):
        part = slice(first, first + step)
        block = rows[part]
        largest = block.abs().amax(-1) if block.shape[1] else block.new_zeros(len(block))
        levels[part], scales[part] = _best(
            block, largest, scale_type, grid, lambda of_rows: of_rows.unsqueeze(-1), lambda x: x.sum(-1)
        )
    return levels.view(matrix.shape), scales.view(matrix.shape[:-1])


def dequantise_rows(values: Tensor, scales: Tensor) -> Tensor:
    """Int8 (..., rows, columns) and scales (..., rows) -> float32: the product, rounded once."""
    return values * scales.float().unsqueeze(-1)


def quantise_entries(
    values: Tensor, rows: Tensor, count: int, scale_type: torch.dtype = torch.float16, grid: Grid = INT8
) -> tuple[Tensor, Tensor]:
    """Values (n,) of rows (n,) int64 of a matrix of `count` rows -> int8 (n,), scales (count,), float16 or float32.

    A row without entries has scale 0.

    Raises:
        ValueError: see `quantise_rows`.
    """
    values = values.detach().float()
    zeros = values.new_zeros(count)
    largest = zeros.scatter_reduce(0, rows, values.abs(), "amax")
    return _best(
        values, largest, scale_type, grid, lambda of_rows: of_rows[rows], lambda x: zeros.index_add(0, rows, x)
    )


def dequantise_entries(values: Tensor, rows: Tensor, scales: Tensor) -> Tensor:
    """Int8 (n,) of rows (n,) and scales (count,) -> float32 (n,)."""
    return values * scales.float()[rows]


def _best(
    values: Tensor,
    largest: Tensor,
    scale_type: torch.dtype,
    grid: Grid,
    spread: Callable[[Tensor], Tensor],
    summed: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Levels and scales, of each row by the clip that is best for it.

    Args:
        largest: magnitude of each row.
        spread: gives each value what its row has.
        summed: adds up by rows what each value has.
    """
    scales = _scales(largest * grid.clips[0], scale_type, grid.last)
    if len(grid.clips) > 1:

        def error(scales: Tensor) -> Tensor:
            of_values = spread(scales.float())
            return summed((_divide(values, of_values, grid.last) * of_values - values).square_())

        least = error(scales)
        for clip in grid.clips[1:]:
            if not least.any():
                break
            others = _scales(largest * clip, scale_type, grid.last)
            left = error(others)
            scales, least = torch.where(left < least, others, scales), torch.minimum(left, least)
    return _divide(values, spread(scales.float()), grid.last).to(torch.int8), scales


def _scales(largest: Tensor, scale_type: torch.dtype, last: int) -> Tensor:
    """The nearest number of the type to largest / last, or the next above where that would push a level past it."""
    if not torch.isfinite(largest).all():
        raise ValueError("values that are not finite cannot be kept as whole numbers")
    scales = (largest / last).to(scale_type)
    short = scales.float() * (last + 0.5) <= largest
    # Below 2^-14 float16 loses digits, at last all of them (float32 below 2^-126): rounding down is too much of a step.
    following = (scales.view(torch.int16 if scale_type == torch.float16 else torch.int32) + 1).view(scale_type)
    scales = torch.where(short & (largest > 0), following, scales)
    if torch.isinf(scales).any():
        raise ValueError(f"the value {largest.max().item():.4g} is too large for a float16 scale; keep float32 values")
    return scales


def _divide(values: Tensor, scales: Tensor, last: int) -> Tensor:
    """The nearest levels, as floats; of scale 0 all are 0."""
    return (values / torch.where(scales > 0, scales, torch.inf)).round_().clamp_(-last, last)
