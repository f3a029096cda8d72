"""Sparse positions as gaps, a byte each: the plain code of an overlay's indices."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dopant.cost import ESCAPE

Positions = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8]


def gaps_of(positions: Tensor | Positions) -> Positions:
    """The places left out before each position, (nonzeros,) int64; the first counts from place 0.

    Args:
        positions: (nonzeros,) integers, strictly increasing, none negative.

    Raises:
        ValueError: the positions do not increase, or the first is negative.
    """
    array = positions.detach().cpu().numpy() if isinstance(positions, Tensor) else np.asarray(positions)
    if array.ndim != 1:
        raise ValueError(f"positions must be one row of integers, got shape {array.shape}")
    gaps: Positions = array.astype(np.int64)
    gaps[1:] -= gaps[:-1] + 1
    if gaps.size and int(gaps.min()) < 0:
        raise ValueError("positions must increase strictly from 0 on; sort them and drop doubles")
    return gaps


def gaps_bytes(positions: Tensor | Positions) -> int:
    """The length of `encode_gaps(positions)` without making it."""
    gaps = gaps_of(positions)
    return gaps.size + int((gaps // ESCAPE).sum())


def encode_gaps(positions: Tensor | Positions) -> Codes:
    """Positions -> (bytes,) uint8. A byte below 255 is a gap and ends it; 255 skips 255 places and goes on.

    Args:
        positions: (nonzeros,) integers, strictly increasing, none negative.

    Raises:
        ValueError: see `gaps_of`.
    """
    gaps = gaps_of(positions)
    ends = np.cumsum(gaps // ESCAPE + 1)
    codes = np.full(int(ends[-1]) if ends.size else 0, ESCAPE, dtype=np.uint8)
    codes[ends - 1] = gaps % ESCAPE
    return codes


def decode_gaps(codes: Codes, nonzeros: int, total: int) -> Positions:
    """The inverse of `encode_gaps`: (bytes,) uint8 -> (nonzeros,) int64, increasing, all below `total`.

    Raises:
        ValueError: the codes hold more or fewer gaps than `nonzeros`, end in a skip, or pass `total`.
    """
    ends = codes != ESCAPE
    found = int(np.count_nonzero(ends))
    if found != nonzeros:
        raise ValueError(f"the gap codes hold {found} positions where {nonzeros} are needed")
    if codes.size and not ends[-1]:
        raise ValueError("the gap codes end in a skip that leads to no position")
    # A skip moves on by 255 places, a gap of g by g places and the non-zero's own.
    positions: Positions = np.cumsum(codes.astype(np.int64) + ends)[ends] - 1
    if positions.size and int(positions[-1]) >= total:
        raise ValueError(f"the gap codes reach position {positions[-1]} of a matrix with {total} places")
    return positions
