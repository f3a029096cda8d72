"""Sparse positions in Golomb-Rice code, within a few per cent of the entropy of a random pattern.

A gap g splits into a quotient g >> k, written in unary (so many 0 bits, then a 1), and its k lowest bits. All
quotients come first and all remainders after them, each stream padded with 0 bits to a byte, so that both can
be read without a loop over the gaps.

Source: Golomb, Run-length encodings, 1966; Rice, Some practical universal noiseless coding techniques, 1979.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from dopant.cost import RICE_HEADER_BYTES, rice_parameters
from dopant.ops.gaps import Codes, Positions, gaps_of

MAX_PARAMETER = rice_parameters(1 << 62) - 1


def rice_bytes(positions: Tensor | Positions) -> int:
    """The length of `encode_rice(positions)` without making it."""
    return _best(gaps_of(positions))[1]


def encode_rice(positions: Tensor | Positions) -> Codes:
    """Positions -> (bytes,) uint8: a byte with k, the quotients' stream, the remainders' stream.

    k is the parameter that makes the fewest bytes, the smaller one of equals. No positions make no bytes.

    Args:
        positions: (nonzeros,) integers, strictly increasing, none negative.

    Raises:
        ValueError: see `gaps_of`.
    """
    gaps = gaps_of(positions)
    if not gaps.size:
        return np.empty(0, dtype=np.uint8)
    k = _best(gaps)[0]
    ends = np.cumsum((gaps >> k) + 1)
    unary = np.zeros(int(ends[-1]), dtype=np.uint8)
    unary[ends - 1] = 1
    remainders = np.empty((gaps.size, k), dtype=np.uint8)
    for bit in range(k):
        remainders[:, bit] = (gaps >> (k - 1 - bit)) & 1
    return np.concatenate([np.array([k], dtype=np.uint8), np.packbits(unary), np.packbits(remainders)])


def decode_rice(codes: Codes, nonzeros: int, total: int) -> Positions:
    """The inverse of `encode_rice`: (bytes,) uint8 -> (nonzeros,) int64, increasing, all below `total`.

    Raises:
        ValueError: k out of range, streams of the wrong length or number, padding that is not 0, or a
            position past `total`.
    """
    if nonzeros == 0:
        if codes.size:
            raise ValueError(f"the Rice codes hold {codes.size} bytes where no position is needed")
        return np.empty(0, dtype=np.int64)
    k = int(codes[0]) if codes.size else 0
    if k > MAX_PARAMETER:
        raise ValueError(f"the Rice parameter {k} is above {MAX_PARAMETER}")
    split = codes.size - _bytes(nonzeros * k)
    if split <= RICE_HEADER_BYTES:
        raise ValueError(f"the Rice codes hold {codes.size} bytes, too few for {nonzeros} positions with k = {k}")
    ends = np.flatnonzero(np.unpackbits(codes[RICE_HEADER_BYTES:split]))
    if ends.size != nonzeros:
        raise ValueError(f"the Rice codes hold {ends.size} positions where {nonzeros} are needed")
    if ends[-1] // 8 != split - RICE_HEADER_BYTES - 1:
        raise ValueError("the Rice quotients end before their stream does")
    quotients = np.diff(ends, prepend=-1) - 1
    if int(quotients.max()) > total >> k:  # before the shift, which could overflow
        raise ValueError(f"the Rice codes pass the end of a matrix with {total} places")
    bits = np.unpackbits(codes[split:])
    if bits[nonzeros * k :].any():
        raise ValueError("the padding of the Rice remainders is not 0")
    gaps = quotients << k
    for bit, column in enumerate(bits[: nonzeros * k].reshape(nonzeros, k).T):
        gaps |= column.astype(np.int64) << (k - 1 - bit)
    if float(gaps.sum(dtype=np.float64)) > 1.5 * total + 2:  # before the running sum, which could overflow
        raise ValueError(f"the Rice codes pass the end of a matrix with {total} places")
    positions = np.cumsum(gaps + 1) - 1
    if int(positions[-1]) >= total:
        raise ValueError(f"the Rice codes reach position {positions[-1]} of a matrix with {total} places")
    return positions


def _best(gaps: Positions) -> tuple[int, int]:
    """The parameter that makes the fewest bytes, and these bytes."""
    if not gaps.size:
        return 0, 0
    bits = ((k, gaps.size + int((gaps >> k).sum()), gaps.size * k) for k in range(rice_parameters(int(gaps.max()) + 1)))
    return min(
        ((k, RICE_HEADER_BYTES + _bytes(unary) + _bytes(remainder)) for k, unary, remainder in bits),
        key=lambda pair: pair[1],
    )


def _bytes(bits: int) -> int:
    return (bits + 7) // 8
