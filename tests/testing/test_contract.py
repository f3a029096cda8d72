"""The contract must be able to fail: each check against a structure that breaks just that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from dopant.cost import FLOAT32, Cost, Storage, matrix_bytes
from dopant.errors import InputError
from dopant.structures import Doped, LowRank, Shape, Sparse, Structure, StructuredWeight, register
from dopant.structures.base import linear_std, uniform
from dopant.structures.low_rank import LowRankWeight
from dopant.testing.contract import CHECKS, WEIGHT_CHECKS, check_structure, check_weight

SHAPE: Shape = (12, 10)


@register
@dataclass(frozen=True)
class Circulant(Structure):
    """W[i, j] = row[(i + shift · j) % in]: an outside structure, whole and correct."""

    shift: int = 1
    kind: ClassVar[str] = "test-circulant"

    def check(self, shape: Shape) -> None:
        if shape[0] < shape[1]:
            raise InputError(f"needs out >= in, got {shape}")

    def cost(self, shape: Shape, storage: Storage = FLOAT32) -> Cost:
        return Cost(shape[0], shape[0] * shape[1], matrix_bytes(1, shape[0], storage))

    def new(
        self, shape: Shape, *, std: float | None = None, generator: torch.Generator | None = None
    ) -> CirculantWeight:
        self.check(shape)
        std = linear_std(shape) if std is None else std
        return CirculantWeight(shape, uniform(shape[0], std=std, generator=generator), self.shift)

    def fit(self, matrix: Tensor) -> CirculantWeight:
        shape = (matrix.shape[0], matrix.shape[1])
        self.check(shape)
        places = _places(shape, self.shift).reshape(-1)
        sums = torch.zeros(shape[0], dtype=matrix.dtype).index_add_(0, places, matrix.detach().reshape(-1))
        return CirculantWeight(shape, sums / torch.bincount(places, minlength=shape[0]), self.shift)


def _places(shape: Shape, shift: int) -> Tensor:
    return (torch.arange(shape[0])[:, None] + shift * torch.arange(shape[1])) % shape[0]


class CirculantWeight(StructuredWeight):
    def __init__(self, shape: Shape, row: Tensor, shift: int) -> None:
        super().__init__(shape)
        self.row = nn.Parameter(row)
        self.shift = shift

    @property
    def structure(self) -> Circulant:
        return Circulant(self.shift)

    def to_dense(self) -> Tensor:
        return self.row[_places(self.shape, self.shift)]

    def linear(self, x: Tensor) -> Tensor:
        total = x.new_zeros(*x.shape[:-1], self.shape[0])
        for j in range(self.shape[1]):
            total = total + x[..., j, None] * self.row.roll(-self.shift * j)
        return total

    def rows(self, index: Tensor) -> Tensor:
        if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < self.shape[0]:
            raise IndexError("no such row")
        return self.row[(index[..., None].long() + self.shift * torch.arange(self.shape[1])) % self.shape[0]]

    def cost(self, storage: Storage = FLOAT32) -> Cost:
        return self.structure.cost(self.shape, storage)


def test_an_outside_structure_is_accepted() -> None:
    check_structure(Circulant(), SHAPE)
    check_weight(Circulant().new(SHAPE))


def failing(structure: Structure, shape: Shape = SHAPE) -> set[str]:
    found = set()
    for name, check in CHECKS.items():
        try:
            check(structure, shape)
        except AssertionError:
            found.add(name)
    return found


def patched(target: type, **members: Any) -> Callable[[pytest.MonkeyPatch], None]:
    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        for name, member in members.items():
            monkeypatch.setattr(target, name, member)

    return patch


low_rank_linear = LowRankWeight.linear
low_rank_rows = LowRankWeight.rows
low_rank_cost = LowRank.cost
low_rank_new = LowRank.new
low_rank_fit = LowRank.fit

BREAKS: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "linear is off": (
        "linear_is_the_dense_product",
        patched(LowRankWeight, linear=lambda self, x: low_rank_linear(self, x) * 1.001),
    ),
    "linear gives float32 for bfloat16": (
        "linear_is_the_dense_product",
        patched(
            LowRankWeight,
            linear=lambda self, x: low_rank_linear(self, x).to(torch.promote_types(x.dtype, torch.float32)),
        ),
    ),
    "linear forgets a gradient": (
        "linear_is_the_dense_product",
        patched(LowRankWeight, linear=lambda self, x: (x @ self.right.detach().mT) @ self.left.mT),
    ),
    "linear wants a batch": (
        "linear_is_the_dense_product",
        patched(LowRankWeight, linear=lambda self, x: low_rank_linear(self, x.reshape(-1, x.shape[-1]))),
    ),
    "rows are the wrong ones": (
        "rows_are_the_dense_rows",
        patched(LowRankWeight, rows=lambda self, i: low_rank_rows(self, (i + 1) % self.shape[0])),
    ),
    "rows wrap around": (
        "rows_out_of_range_are_refused",
        patched(LowRankWeight, rows=lambda self, i: low_rank_rows(self, i % self.shape[0])),
    ),
    "a factor without a gradient": (
        "every_factor_gets_a_gradient",
        patched(LowRankWeight, to_dense=lambda self: self.left.detach() @ self.right),
    ),
    "linear forms W": (
        "the_big_matrix_is_never_formed",
        patched(LowRankWeight, linear=lambda self, x: x @ self.to_dense().mT),
    ),
    "rows form W": (
        "the_big_matrix_is_never_formed",
        patched(LowRankWeight, rows=lambda self, i: nn.functional.embedding(i, self.to_dense())),
    ),
    "parameters miscounted": (
        "parameters_are_those_held",
        patched(LowRank, cost=lambda self, shape, storage=FLOAT32: low_rank_cost(self, shape, storage) + Cost(1, 0, 0)),
    ),
    "multiply-accumulates miscounted": (
        "parameters_are_those_held",
        patched(
            LowRank, cost=lambda self, shape, storage=FLOAT32: low_rank_cost(self, shape, storage) + Cost(0, -1, 0)
        ),
    ),
    "the closed form differs": (
        "cost_is_known_beforehand",
        patched(LowRankWeight, cost=lambda self, storage=FLOAT32: Cost(44, 44, 1000)),
    ),
    "the weight forgets its structure": (
        "descriptions_bring_it_back",
        patched(LowRankWeight, structure=property(lambda self: LowRank(1))),
    ),
    "new ignores the generator": (
        "new_is_drawn_from_its_generator",
        patched(LowRank, new=lambda self, shape, std=None, generator=None: low_rank_new(self, shape, std=std)),
    ),
    "new is too small": (
        "new_has_the_promised_spread",
        patched(
            LowRank,
            new=lambda self, shape, std=None, generator=None: low_rank_new(
                self, shape, std=0.7 * (linear_std(shape) if std is None else std), generator=generator
            ),
        ),
    ),
    "check refuses nothing": ("impossible_shapes_are_refused", patched(LowRank, check=lambda self, shape: None)),
    "fit is not the nearest": (
        "fit_finds_the_nearest",
        patched(LowRank, fit=lambda self, matrix: low_rank_fit(self, matrix * 0.9)),
    ),
    "fit is no number": (
        "fit_finds_the_nearest",
        patched(LowRank, fit=lambda self, matrix: low_rank_fit(self, matrix).apply(_spoil)),
    ),
    "fit keeps the matrix": (
        "fit_leaves_the_matrix",
        patched(LowRank, fit=lambda self, matrix: LowRankWeight(matrix[:, :1].detach(), matrix[:1].detach())),
    ),
}


def _spoil(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.data.fill_(torch.nan)


@pytest.mark.parametrize("name", BREAKS)
def test_what_is_broken_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check, patch = BREAKS[name]
    structure = LowRank(2)
    patch(monkeypatch)
    assert check in failing(structure)
    with pytest.raises(AssertionError, match=r"LowRank\(rank=2\) at \(12, 10\) fails"):
        check_structure(structure, SHAPE)


def test_a_state_outside_the_state_dict_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hidden(LowRankWeight):
        def to_dense(self) -> Tensor:
            return super().to_dense() + float(self.left.detach().sum() > 0)

        def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
            return None

    with pytest.raises(AssertionError, match="state_dict"):
        WEIGHT_CHECKS["state_dicts_carry_it"](Hidden(torch.ones(3, 1), torch.ones(1, 3)))


def test_a_start_of_no_numbers_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        LowRank, "new", lambda self, shape, **options: low_rank_new(self, shape, **options).apply(_spoil)
    )
    with pytest.raises(AssertionError, match="standard deviation nan"):
        CHECKS["new_has_the_promised_spread"](LowRank(2), SHAPE)


def test_a_buffer_outside_the_state_dict_is_found() -> None:
    weight = Sparse(4).new(SHAPE)
    positions = weight.positions
    del weight.positions
    weight.register_buffer("positions", positions, persistent=False)
    with pytest.raises(AssertionError, match="lacks positions"):
        WEIGHT_CHECKS["state_dicts_carry_it"](weight)


def test_copies_that_share_are_found() -> None:
    class Sharing(LowRankWeight):
        def __deepcopy__(self, memo: Any) -> Sharing:
            return self

    with pytest.raises(AssertionError, match="shares memory"):
        WEIGHT_CHECKS["copies_are_independent"](Sharing(torch.ones(3, 1), torch.ones(1, 3)))


def test_paths_that_do_not_add_up_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = Doped(LowRank(1), Sparse(9)).new(SHAPE)
    WEIGHT_CHECKS["paths_add_up"](weight)
    monkeypatch.setattr(type(weight), "paths", lambda self: (self.base,))
    with pytest.raises(AssertionError, match="sum of the paths"):
        WEIGHT_CHECKS["paths_add_up"](weight)


def test_a_composition_worse_than_its_part_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = Doped.fit

    def only_the_overlay(self: Doped, matrix: Tensor) -> StructuredWeight:
        weight = fit(self, matrix)
        with torch.no_grad():
            weight.base.left.zero_()  # type: ignore[operator, union-attr]
        return weight

    monkeypatch.setattr(Doped, "fit", only_the_overlay)
    with pytest.raises(AssertionError, match=r"its part .* alone"):
        CHECKS["fit_finds_the_nearest"](Doped(LowRank(3), Sparse(2)), SHAPE)


def test_a_weight_is_not_changed_by_the_checks() -> None:
    weight = Doped(LowRank(1), Sparse(9)).new(SHAPE)
    before = {name: tensor.clone() for name, tensor in weight.state_dict().items()}
    check_weight(weight)
    assert all(torch.equal(before[name], tensor) for name, tensor in weight.state_dict().items())
    assert weight.row_masks is None
    assert all(p.grad is None for p in weight.parameters())
