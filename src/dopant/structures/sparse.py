"""A matrix of which few entries are not zero: the product of pruning, and the overlay of doping.

Two forms of one thing. `SparseWeight` is the stored form: values and their positions. `MaskedWeight` is the form that
is trained: a full matrix under a mask, so that entries can be chosen while training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dopant.cost import FLOAT32, Cost, Storage, expected_index_bytes, sparse_value_bytes
from dopant.errors import InputError
from dopant.ops.aligned import aligned_linear
from dopant.ops.indices import index_bytes
from dopant.ops.sparse import balanced_mask, sparse_linear, top_k_mask
from dopant.ops.steps import steps_bytes
from dopant.structures.base import (
    OMITTED,
    Shape,
    Structure,
    StructuredWeight,
    check_whole,
    checked_index,
    linear_std,
    register,
    uniform,
)

MOST_PER_BANK = 256


@register
@dataclass(frozen=True)
class Sparse(Structure):
    """Exactly `nonzeros` entries are kept.

    Args:
        nonzeros: how many.
        per_bank: cut the columns into equal strips, so many that `per_bank` entries of each row fall into each (256 at
            most); what is kept spreads over them evenly. Kernels that look x up in registers need no filling then. 0:
            entries may lie anywhere. See `dopant.ops.sparse.balanced_mask`.
    """

    nonzeros: int
    per_bank: int = field(default=0, metadata={OMITTED: True})
    kind: ClassVar[str] = "sparse"

    def __post_init__(self) -> None:
        check_whole("the non-zeros of a sparse matrix", self.nonzeros, 0)
        check_whole("the entries of a row in a bank", self.per_bank, 0)
        if self.per_bank > MOST_PER_BANK:
            raise InputError(f"{self.per_bank} entries of a row in a bank are too many; at most {MOST_PER_BANK}")

    def banks(self, shape: Shape) -> int:
        """Into how many strips the columns are cut; 0 if entries may lie anywhere."""
        if self.per_bank == 0:
            return 0
        return min(shape[1], max(1, math.ceil(self.nonzeros / (self.per_bank * max(1, shape[0])))))

    def check(self, shape: Shape) -> None:
        """There cannot be more non-zeros than entries."""
        if self.nonzeros > shape[0] * shape[1]:
            raise InputError(
                f"{self.nonzeros} non-zeros do not fit into a matrix {shape[0]}×{shape[1]}; "
                f"it has {shape[0] * shape[1]} entries"
            )

    def cost(self, shape: Shape, storage: Storage = FLOAT32) -> Cost:
        """Values, and the indices that a random pattern is expected to take."""
        stored = sparse_value_bytes(shape[0], self.nonzeros, storage)
        stored += expected_index_bytes(shape[0] * shape[1], self.nonzeros, storage)
        return Cost(self.nonzeros, self.nonzeros, stored)

    def new(self, shape: Shape, *, std: float | None = None, generator: torch.Generator | None = None) -> SparseWeight:
        """Random places; values so large that W, zeros counted, has the standard deviation asked for."""
        self.check(shape)
        entries = shape[0] * shape[1]
        if banks := self.banks(shape):
            scores = torch.rand(shape, generator=generator)
            positions = balanced_mask(scores, self.nonzeros, banks).view(-1).nonzero().squeeze(1)
        else:
            positions = torch.randperm(entries, generator=generator)[: self.nonzeros].sort().values
        target = linear_std(shape) if std is None else std
        scale = (entries / max(1, self.nonzeros)) ** 0.5
        values = uniform(self.nonzeros, std=target * scale, generator=generator)
        return SparseWeight(shape, values, positions, self.per_bank)

    def fit(self, matrix: Tensor) -> SparseWeight:
        """The largest entries."""
        shape = (matrix.shape[0], matrix.shape[1])
        self.check(shape)
        matrix = matrix.detach()
        return MaskedWeight(matrix, largest(matrix, self.nonzeros, self.banks(shape)), self.per_bank).compact()


def largest(matrix: Tensor, count: int, banks: int = 0, among: Tensor | None = None) -> Tensor:
    """A mask of the `count` entries of the largest magnitude, spread over banks if there are any.

    Args:
        matrix: (m, n); without banks of any shape.
        count, banks: as in `dopant.ops.sparse`; no banks, no spreading.
        among: a mask that no other entry may join while it has `count` entries: of the matrix's shape, bool.
    """
    scores = matrix.detach().abs()
    if among is not None:
        scores = scores.nan_to_num(nan=0.0, posinf=math.inf).masked_fill(~among, -1.0)
    return balanced_mask(scores, count, banks) if banks else top_k_mask(scores, count)


class SparseWeight(StructuredWeight):
    """The stored form: parameter `values` (nonzeros,), buffer `positions` (nonzeros,), int64, row-major, rising.

    `per_bank` tells how the positions were chosen, see `Sparse`; nothing relies on it.
    """

    positions: Tensor

    def __init__(self, shape: Shape, values: Tensor, positions: Tensor, per_bank: int = 0) -> None:
        super().__init__(shape)
        self.per_bank = per_bank
        self.values = nn.Parameter(values)
        self.register_buffer("positions", positions)

    @property
    def structure(self) -> Sparse:
        """Sparse with as many non-zeros as there are values."""
        return Sparse(self.values.numel(), self.per_bank)

    @property
    def row_index(self) -> Tensor:
        """The row of each value, int64."""
        return self.positions // self.shape[1]

    @property
    def column_index(self) -> Tensor:
        """The column of each value, int64."""
        return self.positions % self.shape[1]

    def to_dense(self) -> Tensor:
        """Zeros with the values put in their places."""
        flat = self.values.new_zeros(self.shape[0] * self.shape[1])
        return flat.index_put((self.positions,), self.values).view(self.shape)

    def linear(self, x: Tensor) -> Tensor:
        """A sparse product."""
        return sparse_linear(x, self.values, self.row_index, self.column_index, self.shape[0])

    def rows(self, index: Tensor) -> Tensor:
        """Only the asked rows are filled in."""
        flat = checked_index(index, self.shape[0])
        first = torch.searchsorted(self.positions, flat * self.shape[1])
        counts = torch.searchsorted(self.positions, (flat + 1) * self.shape[1]) - first
        target = torch.repeat_interleave(torch.arange(flat.shape[0], device=flat.device), counts)
        within = torch.arange(target.shape[0], device=flat.device) - (counts.cumsum(0) - counts)[target]
        source = first[target] + within
        out = self.values.new_zeros(flat.shape[0], self.shape[1])
        out = out.index_put((target, self.column_index[source]), self.values[source])
        return out.view(*index.shape, self.shape[1])

    def cost(self, storage: Storage = FLOAT32) -> Cost:
        """With the bytes that this very pattern, and in `huffman` these very values take."""
        count = self.values.numel()
        if storage.values == "huffman":
            stored = steps_bytes(self.values)
        else:
            stored = sparse_value_bytes(self.shape[0], count, storage)
        stored += index_bytes(self.positions, self.shape[0] * self.shape[1], storage.indices)
        return Cost(count, count, stored)


class MaskedWeight(StructuredWeight):
    """The training form: parameter `matrix` (out, in) under the boolean buffer `mask`.

    Entries under a false mask count as zero and get no gradient, whatever they hold.
    """

    mask: Tensor

    def __init__(self, matrix: Tensor, mask: Tensor, per_bank: int = 0) -> None:
        super().__init__((matrix.shape[0], matrix.shape[1]))
        self.per_bank = per_bank
        self.matrix = nn.Parameter(matrix)
        self.register_buffer("mask", mask)

    @classmethod
    def from_sparse(cls, weight: SparseWeight) -> MaskedWeight:
        """The same weight, opened for training."""
        mask = torch.zeros(weight.shape, dtype=torch.bool, device=weight.positions.device)
        mask.view(-1)[weight.positions] = True
        return cls(weight.to_dense().detach(), mask, weight.per_bank)

    def compact(self) -> SparseWeight:
        """The stored form: exactly the entries under the mask, zero or not."""
        positions = self.mask.reshape(-1).nonzero().squeeze(1)
        values = self.matrix.detach().reshape(-1)[positions].clone()
        made = SparseWeight(self.shape, values, positions, self.per_bank)
        made.values.requires_grad_(self.matrix.requires_grad)
        return made

    @property
    def structure(self) -> Sparse:
        """Sparse with as many non-zeros as the mask lets through."""
        return Sparse(int(self.mask.sum()), self.per_bank)

    def to_dense(self) -> Tensor:
        """The matrix where the mask is true, else zero."""
        return torch.where(self.mask, self.matrix, 0.0)

    def linear(self, x: Tensor) -> Tensor:
        """A dense product: in training the matrix is held anyway."""
        return aligned_linear(x, self.to_dense())

    def rows(self, index: Tensor) -> Tensor:
        """A look-up under the mask."""
        return torch.where(F.embedding(index, self.mask), F.embedding(index, self.matrix), 0.0)

    def cost(self, storage: Storage = FLOAT32) -> Cost:
        """That of the stored form."""
        return self.compact().cost(storage)
