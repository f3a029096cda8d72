"""The codes of sparse positions under their names in `Storage`."""

from __future__ import annotations

from torch import Tensor

from dopant.cost import ESCAPE, Indices
from dopant.ops.gaps import Codes, Positions, decode_gaps, encode_gaps, gaps_bytes
from dopant.ops.huffman import decode_huffman, encode_huffman
from dopant.ops.rice import decode_rice, encode_rice, rice_bytes


def index_bytes(positions: Tensor | Positions, total: int, indices: Indices) -> int:
    """The exact bytes of these positions in a file.

    Args:
        positions: (nonzeros,) integers, row-major, strictly increasing, in 0 .. total - 1.
        total: places of the matrix, rows times columns.
        indices: the code.

    Raises:
        ValueError: the positions do not increase or reach `total`.
    """
    size = _SIZES[indices](positions)
    _check(positions, total)
    return size


def encode_indices(positions: Tensor | Positions, total: int, indices: Indices) -> Codes:
    """Positions -> (bytes,) uint8 in the named code. Arguments and errors as for `index_bytes`."""
    codes = _ENCODERS[indices](positions)
    _check(positions, total)
    return codes


def decode_indices(codes: Codes, nonzeros: int, total: int, indices: Indices) -> Positions:
    """(bytes,) uint8 -> (nonzeros,) int64, increasing, all below `total`.

    Raises:
        ValueError: codes that do not hold exactly such positions.
    """
    return _DECODERS[indices](codes, nonzeros, total)


def _encode_huffman_gaps(positions: Tensor | Positions) -> Codes:
    return encode_huffman(encode_gaps(positions))


def _decode_huffman_gaps(codes: Codes, nonzeros: int, total: int) -> Positions:
    return decode_gaps(decode_huffman(codes, nonzeros + total // ESCAPE), nonzeros, total)


def _huffman_gaps_bytes(positions: Tensor | Positions) -> int:
    return len(_encode_huffman_gaps(positions))


_SIZES = {"gaps": gaps_bytes, "rice": rice_bytes, "huffman": _huffman_gaps_bytes}
_ENCODERS = {"gaps": encode_gaps, "rice": encode_rice, "huffman": _encode_huffman_gaps}
_DECODERS = {"gaps": decode_gaps, "rice": decode_rice, "huffman": _decode_huffman_gaps}


def _check(positions: Tensor | Positions, total: int) -> None:
    if len(positions) and int(positions[-1]) >= total:
        raise ValueError(f"position {int(positions[-1])} is outside a matrix with {total} places")
