"""The matrix itself: the structure everything else is measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dopant.cost import FLOAT32, Cost, Storage, matrix_bytes
from dopant.ops.aligned import aligned_linear
from dopant.structures.base import Shape, Structure, StructuredWeight, linear_std, register, uniform


@register
@dataclass(frozen=True)
class Dense(Structure):
    """All entries are kept."""

    kind: ClassVar[str] = "dense"

    def check(self, shape: Shape) -> None:
        """Every shape can be kept dense."""

    def cost(self, shape: Shape, storage: Storage = FLOAT32) -> Cost:
        """out · in parameters and multiply-accumulates."""
        entries = shape[0] * shape[1]
        return Cost(entries, entries, matrix_bytes(*shape, storage))

    def new(self, shape: Shape, *, std: float | None = None, generator: torch.Generator | None = None) -> DenseWeight:
        """Uniform entries."""
        return DenseWeight(uniform(*shape, std=linear_std(shape) if std is None else std, generator=generator))

    def fit(self, matrix: Tensor) -> DenseWeight:
        """A copy of the matrix."""
        return DenseWeight(matrix.detach().clone())


class DenseWeight(StructuredWeight):
    """A (out, in) parameter `matrix`."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__((matrix.shape[0], matrix.shape[1]))
        self.matrix = nn.Parameter(matrix)

    @property
    def structure(self) -> Dense:
        """Dense()."""
        return Dense()

    def to_dense(self) -> Tensor:
        """The parameter itself."""
        return self.matrix

    def linear(self, x: Tensor) -> Tensor:
        """One dense product."""
        return aligned_linear(x, self.matrix)

    def rows(self, index: Tensor) -> Tensor:
        """A look-up."""
        return F.embedding(index, self.matrix)
