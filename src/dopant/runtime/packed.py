"""Weights packed for the native kernels: `pack` is the crossing from a structured weight to the machine's form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ctypes import CDLL, c_void_p
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dopant.errors import InputError
from dopant.ops.quantise import INT4, INT8, Grid, dequantise_entries, dequantise_rows, quantise_entries, quantise_rows
from dopant.ops.steps import whole_steps
from dopant.runtime.checks import check_count
from dopant.runtime.handle import Floats, Handle, check, float_array, pointer
from dopant.structures import Shape, StructuredWeight
from dopant.structures.dense import DenseWeight
from dopant.structures.doped import DopedWeight
from dopant.structures.kronecker import KroneckerWeight
from dopant.structures.low_rank import LowRankWeight
from dopant.structures.sparse import MaskedWeight, SparseWeight
from dopant.structures.stacked import StackedWeight

Precision = Literal["exact", "fast"]


@dataclass(frozen=True)
class Packer:
    """What packing depends on.

    Args:
        library: the native library.
        precision: `"exact"` keeps every value to the last bit; `"fast"` rounds values to 8 bits, with a scale a row,
            and activations too; Kronecker products to 16.
        lookup: the rows are looked up and never multiplied (an embedding).
    """

    library: CDLL
    precision: Precision
    lookup: bool = False

    @property
    def fast(self) -> bool:
        """Whether values may be rounded."""
        return self.precision == "fast"

    def make(self, function: str, *arguments: Any) -> Handle:
        """Call a constructor of the library; arrays must live until it returns.

        Raises:
            DopantError: it failed.
        """
        return Handle(self.library, "weight", getattr(self.library, function)(*arguments))


class PackedWeight:
    """A weight in the native library's hands. Safe to use from several threads.

    Args:
        weight: what it stands for.
        packer: how to pack.
        shape: what it must be of; None for whatever it is.

    Raises:
        InputError: another shape, or a kind of weight without a kernel.
    """

    def __init__(self, weight: StructuredWeight, packer: Packer, shape: Shape | None = None) -> None:
        if shape is not None and weight.shape != shape:
            raise InputError(f"a weight of shape {shape} is needed here, got one of shape {weight.shape}")
        self.shape = weight.shape
        self.handle = pack(weight, packer)

    @property
    def bytes(self) -> int:
        """Bytes that it holds."""
        return int(self.handle.library.dopant_weight_bytes(self.handle))

    def linear(self, x: Floats, bias: Floats | None = None) -> Floats:
        """x (n, in) float32 -> x Wᵀ + bias (n, out); both contiguous.

        Raises:
            InputError: more rows than a call takes.
        """
        check_count(len(x))
        y = np.empty((len(x), self.shape[0]), np.float32)
        offset = None if bias is None else pointer(bias)
        handle = self.handle
        check(handle.library, handle.run(handle, offset, pointer(x), len(x), pointer(y)))
        return y

    def rows(self, index: npt.NDArray[np.int64]) -> Floats:
        """Rows of W: contiguous index (n,), within 0 … out - 1, -> (n, in)."""
        y = np.empty((len(index), self.shape[1]), np.float32)
        library = self.handle.library
        check(library, library.dopant_rows(self.handle, pointer(index), len(index), pointer(y)))
        return y


def own_bias(bias: Tensor | None, rows: int, name: str = "the bias") -> Floats | None:
    """A bias, if there is one, as an array of our own: the model may go on changing its.

    Raises:
        InputError: it is not of shape (rows,), which the kernels read it as.
    """
    if bias is None:
        return None
    if bias.shape != (rows,):
        raise InputError(f"{name} must be of shape ({rows},), got {tuple(bias.shape)}")
    return float_array(bias).copy()


def check_precision(precision: str) -> None:
    """Raise InputError unless it is one of the precisions."""
    if precision not in get_args(Precision):
        raise InputError(f"precision is one of {', '.join(get_args(Precision))}, got {precision!r}")


@singledispatch
def pack(weight: StructuredWeight, packer: Packer) -> Handle:
    """Pack a weight; each kind has its own function, registered here or by whoever brings the kind.

    Raises:
        InputError: a kind without one.
    """
    raise InputError(f"no kernel is known for a {type(weight).__name__}; register one with dopant.runtime.packed.pack")


@pack.register
def _dense(weight: DenseWeight, packer: Packer) -> Handle:
    return _matrix(weight.matrix, packer)


@pack.register
def _low_rank(weight: LowRankWeight, packer: Packer) -> Handle:
    return packer.make("dopant_product", _matrix(weight.left, packer), _matrix(weight.right, packer))


@pack.register
def _kronecker(weight: KroneckerWeight, packer: Packer) -> Handle:
    factors = [float_array(factor) for factor in weight.factors]
    shapes = np.array([factor.shape[1:] for factor in factors], np.int32)
    addresses = (c_void_p * len(factors))(*[factor.ctypes.data for factor in factors])
    place = (factors[0].shape[0], len(factors), shapes.ctypes.data, addresses)
    return packer.make("dopant_kronecker", *place, packer.fast)


@pack.register
def _doped(weight: DopedWeight, packer: Packer) -> Handle:
    return _joined(packer, [pack(weight.base, packer), pack(weight.overlay, packer)], "dopant_sum")


@pack.register
def _stacked(weight: StackedWeight, packer: Packer) -> Handle:
    return _joined(packer, [pack(part, packer) for part in weight._parts()], "dopant_stack")


@pack.register
def _masked(weight: MaskedWeight, packer: Packer) -> Handle:
    return pack(weight.compact(), packer)


@pack.register
def _sparse(weight: SparseWeight, packer: Packer) -> Handle:
    positions, order = weight.positions.cpu().sort(stable=True)  # rising already, unless made by hand
    size = weight.shape[0] * weight.shape[1]
    if len(order) and (positions[0] < 0 or positions[-1] >= size or bool((positions.diff() == 0).any())):
        wanted = f"different numbers from 0 to {size - 1}"
        raise InputError(f"the positions of a sparse weight {weight.shape} must be {wanted}, got {weight.positions}")
    entries, rows = weight.values.detach().cpu()[order], positions // weight.shape[1]
    starts = np.zeros(weight.shape[0] + 1, np.int64)
    np.cumsum(np.bincount(rows.numpy(), minlength=weight.shape[0]), out=starts[1:])
    columns = (positions % weight.shape[1]).numpy().astype(np.int32)
    place = (*weight.shape, packer.lookup, starts.ctypes.data, columns.ctypes.data)
    bytes_ = _in_bytes(
        entries,
        weight.shape[0],
        packer,
        lambda values, scale_type, grid: quantise_entries(values, rows, weight.shape[0], scale_type, grid),
        lambda values, scales: dequantise_entries(values, rows, scales),
    )
    if bytes_ is None:
        floats = float_array(entries)
        return packer.make("dopant_sparse", *place, floats.ctypes.data)
    values, scales = bytes_
    return packer.make("dopant_sparse_int8", *place, values.ctypes.data, scales.ctypes.data, packer.fast)


def _matrix(matrix: Tensor, packer: Packer) -> Handle:
    bytes_ = _in_bytes(matrix, len(matrix), packer, quantise_rows, dequantise_rows)
    rows, columns = matrix.shape
    if bytes_ is None:
        floats = float_array(matrix)
        return packer.make("dopant_dense", rows, columns, floats.ctypes.data)
    values, scales = bytes_
    return packer.make("dopant_dense_int8", rows, columns, values.ctypes.data, scales.ctypes.data, packer.fast)


_IN_FILES = tuple((torch.float16, Grid(grid.last)) for grid in (INT8, INT4))
_FINER = (torch.float32, INT8)


def _in_bytes(
    values: Tensor,
    rows: int,
    packer: Packer,
    quantise: Callable[[Tensor, torch.dtype, Grid], tuple[Tensor, Tensor]],
    dequantise: Callable[[Tensor, Tensor], Tensor],
) -> tuple[npt.NDArray[np.int8], Floats] | None:
    """Values as int8 with float32 scales, where that loses nothing (a file had whole numbers) or is asked for."""
    values = values.detach().float().cpu()
    found = whole_steps(values)
    if found is not None and (not found[0].numel() or int(found[0].abs().max()) <= INT8.last):
        return np.ascontiguousarray(found[0].numpy(), np.int8), np.full(rows, found[1].item(), np.float32)
    for kind in (*_IN_FILES, _FINER) if packer.fast else _IN_FILES:
        try:
            levels, scales = quantise(values, *kind)
        except ValueError:  # not finite, or too large for a float16 scale
            continue
        if kind == _FINER or bool((dequantise(levels, scales) == values).all()):
            return np.ascontiguousarray(levels.numpy()), float_array(scales)
    return None


def _joined(packer: Packer, parts: Sequence[Handle], function: str) -> Handle:
    """A weight of weights; the library shares the parts, so that our hold on them may end here."""
    addresses = (c_void_p * len(parts))(*[part._as_parameter_.value for part in parts])
    return packer.make(function, addresses, len(parts))
