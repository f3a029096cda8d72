"""The crossing from weights to the tensors of a file, and back.

Three open functions, so that a structure defined elsewhere can be stored too: register an implementation of `layout`
and `unpack` for its structure and one of `pack` for its weight. `docs/file_format.md` tells the names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import TypeVar

import torch
from torch import Tensor, nn

from dopant.cost import Storage, nibble_bytes
from dopant.errors import InputError, KindError, TensorError
from dopant.ops.indices import decode_indices, encode_indices
from dopant.ops.nibbles import decode_nibbles, encode_nibbles
from dopant.ops.quantise import (
    INT4,
    INT8,
    dequantise_entries,
    dequantise_rows,
    quantise_entries,
    quantise_rows,
)
from dopant.ops.steps import decode_steps, dequantise_steps, encode_steps
from dopant.structures.base import Shape, Structure, StructuredWeight
from dopant.structures.dense import Dense, DenseWeight
from dopant.structures.doped import Doped, DopedWeight
from dopant.structures.kronecker import Kronecker, KroneckerWeight
from dopant.structures.low_rank import LowRank, LowRankWeight
from dopant.structures.sparse import MaskedWeight, Sparse, SparseWeight
from dopant.structures.stacked import Stacked, StackedWeight

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "int8": torch.int8}
_GRIDS = {"int8": INT8, "int4": INT4}
SCALE = ".scale"
STEP = ".step"
POSITIONS = "positions"
T = TypeVar("T")


@dataclass(frozen=True)
class TensorType:
    """What a file must hold under a name; a size of None may be any."""

    dtype: torch.dtype
    shape: tuple[int | None, ...]

    def fits(self, dtype: torch.dtype, shape: tuple[int, ...]) -> bool:
        """Whether a tensor is of this type."""
        return (
            dtype == self.dtype
            and len(shape) == len(self.shape)
            and all(want in (None, got) for want, got in zip(self.shape, shape, strict=True))
        )

    def __str__(self) -> str:
        sizes = ", ".join("any" if size is None else str(size) for size in self.shape)
        return f"{str(self.dtype).removeprefix('torch.')} ({sizes})"


Layout = dict[str, TensorType]


@singledispatch
def layout(structure: Structure, shape: Shape, storage: Storage) -> Layout:
    """The tensors that a weight of this structure and shape makes; allocates nothing.

    Raises:
        InputError: the structure does not fit the shape.
        KindError: nobody has registered how this structure is stored.
    """
    raise KindError(f"nothing is registered to store structure {structure.kind!r}")


@singledispatch
def pack(weight: nn.Module, storage: Storage) -> dict[str, Tensor]:
    """The stored form of a weight, on the CPU, under the names of `layout`.

    Raises:
        InputError: values that are not finite, or too large for the type of values.
        KindError: nobody has registered how this weight is stored.
    """
    raise KindError(f"nothing is registered to store a {type(weight).__name__}")


@singledispatch
def unpack(structure: Structure, shape: Shape, tensors: Mapping[str, Tensor], storage: Storage) -> StructuredWeight:
    """The inverse of `pack`, in float32: the weight in its compact form.

    Args:
        structure: as described in the file.
        shape: (out, in) of the weight.
        tensors: exactly those of `layout`; `check_types` sees to it.
        storage: how they were written.

    Raises:
        TensorError: values, scales or index codes that are impossible.
        KindError: nobody has registered how this structure is stored.
    """
    raise KindError(f"nothing is registered to read structure {structure.kind!r}")


def check_types(expected: Layout, found: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> None:
    """Raise TensorError unless exactly the expected tensors are there, each of its type."""
    for name, want in expected.items():
        if name not in found:
            raise TensorError(f"tensor {name!r} is missing; it must be {want}")
        if not want.fits(*found[name]):
            raise TensorError(f"tensor {name!r} is {TensorType(*found[name])} where {want} is needed")
    surplus = [name for name in found if name not in expected]
    if surplus:
        raise TensorError(f"tensor {surplus[0]!r} belongs to nothing in this model")


def matrix_layout(name: str, size: tuple[int, ...], storage: Storage) -> Layout:
    """The tensors of a matrix (..., rows, columns): itself and, as whole numbers, a scale for each row or a step."""
    types = {name: _numbers(size, storage)}
    if storage.values == "huffman":
        types[name + STEP] = TensorType(torch.float32, ())
    if storage.scaled:
        types[name + SCALE] = TensorType(torch.float16, size[:-1])
    return types


def pack_matrix(name: str, matrix: Tensor, storage: Storage) -> dict[str, Tensor]:
    """A matrix (..., rows, columns) in the stored type of values. Raises InputError as `pack` does."""
    matrix = matrix.detach().cpu().float()
    if storage.values == "huffman":
        return _coded(name, matrix)
    if not storage.scaled:
        return {name: _cast(name, matrix, storage)}
    return _quantised(name, storage, lambda: quantise_rows(matrix, grid=_GRIDS[storage.values]))


def unpack_matrix(name: str, tensors: Mapping[str, Tensor], size: tuple[int, ...], storage: Storage) -> Tensor:
    """The inverse of `pack_matrix`, float32 (..., rows, columns). Raises TensorError as `unpack` does."""
    if storage.values == "huffman":
        return _decoded(name, tensors, size)
    values = _values(name, tensors, size[-1], storage)
    return dequantise_rows(values, _scales(name, tensors)) if storage.scaled else values


def pack_child(name: str, weight: nn.Module, storage: Storage) -> dict[str, Tensor]:
    """`pack` for one part of a composition, every tensor under the part's name."""
    try:
        return _under(name, pack(weight, storage))
    except InputError as error:
        raise InputError(f"{name}.{error}") from error


