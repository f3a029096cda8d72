from __future__ import annotations

import pytest
import torch

from dopant.layers.row_masks import masked_dense, masked_rows, masks_are_by_row, products, summed
from dopant.structures import (
    Dense,
    Doped,
    DopedWeight,
    Kronecker,
    LowRank,
    MaskedWeight,
    Sparse,
    Stacked,
    Structure,
    StructuredWeight,
)

STRUCTURES: list[Structure] = [
    Dense(),
    Sparse(7),
    Kronecker(((2, 4), (3, 2))),
    Kronecker(((2, 2), (3, 2), (1, 2)), terms=2),
    Doped(Kronecker(((3, 2), (2, 4)), terms=2), Sparse(9)),
    Doped(LowRank(2), Sparse(9)),
    Doped(Dense(), Sparse(9)),
    Doped(Stacked((Dense(), Kronecker(((2, 4), (2, 2)))), (2, 4)), Sparse(9)),
]
FORMS = [
    (structure, opened) for structure in STRUCTURES for opened in (False, True)[: 1 + isinstance(structure, Doped)]
]


@pytest.fixture(params=FORMS, ids=str)
def weight(request: pytest.FixtureRequest) -> StructuredWeight:
    """(6, 8), float64; a doped one in its stored and in its training form."""
    structure, opened = request.param
    generator = torch.Generator().manual_seed(0)
    weight: StructuredWeight = structure.new((6, 8), generator=generator).double()
    if opened:
        assert isinstance(weight, DopedWeight)
        weight.overlay = MaskedWeight(torch.randn(6, 8).double(), torch.rand(6, 8, generator=generator) < 0.4)
    return weight


def by_hand(weight: StructuredWeight, masked: bool) -> torch.Tensor:
    masks = weight.row_masks or (torch.ones(6),) * len(weight.paths())
    parts = [path.to_dense() * (m.unsqueeze(1) if masked else 1) for path, m in zip(weight.paths(), masks, strict=True)]
    return torch.stack(parts).sum(0)


def set_masks(weight: StructuredWeight) -> None:
    weight.row_masks = tuple(((torch.rand(6) < 0.6) / 0.6).double() for _ in weight.paths())


@pytest.mark.parametrize("masked", [False, True])
def test_formed_under_masks_with_gradients(weight: StructuredWeight, masked: bool) -> None:
    if masked:
        set_masks(weight)
    grad = torch.randn(6, 8).double()
    parameters = list(weight.parameters())
    expected = by_hand(weight, masked)
    found = masked_dense(weight)
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(found, parameters, grad), torch.autograd.grad(expected, parameters, grad), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("formed", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_products_and_rows_are_those_of_the_masked_matrix(weight: StructuredWeight, masked: bool, formed: bool) -> None:
    if masked:
        set_masks(weight)
    x, index, dense = torch.randn(3, 8).double(), torch.tensor([[0, 5, 5], [2, 1, 0]]), by_hand(weight, masked)
    torch.testing.assert_close(summed(products(weight, formed=formed), x), x @ dense.T)
    torch.testing.assert_close(masked_rows(weight, index), dense[index])


def test_masks_of_more_than_a_row_do_not_fit_into_the_matrix(weight: StructuredWeight) -> None:
    assert masks_are_by_row(weight)
    set_masks(weight)
    assert masks_are_by_row(weight)
    weight.row_masks = tuple(torch.ones(3, 6) for _ in weight.paths())
    assert not masks_are_by_row(weight)
