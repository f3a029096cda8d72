from __future__ import annotations

import pytest
import torch

from dopant.errors import InputError
from dopant.structures import Dense, LowRank, Sparse, Stacked


def test_parts_lie_over_one_another() -> None:
    weight = Stacked((Dense(), LowRank(1)), (2, 5)).new((7, 4))
    top, bottom = weight.parts
    assert torch.equal(weight.to_dense(), torch.cat([top.to_dense(), bottom.to_dense()]))
    assert weight.cost() == top.cost() + bottom.cost()


def test_each_part_is_fitted_to_its_rows() -> None:
    matrix = torch.randn(7, 4)
    weight = Stacked((Dense(), Sparse(3)), (2, 5)).fit(matrix)
    assert torch.equal(weight.to_dense()[:2], matrix[:2])
    assert torch.equal(weight.to_dense()[2:], Sparse(3).fit(matrix[2:]).to_dense())


def test_rows_come_in_the_order_asked_for() -> None:
    weight = Stacked((LowRank(1), Sparse(5), LowRank(2)), (2, 3, 2)).new((7, 4))
    index = torch.tensor([[6, 0, 3], [0, 6, 6]])
    assert torch.equal(weight.rows(index), weight.to_dense()[index])


def test_rows_that_do_not_add_up() -> None:
    stacked = Stacked((Dense(), LowRank(1)), (2, 5))
    with pytest.raises(InputError, match=r"add up to 7, but the weight is 8×4; they must add up to 8"):
        stacked.check((8, 4))
    with pytest.raises(InputError, match="rank 3 is more"):
        Stacked((Dense(), LowRank(3)), (5, 2)).check((7, 4))  # each part is asked as well


@pytest.mark.parametrize(
    ("parts", "rows"),
    [((), ()), ((Dense(),), (1, 2)), ((Dense(), Dense()), (1, 0)), ((Dense(), "dense"), (1, 1)), ((Dense(),), (1.5,))],
)
def test_what_is_no_stack(parts: object, rows: object) -> None:
    with pytest.raises(InputError):
        Stacked(parts, rows)  # type: ignore[arg-type]