def unpack_child(
    name: str, structure: Structure, shape: Shape, tensors: Mapping[str, Tensor], storage: Storage
) -> StructuredWeight:
    """`unpack` for one part of a composition, from the tensors under the part's name."""
    mine = {key.removeprefix(name + "."): value for key, value in tensors.items() if key.startswith(name + ".")}
    try:
        return unpack(structure, shape, mine, storage)
    except TensorError as error:
        raise TensorError(f"{name}.{error}") from error


def _under(name: str, tensors: Mapping[str, T]) -> dict[str, T]:
    return {f"{name}.{key}": value for key, value in tensors.items()}


def _cast(name: str, values: Tensor, storage: Storage) -> Tensor:
    if not torch.isfinite(values).all():
        raise InputError(f"{name} holds values that are not finite; such a model cannot be stored")
    cast = values.to(_DTYPES[storage.values])
    if not torch.isfinite(cast).all():
        largest = values.abs().max().item()
        raise InputError(f"{name} holds {largest:.4g}, too large for {storage.values}; keep float32 values")
    return cast.contiguous()


def _numbers(size: tuple[int, ...], storage: Storage) -> TensorType:
    """How numbers of this size are kept, but for their scales."""
    if storage.values == "int4":
        return TensorType(torch.uint8, (*size[:-1], nibble_bytes(size[-1])))
    if storage.values == "huffman":
        return TensorType(torch.uint8, (None,))
    return TensorType(_DTYPES[storage.values], size)


