"""W = Σ_r F1_r ⊗ F2_r ⊗ …: Kronecker products of two or more factors (arXiv 1906.02876, 2001.08896)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from dopant.cost import FLOAT32, Cost, Storage, matrix_bytes
from dopant.errors import InputError
from dopant.ops.kronecker import (
    contraction_macs,
    kronecker_dense,
    kronecker_linear,
    kronecker_rows,
    nearest_kronecker,
)
from dopant.structures.base import (
    Shape,
    Structure,
    StructuredWeight,
    check_whole,
    linear_std,
    register,
    uniform,
)


@register
@dataclass(frozen=True)
class Kronecker(Structure):
    """A sum of `terms` Kronecker products whose factors have the given (rows, columns)."""

    shapes: tuple[Shape, ...]
    terms: int = 1
    kind: ClassVar[str] = "kronecker"

    def __post_init__(self) -> None:
        if not isinstance(self.shapes, tuple) or len(self.shapes) < 2:
            raise InputError(f"a Kronecker product needs two or more factor shapes, got {self.shapes!r}")
        for factor in self.shapes:
            if not isinstance(factor, tuple) or len(factor) != 2:
                raise InputError(f"a factor's shape is (rows, columns), got {factor!r}")
            for size in factor:
                check_whole("a side of a Kronecker factor", size, 1)
        check_whole("the terms of a sum of Kronecker products", self.terms, 1)

    def check(self, shape: Shape) -> None:
        """The factors' rows and columns must multiply to the weight's."""
        rows, columns = prod(a for a, _ in self.shapes), prod(b for _, b in self.shapes)
        if (rows, columns) != shape:
            factors = " ⊗ ".join(f"{a}×{b}" for a, b in self.shapes)
            raise InputError(
                f"factors {factors} make a matrix {rows}×{columns}, but the weight is {shape[0]}×{shape[1]}; "
                f"their rows must multiply to {shape[0]} and their columns to {shape[1]}"
            )

    def cost(self, shape: Shape, storage: Storage = FLOAT32) -> Cost:
        """The factors' entries; the product is applied factor by factor, in the order that multiplies least."""
        return Cost(
            self.terms * sum(a * b for a, b in self.shapes),
            contraction_macs(self.shapes, self.terms),
            sum(matrix_bytes(self.terms * a, b, storage) for a, b in self.shapes),
        )

    def new(
        self, shape: Shape, *, std: float | None = None, generator: torch.Generator | None = None
    ) -> KroneckerWeight:
        """Uniform factors of one scale: var(W) = terms · Π var(factor)."""
        self.check(shape)
        target = linear_std(shape) if std is None else std
        factor_std = (target / self.terms**0.5) ** (1 / len(self.shapes))
        return KroneckerWeight([uniform(self.terms, a, b, std=factor_std, generator=generator) for a, b in self.shapes])

    def fit(self, matrix: Tensor) -> KroneckerWeight:
        """The nearest sum of Kronecker products (Van Loan & Pitsianis 1993)."""
        self.check((matrix.shape[0], matrix.shape[1]))
        return KroneckerWeight(nearest_kronecker(matrix.detach(), self.shapes, self.terms))


class KroneckerWeight(StructuredWeight):
    """Parameters `factor_0`, `factor_1`, …, each (terms, rows, columns)."""

    def __init__(self, factors: Sequence[Tensor]) -> None:
        super().__init__((prod(f.shape[1] for f in factors), prod(f.shape[2] for f in factors)))
        self.count = len(factors)
        for number, factor in enumerate(factors):
            self.register_parameter(f"factor_{number}", nn.Parameter(factor))

    @property
    def factors(self) -> list[Tensor]:
        """The factors in order, each (terms, rows, columns)."""
        return [getattr(self, f"factor_{number}") for number in range(self.count)]

    @property
    def structure(self) -> Kronecker:
        """The factors' shapes and the number of terms."""
        factors = self.factors
        return Kronecker(tuple((f.shape[1], f.shape[2]) for f in factors), factors[0].shape[0])

    def to_dense(self) -> Tensor:
        """The product, formed."""
        return kronecker_dense(self.factors)

    def linear(self, x: Tensor) -> Tensor:
        """(B ⊗ C) x = vec(B X Cᵀ)."""
        return kronecker_linear(x, self.factors)

    def rows(self, index: Tensor) -> Tensor:
        """A row of a product is the product of rows."""
        return kronecker_rows(self.factors, index)
