"""Doping: any structure plus an extremely sparse overlay, W = base + S (arXiv 2001.08896, 2102.07071)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dopant.cost import FLOAT32, Cost, Storage
from dopant.errors import InputError
from dopant.structures.base import Shape, Structure, StructuredWeight, linear_std, register
from dopant.structures.sparse import MaskedWeight, Sparse, SparseWeight

_MAX_ROUNDS = 50
_CONVERGED = 1e-3  # relative gain in squared error under which alternation stops


@register
@dataclass(frozen=True)
class Doped(Structure):
    """A structured `base` with a sparse `overlay`."""

    base: Structure
    overlay: Sparse
    kind: ClassVar[str] = "doped"

    def __post_init__(self) -> None:
        if not isinstance(self.base, Structure) or not isinstance(self.overlay, Sparse):
            raise InputError(
                f"a doped weight needs a structure and a sparse overlay, got {self.base!r} and {self.overlay!r}"
            )

    def check(self, shape: Shape) -> None:
        """Both parts must be able to keep the shape."""
        self.base.check(shape)
        self.overlay.check(shape)

    def cost(self, shape: Shape, storage: Storage = FLOAT32) -> Cost:
        """The sum of both."""
        return self.base.cost(shape, storage) + self.overlay.cost(shape, storage)

    def new(self, shape: Shape, *, std: float | None = None, generator: torch.Generator | None = None) -> DopedWeight:
        """Half of the variance each; all of it in the base if the overlay is empty."""
        self.check(shape)
        whole = linear_std(shape) if std is None else std
        half = whole * 0.5**0.5
        base = self.base.new(shape, std=half if self.overlay.nonzeros else whole, generator=generator)
        return DopedWeight(base, self.overlay.new(shape, std=half, generator=generator))

    def fit(self, matrix: Tensor) -> DopedWeight:
        """Base and overlay in turn, each nearest to what the other leaves, until it gains no more.

        Fitting once is not enough: what the overlay takes away changes the nearest base. Each turn is optimal for
        its part, so the error never rises. Which of the two goes first is tried out, so that the whole is never
        worse than one of them alone.
        """
        matrix = matrix.detach()
        self.check((matrix.shape[0], matrix.shape[1]))
        spared = self.overlay.fit(matrix).to_dense().detach()
        starts = (self._turn(matrix, matrix), self._turn(matrix, matrix - spared))
        base, overlay, error = min(starts, key=lambda turn: turn[2])
        for _ in range(_MAX_ROUNDS):
            next_base, next_overlay, next_error = self._turn(matrix, matrix - overlay.to_dense().detach())
            gain = error - next_error
            if gain > 0.0:
                base, overlay, error = next_base, next_overlay, next_error
            if not gain > _CONVERGED * error:
                break
        return DopedWeight(base, overlay)

    def _turn(self, matrix: Tensor, rest: Tensor) -> tuple[StructuredWeight, SparseWeight, float]:
        """Fit the base to `rest`, then the overlay to what is left of `matrix`; and the squared error."""
        base = self.base.fit(rest)
        left = matrix - base.to_dense().detach()
        overlay = self.overlay.fit(left)
        return base, overlay, float((left - overlay.to_dense().detach()).square().sum())


class DopedWeight(StructuredWeight):
    """Children `base` and `overlay` (stored or training form)."""

    base: StructuredWeight
    overlay: SparseWeight | MaskedWeight

    def __init__(self, base: StructuredWeight, overlay: SparseWeight | MaskedWeight) -> None:
        super().__init__(base.shape)
        self.base = base
        self.overlay = overlay

    @property
    def structure(self) -> Doped:
        """The structures of both."""
        return Doped(self.base.structure, self.overlay.structure)

    def paths(self) -> tuple[StructuredWeight, ...]:
        """(structure, overlay): what co-matrix dropout keeps from co-adapting."""
        return (self.base, self.overlay)

    def to_dense(self) -> Tensor:
        """The sum, formed."""
        return self.base.to_dense() + self.overlay.to_dense()

    def linear(self, x: Tensor) -> Tensor:
        """The sum of both products."""
        return self.base.linear(x) + self.overlay.linear(x)

    def rows(self, index: Tensor) -> Tensor:
        """The sum of both rows."""
        return self.base.rows(index) + self.overlay.rows(index)

    def cost(self, storage: Storage = FLOAT32) -> Cost:
        """The sum of both."""
        return self.base.cost(storage) + self.overlay.cost(storage)