def _quantised(name: str, storage: Storage, quantise: Callable[[], tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    try:
        levels, scales = quantise()
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error
    numbers = encode_nibbles(levels) if storage.values == "int4" else levels
    return {name: numbers.contiguous(), name + SCALE: scales.contiguous()}


def _coded(name: str, values: Tensor) -> dict[str, Tensor]:
    """Values of any size as whole numbers of one step, coded by frequency."""
    try:
        codes, step = encode_steps(values)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error
    return {name: torch.from_numpy(codes), name + STEP: step}


def _decoded(name: str, tensors: Mapping[str, Tensor], size: tuple[int, ...]) -> Tensor:
    """The inverse of `_coded`, float32 of this size."""
    step = tensors[name + STEP]
    try:
        levels = decode_steps(tensors[name].numpy(), math.prod(size))
    except ValueError as error:
        raise TensorError(f"{name} cannot be read: {error}") from error
    if not torch.isfinite(step) or step < 0:
        raise TensorError(f"{name + STEP} is a step that is negative or not finite")
    values = dequantise_steps(levels, step)
    if not torch.isfinite(values).all():
        raise TensorError(f"{name} holds values that are not finite")
    return values.view(size)


def _values(name: str, tensors: Mapping[str, Tensor], columns: int, storage: Storage) -> Tensor:
    """The numbers that are kept, `columns` in a row: int8 if they have scales, else float32."""
    values = tensors[name]
    if storage.values == "int4":
        try:
            values = decode_nibbles(values, columns)
        except ValueError as error:
            raise TensorError(f"{name} cannot be read: {error}") from error
    if not storage.scaled:
        if not torch.isfinite(values).all():
            raise TensorError(f"{name} holds values that are not finite")
        return values.float()
    last = _GRIDS[storage.values].last
    if values.numel() and values.amin() < -last:
        raise TensorError(f"{name} holds {-last - 1}; {storage.values} values go from -{last} to {last}")
    return values


def _scales(name: str, tensors: Mapping[str, Tensor]) -> Tensor:
    scales = tensors[name + SCALE]
    if not torch.isfinite(scales).all() or (scales < 0).any():
        raise TensorError(f"{name + SCALE} holds scales that are negative or not finite")
    return scales


# Structures of ours


@layout.register
def _(structure: Dense, shape: Shape, storage: Storage) -> Layout:
    structure.check(shape)
    return matrix_layout("matrix", shape, storage)


@pack.register
def _(weight: DenseWeight, storage: Storage) -> dict[str, Tensor]:
    return pack_matrix("matrix", weight.matrix, storage)


@unpack.register
def _(structure: Dense, shape: Shape, tensors: Mapping[str, Tensor], storage: Storage) -> StructuredWeight:
    return DenseWeight(unpack_matrix("matrix", tensors, shape, storage))


@layout.register
def _(structure: LowRank, shape: Shape, storage: Storage) -> Layout:
    structure.check(shape)
    left = matrix_layout("left", (shape[0], structure.rank), storage)
    return left | matrix_layout("right", (structure.rank, shape[1]), storage)


@pack.register
def _(weight: LowRankWeight, storage: Storage) -> dict[str, Tensor]:
    return pack_matrix("left", weight.left, storage) | pack_matrix("right", weight.right, storage)


@unpack.register
def _(structure: LowRank, shape: Shape, tensors: Mapping[str, Tensor], storage: Storage) -> StructuredWeight:
    left = unpack_matrix("left", tensors, (shape[0], structure.rank), storage)
    return LowRankWeight(left, unpack_matrix("right", tensors, (structure.rank, shape[1]), storage))


@layout.register
def _(structure: Kronecker, shape: Shape, storage: Storage) -> Layout:
    structure.check(shape)
    types: Layout = {}
    for number, (rows, columns) in enumerate(structure.shapes):
        types |= matrix_layout(f"factor_{number}", (structure.terms, rows, columns), storage)
    return types


@pack.register
def _(weight: KroneckerWeight, storage: Storage) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for number, factor in enumerate(weight.factors):
        tensors |= pack_matrix(f"factor_{number}", factor, storage)
    return tensors


@unpack.register
def _(structure: Kronecker, shape: Shape, tensors: Mapping[str, Tensor], storage: Storage) -> StructuredWeight:
    sizes = enumerate((structure.terms, *shape) for shape in structure.shapes)
    return KroneckerWeight([unpack_matrix(f"factor_{number}", tensors, size, storage) for number, size in sizes])


@layout.register
def _(structure: Sparse, shape: Shape, storage: Storage) -> Layout:
    structure.check(shape)
    types = matrix_layout("values", (structure.nonzeros,), storage)
    if storage.scaled:  # a scale for each row of the matrix
        types["values" + SCALE] = TensorType(torch.float16, (shape[0],))
    return types | {"positions": TensorType(torch.uint8, (None,))}


@pack.register
def _(weight: SparseWeight, storage: Storage) -> dict[str, Tensor]:
    values = weight.values.detach().cpu().float()
    codes = encode_indices(weight.positions, weight.shape[0] * weight.shape[1], storage.indices)
    positions = torch.from_numpy(codes)
    if not storage.scaled:
        return pack_matrix("values", values, storage) | {"positions": positions}
    grid, rows = _GRIDS[storage.values], weight.row_index.cpu()
    packed = _quantised("values", storage, lambda: quantise_entries(values, rows, weight.shape[0], grid=grid))
    return packed | {"positions": positions}


@pack.register
def _(weight: MaskedWeight, storage: Storage) -> dict[str, Tensor]:
    return pack(weight.compact(), storage)


@unpack.register
def _(structure: Sparse, shape: Shape, tensors: Mapping[str, Tensor], storage: Storage) -> StructuredWeight:
    codes = tensors["positions"].numpy()
    try:
        decoded = decode_indices(codes, structure.nonzeros, shape[0] * shape[1], storage.indices)
    except ValueError as error:
        raise TensorError(f"positions cannot be read: {error}") from error
    positions = torch.from_numpy(decoded)
    if not storage.scaled:
        values = unpack_matrix("values", tensors, (structure.nonzeros,), storage)
    else:
        values = _values("values", tensors, structure.nonzeros, storage)
        values = dequantise_entries(values, positions // shape[1], _scales("values", tensors))
    return SparseWeight(shape, values, positions, structure.per_bank)


@layout.register
def _(structure: Stacked, shape: Shape, storage: Storage) -> Layout:
    structure.check(shape)
    types: Layout = {}
    for number, (part, rows) in enumerate(zip(structure.parts, structure.rows, strict=True)):
        types |= _under(f"parts.{number}", layout(part, (rows, shape[1]), storage))
    return types


@pack.register
def _(weight: StackedWeight, storage: Storage) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for number, part in enumerate(weight.parts):
        tensors |= pack_child(f"parts.{number}", part, storage)
    return tensors


@unpack.register
def _(structure: Stacked, shape: Shape, tensors: Mapping[str, Tensor], storage: Storage) -> StructuredWeight:
    sizes = [(rows, shape[1]) for rows in structure.rows]
    return StackedWeight(
        [
            unpack_child(f"parts.{number}", part, size, tensors, storage)
            for number, (part, size) in enumerate(zip(structure.parts, sizes, strict=True))
        ]
    )


@layout.register
def _(structure: Doped, shape: Shape, storage: Storage) -> Layout:
    structure.check(shape)
    base = _under("base", layout(structure.base, shape, storage))
    return base | _under("overlay", layout(structure.overlay, shape, storage))


@pack.register
def _(weight: DopedWeight, storage: Storage) -> dict[str, Tensor]:
    return pack_child("base", weight.base, storage) | pack_child("overlay", weight.overlay, storage)


@unpack.register
def _(structure: Doped, shape: Shape, tensors: Mapping[str, Tensor], storage: Storage) -> StructuredWeight:
    base = unpack_child("base", structure.base, shape, tensors, storage)
    overlay = unpack_child("overlay", structure.overlay, shape, tensors, storage)
    if not isinstance(overlay, SparseWeight):
        raise TensorError(f"overlay must be sparse, it reads as a {type(overlay).__name__}")
    return DopedWeight(base, overlay)
