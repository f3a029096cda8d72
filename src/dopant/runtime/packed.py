"""Weights packed for the native kernels: `pack` is the crossing from a structured weight to the machine's form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ctypes import CDLL, c_void_p
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dopant.errors import DopantError, InputError
from dopant.ops.quantise import dequantise_entries, dequantise_rows, quantise_entries, quantise_rows
from dopant.structures import StructuredWeight
from dopant.structures.dense import DenseWeight
from dopant.structures.doped import DopedWeight
from dopant.structures.kronecker import KroneckerWeight
from dopant.structures.low_rank import LowRankWeight
from dopant.structures.sparse import MaskedWeight, SparseWeight
from dopant.structures.stacked import StackedWeight

Precision = Literal["exact", "fast"]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Packer:
    """What packing depends on.

    Args:
        library: the native library.
        precision: `"exact"` keeps every value to the last bit; `"fast"` rounds values to 8 bits, with a scale a row,
            and activations too.
        lookup: the rows are looked up and never multiplied (an embedding).
    """

    library: CDLL
    precision: Precision
    lookup: bool = False

    @property
    def fast(self) -> bool:
        """Whether values may be rounded."""
        return self.precision == "fast"

    def make(self, function: str, *arguments: Any) -> c_void_p:
        """Call a constructor of the library.

        Raises:
            DopantError: it failed; the message is the library's.
        """
        handle = getattr(self.library, function)(*arguments)
        if not handle:
            raise DopantError(f"the native library could not pack a weight: {self.library.dopant_error().decode()}")
        return c_void_p(handle)


class PackedWeight:
    """A weight in the native library's hands; freed with this object. Safe to use from several threads.

    Args:
        weight: what it stands for.
        packer: how to pack.
    """

    def __init__(self, weight: StructuredWeight, packer: Packer) -> None:
        self.shape = weight.shape
        self.library = packer.library
        self.handle = pack(weight, packer)

    @property
    def bytes(self) -> int:
        """Bytes that it holds."""
        return int(self.library.dopant_weight_bytes(self.handle))

    def linear(self, x: Floats, bias: Floats | None = None) -> Floats:
        """x (n, in) -> x Wᵀ + bias (n, out)."""
        y = np.empty((len(x), self.shape[0]), np.float32)
        address = None if bias is None else bias.ctypes.data
        check(self.library, self.library.dopant_linear(self.handle, address, x.ctypes.data, len(x), y.ctypes.data))
        return y

    def rows(self, index: npt.NDArray[np.int64]) -> Floats:
        """Rows of W: index (n,), within 0 … out - 1, -> (n, in)."""
        y = np.empty((len(index), self.shape[1]), np.float32)
        check(self.library, self.library.dopant_rows(self.handle, index.ctypes.data, len(index), y.ctypes.data))
        return y

    def __del__(self) -> None:
        if getattr(self, "handle", None) is not None:
            self.library.dopant_free_weight(self.handle)


def check_precision(precision: str) -> None:
    """Raise InputError unless it is one of the precisions."""
    if precision not in get_args(Precision):
        raise InputError(f"precision is one of {', '.join(get_args(Precision))}, got {precision!r}")


def check(library: CDLL, result: int) -> None:
    """Raise DopantError if a native call failed (it ran out of memory)."""
    if result != 0:
        raise DopantError(f"the native library failed: {library.dopant_error().decode()}")


@singledispatch
def pack(weight: StructuredWeight, packer: Packer) -> c_void_p:
    """Pack a weight; each kind has its own function, registered here or by whoever brings the kind.

    Raises:
        InputError: a kind without one.
    """
    raise InputError(f"no kernel is known for a {type(weight).__name__}; register one with dopant.runtime.packed.pack")


@pack.register
def _dense(weight: DenseWeight, packer: Packer) -> c_void_p:
    return _matrix(weight.matrix, packer)


@pack.register
def _low_rank(weight: LowRankWeight, packer: Packer) -> c_void_p:
    return _joined(packer, [_matrix(weight.left, packer), _matrix(weight.right, packer)], "dopant_product")


@pack.register
def _kronecker(weight: KroneckerWeight, packer: Packer) -> c_void_p:
    factors = [_array(factor) for factor in weight.factors]
    shapes = np.array([factor.shape[1:] for factor in factors], np.int32)
    addresses = (c_void_p * len(factors))(*[factor.ctypes.data for factor in factors])
    return packer.make("dopant_kronecker", factors[0].shape[0], len(factors), shapes.ctypes.data, addresses)


@pack.register
def _doped(weight: DopedWeight, packer: Packer) -> c_void_p:
    return _joined(packer, [pack(weight.base, packer), pack(weight.overlay, packer)], "dopant_sum")


@pack.register
def _stacked(weight: StackedWeight, packer: Packer) -> c_void_p:
    return _joined(packer, [pack(part, packer) for part in weight._parts()], "dopant_stack")


@pack.register
def _masked(weight: MaskedWeight, packer: Packer) -> c_void_p:
    return pack(weight.compact(), packer)


@pack.register
def _sparse(weight: SparseWeight, packer: Packer) -> c_void_p:
    rows = weight.row_index
    starts = np.zeros(weight.shape[0] + 1, np.int64)
    np.cumsum(np.bincount(rows.cpu().numpy(), minlength=weight.shape[0]), out=starts[1:])
    columns = weight.column_index.cpu().numpy().astype(np.int32)
    place = (*weight.shape, packer.lookup, starts.ctypes.data, columns.ctypes.data)
    bytes_ = _in_bytes(
        weight.values,
        packer,
        lambda values: quantise_entries(values, rows, weight.shape[0]),
        lambda values, scales: dequantise_entries(values, rows, scales),
    )
    if bytes_ is None:
        return packer.make("dopant_sparse", *place, _array(weight.values).ctypes.data)
    values, scales = bytes_
    return packer.make("dopant_sparse_int8", *place, values.ctypes.data, scales.ctypes.data, packer.fast)


def _matrix(matrix: Tensor, packer: Packer) -> c_void_p:
    bytes_ = _in_bytes(matrix, packer, quantise_rows, dequantise_rows)
    rows, columns = matrix.shape
    if bytes_ is None:
        return packer.make("dopant_dense", rows, columns, _array(matrix).ctypes.data)
    values, scales = bytes_
    return packer.make("dopant_dense_int8", rows, columns, values.ctypes.data, scales.ctypes.data, packer.fast)


def _in_bytes(
    values: Tensor,
    packer: Packer,
    quantise: Callable[[Tensor], tuple[Tensor, Tensor]],
    dequantise: Callable[[Tensor, Tensor], Tensor],
) -> tuple[npt.NDArray[np.int8], Floats] | None:
    """Values as int8 with float32 scales, where that loses nothing (they came from an int8 file) or is asked for."""
    values = values.detach().float().cpu()
    try:
        levels, scales = quantise(values)
    except ValueError:  # not finite, or too large for a float16 scale
        return None
    if not packer.fast and not bool((dequantise(levels, scales) == values).all()):
        return None
    return np.ascontiguousarray(levels.numpy()), _array(scales)


def _joined(packer: Packer, parts: Sequence[c_void_p], function: str) -> c_void_p:
    """A weight of weights; the library shares the parts, so that our hold on them ends here."""
    try:
        if function == "dopant_product":
            return packer.make(function, *parts)
        return packer.make(function, (c_void_p * len(parts))(*[part.value for part in parts]), len(parts))
    finally:
        for part in parts:
            packer.library.dopant_free_weight(part)


def _array(tensor: Tensor) -> Floats:
    return np.ascontiguousarray(tensor.detach().float().cpu().numpy())
