from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dopant.errors import InputError
from dopant.structures import MaskedWeight, Sparse


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.data())
def test_the_two_forms_turn_into_each_other(m: int, n: int, data: st.DataObject) -> None:
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    structure = Sparse(data.draw(st.integers(0, m * n)), data.draw(st.integers(0, 3)))
    weight = structure.new((m, n), generator=generator)
    masked = MaskedWeight.from_sparse(weight)
    assert torch.equal(masked.to_dense(), weight.to_dense())
    assert int(masked.mask.sum()) == weight.values.numel()
    assert masked.structure == weight.structure
    assert masked.cost() == weight.cost()
    again = masked.compact()
    assert torch.equal(again.positions, weight.positions)
    assert torch.equal(again.values, weight.values)


def test_positions_are_sorted_and_unique() -> None:
    for weight in (Sparse(40).new((9, 7)), Sparse(40).fit(torch.randn(9, 7))):
        assert weight.positions.dtype == torch.int64
        assert bool((weight.positions[1:] > weight.positions[:-1]).all())
        assert weight.positions.numel() == weight.values.numel() == 40
        assert list(dict(weight.named_parameters())) == ["values"]
        assert list(dict(weight.named_buffers())) == ["positions"]


def test_what_lies_under_the_mask_neither_counts_nor_learns() -> None:
    mask = torch.rand(6, 5, generator=torch.Generator().manual_seed(0)) < 0.4
    masked = MaskedWeight(torch.randn(6, 5), mask)
    masked.linear(torch.randn(4, 5)).square().sum().backward()
    masked.rows(torch.arange(6)).square().sum().backward()
    assert masked.matrix.grad is not None
    assert not masked.matrix.grad[~mask].any()
    assert masked.matrix.grad[mask].all()
    assert not masked.to_dense()[~mask].any()


def test_what_lies_under_the_mask_may_be_anything() -> None:
    matrix, mask = torch.ones(2, 2), torch.tensor([[True, False], [False, True]])
    weight = MaskedWeight(matrix.masked_fill(~mask, torch.nan), mask)
    assert torch.equal(weight.rows(torch.tensor([1, 0])), torch.eye(2).flip(0))


def test_compacting_keeps_entries_that_happen_to_be_zero() -> None:
    masked = MaskedWeight(torch.zeros(3, 4), torch.eye(3, 4, dtype=torch.bool))
    assert masked.compact().structure == Sparse(3)
    assert masked.compact().positions.tolist() == [0, 5, 10]


def test_compacting_shares_nothing() -> None:
    masked = MaskedWeight(torch.ones(3, 4), torch.ones(3, 4, dtype=torch.bool))
    compact = masked.compact()
    with torch.no_grad():
        masked.matrix.zero_()
    assert compact.values.detach().eq(1.0).all()


def test_fit_keeps_the_largest_entries() -> None:
    matrix = torch.tensor([[0.0, -5.0, 1.0], [3.0, 2.0, -3.0]])
    assert torch.equal(Sparse(3).fit(matrix).to_dense(), torch.tensor([[0.0, -5.0, 0.0], [3.0, 0.0, -3.0]]))
    assert torch.equal(Sparse(2).fit(matrix).to_dense(), torch.tensor([[0.0, -5.0, 0.0], [3.0, 0.0, 0.0]]))


def test_counts_that_are_none() -> None:
    with pytest.raises(InputError, match="0 or more, got -1"):
        Sparse(-1)
    with pytest.raises(InputError, match=r"13 non-zeros do not fit into a matrix 3×4; it has 12 entries"):
        Sparse(13).check((3, 4))
    with pytest.raises(InputError, match="0 or more, got -2"):
        Sparse(3, per_bank=-2)
    with pytest.raises(InputError, match="257 entries of a row in a bank are too many; at most 256"):
        Sparse(3, per_bank=257)


@pytest.mark.parametrize(("shape", "nonzeros", "banks"), [((2600, 1300), 131_348, 13), ((800, 400), 11_663, 4)])
def test_each_row_has_as_many_entries_in_every_bank(shape: tuple[int, int], nonzeros: int, banks: int) -> None:
    structure = Sparse(nonzeros, per_bank=4)
    assert structure.banks(shape) == banks
    for weight in (structure.new(shape), structure.fit(torch.randn(shape))):
        mask = weight.to_dense().ne(0)
        for part in mask.split(shape[1] // banks, dim=1):
            assert set(part.sum(1).tolist()) == {3, 4}


def test_without_banks_entries_may_lie_anywhere() -> None:
    assert Sparse(100).banks((10, 50)) == 0
    assert Sparse(0, per_bank=4).banks((10, 50)) == 1
    assert Sparse(500, per_bank=1).banks((10, 50)) == 50
