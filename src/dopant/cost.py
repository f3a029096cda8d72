"""What a weight costs in its stored form: parameters, multiply-accumulates, bytes. No torch here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from dopant.errors import InputError

Values = Literal["float32", "float16", "int8", "huffman", "int4"]  # in the order of what they round
Indices = Literal["gaps", "rice", "huffman"]

_VALUE_BYTES: dict[str, int] = {"float32": 4, "float16": 2, "int8": 1}
_SCALE_BYTES = 2  # a row of whole numbers carries one float16 scale
ESCAPE = 255  # gap code: this byte skips 255 positions and stores no value


@dataclass(frozen=True)
class Storage:
    """How numbers are written: the type of the values and the code of the overlay's positions.

    ``int8`` and ``int4`` keep whole numbers and one float16 scale a row, ``int4`` two numbers in a byte. ``huffman``
    keeps whole numbers of one step for a matrix, a sixth of its root mean square, each in as many bits as its
    frequency allows (Han et al., arXiv 1510.00149): 4 to 5. ``gaps`` spends a byte on a non-zero (255 skips 255
    positions); ``rice`` and ``huffman`` are two codes of these gaps for the smallest file: Golomb-Rice with the best
    parameter for each matrix, and the bytes of ``gaps`` in as many bits as their frequency allows.

    Raises:
        InputError: a type or code that is not known.
    """

    values: Values = "float32"
    indices: Indices = "gaps"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("values", self.values, get_args(Values)),
            ("indices", self.indices, get_args(Indices)),
        ):
            if value not in known:
                raise InputError(f"storage {name} {value!r} is not known; choose one of {', '.join(known)}")

    @property
    def scaled(self) -> bool:
        """Whether values are whole numbers, with a scale a row."""
        return self.values in ("int8", "int4")

    def __str__(self) -> str:
        return f"{self.values} values, {self.indices} indices"


FLOAT32 = Storage()


@dataclass(frozen=True)
class Cost:
    """What one or several weights cost.

    Args:
        parameters: stored numbers: non-zeros, factor entries, dense entries (not indices, not scales).
        macs: multiply-accumulates of one matrix-vector product.
        stored_bytes: bytes of the tensors in the file (values, scales and indices).
    """

    parameters: int = 0
    macs: int = 0
    stored_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.parameters + other.parameters,
            self.macs + other.macs,
            self.stored_bytes + other.stored_bytes,
        )


def matrix_bytes(rows: int, columns: int, storage: Storage) -> int:
    """Bytes of a dense (rows, columns) matrix; whole numbers add a float16 scale a row. Expected ones of `huffman`."""
    if storage.values == "huffman":
        return _expected_huffman_bytes(rows * columns, _NORMAL_BITS)
    return rows * _number_bytes(columns, storage) + _scales_bytes(rows, storage)


def sparse_value_bytes(rows: int, nonzeros: int, storage: Storage) -> int:
    """Bytes of the values of `nonzeros` entries, with a scale for each of `rows` rows. Expected ones of `huffman`."""
    if storage.values == "huffman":
        return _expected_huffman_bytes(nonzeros, _LARGEST_BITS)
    return _number_bytes(nonzeros, storage) + _scales_bytes(rows, storage)


_NORMAL_BITS = 4.7
"""Of a whole number whose step is a sixth of the root mean square: log2(6 √(2πe)) = 4.63 and a little for normal
numbers, more than for others as large."""
_LARGEST_BITS = 4.2
"""The same where the smallest numbers were pruned, as trained overlays have it: 4.0 to 4.5."""


def _expected_huffman_bytes(count: int, bits: float) -> int:
    return STEP_BYTES + _deflated_bytes(count, count * bits)


def _deflated_bytes(symbols: int, bits: float, table: int = 40) -> int:
    """Of a deflate stream, which has a table of codes for each block, or the bytes as they are where they are few."""
    blocks = math.ceil(symbols / _BLOCK)
    return min(symbols + 5 * blocks, math.ceil(bits / 8) + table * blocks)


_BLOCK = 1 << 15  # of zlib, at most


STEP_BYTES = 4  # a float32
FINENESS = 6.0
"""Steps in the root mean square of numbers kept in `huffman`; others are in docs/decisions/0017-huffman.md."""


def nibble_bytes(count: int) -> int:
    """Bytes of so many numbers of 4 bits side by side."""
    return (count + 1) // 2


def _number_bytes(count: int, storage: Storage) -> int:
    """Of numbers side by side."""
    return nibble_bytes(count) if storage.values == "int4" else count * _VALUE_BYTES[storage.values]


def _scales_bytes(rows: int, storage: Storage) -> int:
    return rows * _SCALE_BYTES if storage.scaled else 0


def expected_index_bytes(positions: int, nonzeros: int, storage: Storage) -> int:
    """Expected bytes of the indices of `nonzeros` entries thrown at random on `positions` places.

    They leave nonzeros + 1 gaps, about geometric: P(gap >= g) = q^g with the q that gives them their mean. Then a gap
    holds q^255 / (1 - q^255) escapes on average, and a Rice quotient of parameter k is q^(2^k) / (1 - q^(2^k)).
    """
    if nonzeros == 0:
        return 0
    # q itself may round to 1; where nothing is left between non-zeros it is 0
    log_q = math.log1p(-(nonzeros + 1) / (positions + 1)) if nonzeros < positions else -math.inf
    if storage.indices == "gaps":
        return nonzeros + round(nonzeros * _geometric_quotient(log_q, ESCAPE))
    if storage.indices == "huffman":
        skips = _geometric_quotient(log_q, ESCAPE)  # of more than one a gap each takes a bit, and what ends it nine
        bits = nonzeros * (skips + 9.0 if skips > 1.0 else _huffman_bits(log_q))
        sizes = min(256.0, 5.0 / -math.expm1(log_q), nonzeros)  # of gaps that occur
        return _deflated_bytes(round(nonzeros * (1.0 + skips)), bits, 20 + round(0.12 * sizes))
    unary_bits, remainder_bits = min(
        ((nonzeros * (1 + _geometric_quotient(log_q, 2**k)), nonzeros * k) for k in range(rice_parameters(positions))),
        key=sum,
    )
    return RICE_HEADER_BYTES + math.ceil(unary_bits / 8) + math.ceil(remainder_bits / 8)


RICE_HEADER_BYTES = 1  # the parameter k


def rice_parameters(positions: int) -> int:
    """How many Rice parameters (0, 1, ...) are worth trying for gaps below `positions`."""
    return max(1, min(31, positions.bit_length()))


def _huffman_bits(log_q: float) -> float:
    """Of a geometric gap with P(gap >= g) = q^g: its entropy and some hundredths; of short gaps those of unary code."""
    p, q = -math.expm1(log_q), math.exp(log_q)
    if p > _GOLDEN:
        return 1.0 / p
    return -(p * math.log2(p) + q * log_q / math.log(2.0)) / p + 0.03


_GOLDEN = (5.0**0.5 - 1.0) / 2.0
"""From this density on unary code is the best for geometric gaps (Gallager & van Voorhis 1975)."""


def _geometric_quotient(log_q: float, divisor: int) -> float:
    """Mean of floor(gap / divisor) for a geometric gap with P(gap >= g) = q^g."""
    return -math.exp(divisor * log_q) / math.expm1(divisor * log_q)
