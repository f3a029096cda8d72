"""Parts by rows: hybrid matrices (dense rows over a structured rest) and one part a gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from dopant.cost import FLOAT32, Cost, Storage
from dopant.errors import InputError
from dopant.structures.base import Shape, Structure, StructuredWeight, check_whole, checked_index, linear_std, register


@register
@dataclass(frozen=True)
class Stacked(Structure):
    """Part i keeps `rows[i]` rows, from the top down, each part in its own structure."""

    parts: tuple[Structure, ...]
    rows: tuple[int, ...]
    kind: ClassVar[str] = "stacked"

    def __post_init__(self) -> None:
        if not all(isinstance(part, Structure) for part in self.parts):
            raise InputError(f"the parts of a stack must be structures, got {self.parts!r}")
        for rows in self.rows:
            check_whole("the rows of a part", rows, 1)
        if not self.parts or len(self.parts) != len(self.rows):
            raise InputError(
                f"a stack needs one positive number of rows a part, got {len(self.parts)} parts and rows {self.rows}"
            )

    def check(self, shape: Shape) -> None:
        """The rows of the parts must add up to the weight's."""
        if sum(self.rows) != shape[0]:
            raise InputError(
                f"the parts' rows {self.rows} add up to {sum(self.rows)}, but the weight is "
                f"{shape[0]}×{shape[1]}; they must add up to {shape[0]}"
            )
        for part, rows in zip(self.parts, self.rows, strict=True):
            part.check((rows, shape[1]))

    def cost(self, shape: Shape, storage: Storage = FLOAT32) -> Cost:
        """The sum of the parts."""
        parts = zip(self.parts, self.rows, strict=True)
        return sum((part.cost((rows, shape[1]), storage) for part, rows in parts), Cost())

    def new(self, shape: Shape, *, std: float | None = None, generator: torch.Generator | None = None) -> StackedWeight:
        """Every part with the same standard deviation."""
        self.check(shape)
        std = linear_std(shape) if std is None else std
        return StackedWeight(
            [
                part.new((rows, shape[1]), std=std, generator=generator)
                for part, rows in zip(self.parts, self.rows, strict=True)
            ]
        )

    def fit(self, matrix: Tensor) -> StackedWeight:
        """Every part to its own rows."""
        self.check((matrix.shape[0], matrix.shape[1]))
        blocks = torch.split(matrix.detach(), list(self.rows))
        return StackedWeight([part.fit(block) for part, block in zip(self.parts, blocks, strict=True)])


class StackedWeight(StructuredWeight):
    """The parts' weights, from the top down, in `parts`."""

    def __init__(self, parts: Sequence[StructuredWeight]) -> None:
        super().__init__((sum(part.shape[0] for part in parts), parts[0].shape[1]))
        self.parts = nn.ModuleList(parts)

    def _parts(self) -> list[StructuredWeight]:
        return [part for part in self.parts if isinstance(part, StructuredWeight)]

    @property
    def structure(self) -> Stacked:
        """The parts' structures and rows."""
        parts = self._parts()
        return Stacked(tuple(part.structure for part in parts), tuple(part.shape[0] for part in parts))

    def to_dense(self) -> Tensor:
        """The parts over one another."""
        return torch.cat([part.to_dense() for part in self._parts()])

    def linear(self, x: Tensor) -> Tensor:
        """The parts' outputs side by side."""
        return torch.cat([part.linear(x) for part in self._parts()], dim=-1)

    def rows(self, index: Tensor) -> Tensor:
        """Each part answers for its own rows."""
        flat = checked_index(index, self.shape[0])
        picked: list[Tensor] = []
        order: list[Tensor] = []
        first = 0
        for part in self._parts():
            mine = ((flat >= first) & (flat < first + part.shape[0])).nonzero().squeeze(1)
            picked.append(part.rows(flat[mine] - first))
            order.append(mine)
            first += part.shape[0]
        back = torch.cat(order).argsort()
        return torch.cat(picked)[back].view(*index.shape, self.shape[1])

    def cost(self, storage: Storage = FLOAT32) -> Cost:
        """The sum of the parts."""
        return sum((part.cost(storage) for part in self._parts()), Cost())
