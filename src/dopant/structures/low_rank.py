"""W = left · right: low-rank matrix factorisation (LMF)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dopant.cost import FLOAT32, Cost, Storage, matrix_bytes
from dopant.errors import InputError
from dopant.ops.low_rank import nearest_low_rank
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
class LowRank(Structure):
    """A product of (out, rank) and (rank, in); rank · (out + in) parameters."""

    rank: int
    kind: ClassVar[str] = "low_rank"

    def __post_init__(self) -> None:
        check_whole("the rank of a low-rank matrix", self.rank, 1)

    def check(self, shape: Shape) -> None:
        """The rank must not exceed the smaller side."""
        if self.rank > min(shape):
            raise InputError(
                f"rank {self.rank} is more than a matrix {shape[0]}×{shape[1]} can have; "
                f"choose at most {min(shape)}, or keep it dense"
            )

    def cost(self, shape: Shape, storage: Storage = FLOAT32) -> Cost:
        """Both factors in full."""
        parameters = self.rank * (shape[0] + shape[1])
        stored = matrix_bytes(shape[0], self.rank, storage) + matrix_bytes(self.rank, shape[1], storage)
        return Cost(parameters, parameters, stored)

    def new(self, shape: Shape, *, std: float | None = None, generator: torch.Generator | None = None) -> LowRankWeight:
        """Both factors uniform and of one scale: var(W) = rank · var(left) · var(right)."""
        self.check(shape)
        target = linear_std(shape) if std is None else std
        factor_std = (target / self.rank**0.5) ** 0.5
        return LowRankWeight(
            uniform(shape[0], self.rank, std=factor_std, generator=generator),
            uniform(self.rank, shape[1], std=factor_std, generator=generator),
        )

    def fit(self, matrix: Tensor) -> LowRankWeight:
        """The leading singular triples (Eckart-Young)."""
        self.check((matrix.shape[0], matrix.shape[1]))
        return LowRankWeight(*nearest_low_rank(matrix.detach(), self.rank))


class LowRankWeight(StructuredWeight):
    """Parameters `left` (out, rank) and `right` (rank, in)."""

    def __init__(self, left: Tensor, right: Tensor) -> None:
        super().__init__((left.shape[0], right.shape[1]))
        self.left = nn.Parameter(left)
        self.right = nn.Parameter(right)

    @property
    def structure(self) -> LowRank:
        """LowRank of the factors' inner size."""
        return LowRank(self.left.shape[1])

    def to_dense(self) -> Tensor:
        """left · right."""
        return self.left @ self.right

    def linear(self, x: Tensor) -> Tensor:
        """Through the small inner size."""
        return F.linear(F.linear(x, self.right), self.left)

    def rows(self, index: Tensor) -> Tensor:
        """Rows of left, times right."""
        return F.embedding(index, self.left) @ self.right
