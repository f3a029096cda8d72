"""Both codes of sparse positions under their names in `Storage`."""

from __future__ import annotations

from torch import Tensor

from dopant.cost import Indices
from dopant.ops.gaps import Codes, Positions, decode_gaps, encode_gaps, gaps_bytes
from dopant.ops.rice import decode_rice, encode_rice, rice_bytes


def index_bytes(positions: Tensor | Positions, total: int, indices: Indices) -> int:
    """The exact bytes of these positions in a file, without encoding them.

    Args:
        positions: (nonzeros,) integers, row-major, strictly increasing, in 0 .. total - 1.
        total: places of the matrix, rows times columns.
        indices: the code.

    Raises:
        ValueError: the positions do not increase or reach `total`.
    """
    size = gaps_bytes(positions) if indices == "gaps" else rice_bytes(positions)
    _check(positions, total)
    return size


def encode_indices(positions: Tensor | Positions, total: int, indices: Indices) -> Codes:
    """Positions -> (bytes,) uint8 in the named code. Arguments and errors as for `index_bytes`."""
    codes = encode_gaps(positions) if indices == "gaps" else encode_rice(positions)
    _check(positions, total)
    return codes


def decode_indices(codes: Codes, nonzeros: int, total: int, indices: Indices) -> Positions:
    """(bytes,) uint8 -> (nonzeros,) int64, increasing, all below `total`.

    Raises:
        ValueError: codes that do not hold exactly such positions.
    """
    return (decode_gaps if indices == "gaps" else decode_rice)(codes, nonzeros, total)


def _check(positions: Tensor | Positions, total: int) -> None:
    if len(positions) and int(positions[-1]) >= total:
        raise ValueError(f"position {int(positions[-1])} is outside a matrix with {total} places")
