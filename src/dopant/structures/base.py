"""The central abstraction: a structure says how a matrix is kept, a structured weight is a matrix kept so."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from dopant.cost import FLOAT32, Cost, Storage
from dopant.errors import InputError
from dopant.ops.sparse import exporting
from dopant.ops.steps import steps_bytes

Shape = tuple[int, int]
"""(out_features, in_features), as in torch.nn.Linear."""

OMITTED = "omitted"
"""Metadata of a structure's field that descriptions leave out at its default: files without it stay as they were."""


class Structure(ABC):
    """How a matrix is kept. Subclasses are frozen dataclasses; in JSON they go by their `kind`."""

    kind: ClassVar[str]

    @abstractmethod
    def check(self, shape: Shape) -> None:
        """Raise InputError, with a way out, if a matrix of `shape` cannot be kept so."""

    @abstractmethod
    def cost(self, shape: Shape, storage: Storage = FLOAT32) -> Cost:
        """The cost of the stored form in closed form; allocates nothing.

        Bytes of sparse indices are those expected of a random pattern, bytes of values in `huffman` those of usual
        numbers; everything else is exact.
        """

    @abstractmethod
    def new(
        self, shape: Shape, *, std: float | None = None, generator: torch.Generator | None = None
    ) -> StructuredWeight:
        """A random weight whose W has standard deviation `std` (default: torch.nn.Linear's, 1 / sqrt(3 in))."""

    @abstractmethod
    def fit(self, matrix: Tensor) -> StructuredWeight:
        """The weight nearest to a dense (out, in) matrix in the Frobenius norm (for compositions, a local best)."""


class StructuredWeight(nn.Module, ABC):
    """Stands for a matrix W of `shape`. The whole contract is in the remarks of `linear` and `rows`.

    Attributes:
        shape: (out, in).
        storage: how a file is to write the weight: as the plan says that was applied last, or as the file had it that
            it was loaded from; float32 where there was neither. Copies remember it, a state dict does not.
        row_masks: None, or one mask a path (see `paths`), each (out,), (batch, out) or (time, batch, out), that a
            training loop has set for a while; layers honour it, `to_dense`, `linear` and `rows` never do.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape: Shape = (int(shape[0]), int(shape[1]))
        self.storage = FLOAT32
        self.row_masks: tuple[Tensor, ...] | None = None

    @property
    @abstractmethod
    def structure(self) -> Structure:
        """The description from which a weight of this kind and size can be made again."""

    @abstractmethod
    def to_dense(self) -> Tensor:
        """W itself, (out, in): this defines what the weight stands for."""

    @abstractmethod
    def linear(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out); equals F.linear(x, self.to_dense()) without forming it."""

    @abstractmethod
    def rows(self, index: Tensor) -> Tensor:
        """index (...) of integers -> (..., in); equals self.to_dense()[index] without forming it."""

    def cost(self, storage: Storage = FLOAT32) -> Cost:
        """The exact cost of this weight in its stored form: its structure's, unless that depends on the entries.

        In `huffman` it is taken that each parameter of its own is a matrix of the file; other weights have other costs.
        """
        cost = self.structure.cost(self.shape, storage)
        if storage.values != "huffman":
            return cost
        matrices = [matrix for _, matrix in self.named_parameters(recurse=False, remove_duplicate=False)]
        if any(matrix.is_meta for matrix in matrices):
            return cost
        return replace(cost, stored_bytes=sum(map(steps_bytes, matrices)))

    def paths(self) -> tuple[StructuredWeight, ...]:
        """The summands of W that training may treat apart: (structure, overlay) when doped, else (self,)."""
        return (self,)

    def extra_repr(self) -> str:
        """The shape, for `print(model)`."""
        return f"{self.shape[0]}×{self.shape[1]}"


KINDS: dict[str, type[Structure]] = {}
"""Structures by the name they have in files."""

S = TypeVar("S", bound=type[Structure])


def register(structure: S) -> S:
    """Class decorator: make a structure known to files and plans by its `kind`.

    Raises:
        InputError: another class already has this kind.
    """
    if KINDS.setdefault(structure.kind, structure) is not structure:
        raise InputError(f"structure kind {structure.kind!r} is taken by {KINDS[structure.kind].__name__}")
    return structure


def check_whole(what: str, value: object, least: int) -> None:
    """Raise InputError unless `value` is an int of at least `least`."""
    if type(value) is not int or value < least:
        raise InputError(f"{what} must be a whole number of {least} or more, got {value!r}")


def checked_index(index: Tensor, rows: int) -> Tensor:
    """Indices as a flat int64 tensor; IndexError, as of torch.nn.Embedding, unless all are in 0 ... rows - 1.

    Programs that torch.export makes do not look.
    """
    flat = index.reshape(-1).long()
    if not exporting() and flat.numel() and not 0 <= int(flat.min()) <= int(flat.max()) < rows:
        raise IndexError(f"row indices must be in 0 ... {rows - 1}, got {int(flat.min())} to {int(flat.max())}")
    return flat


def linear_std(shape: Shape) -> float:
    """Standard deviation of torch.nn.Linear's initial weights: uniform within ±1 / sqrt(in)."""
    return float((3.0 * max(1, shape[1])) ** -0.5)


def uniform(*size: int, std: float, generator: torch.Generator | None = None, **options: Any) -> Tensor:
    """A uniform tensor of mean zero and the given standard deviation."""
    bound = std * 3.0**0.5
    return torch.empty(*size, **options).uniform_(-bound, bound, generator=generator)
