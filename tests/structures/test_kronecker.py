from __future__ import annotations

import pytest
import torch

from dopant.errors import InputError
from dopant.structures import Kronecker


def test_the_factors() -> None:
    weight = Kronecker(((2, 3), (4, 1), (1, 2)), terms=5).new((8, 6))
    assert {name: tuple(p.shape) for name, p in weight.named_parameters()} == {
        "factor_0": (5, 2, 3),
        "factor_1": (5, 4, 1),
        "factor_2": (5, 1, 2),
    }
    assert weight.cost().parameters == 5 * (6 + 4 + 2)


def test_it_is_the_kronecker_product() -> None:
    weight = Kronecker(((2, 3), (4, 5))).new((8, 15))
    assert torch.allclose(weight.to_dense(), torch.kron(weight.factor_0[0], weight.factor_1[0]))


def test_the_sum_of_all_terms_keeps_every_matrix() -> None:
    matrix = torch.randn(6, 6, dtype=torch.float64)
    weight = Kronecker(((2, 3), (3, 2)), terms=6).fit(matrix)  # the rearranged matrix is 6×6
    assert torch.allclose(weight.to_dense(), matrix)


@pytest.mark.parametrize(
    "shapes", [(), ((2, 2),), ((2, 2), (3,)), ((2, 2), (0, 1)), [(2, 2), (2, 2)], ((2, 2), (2, 1.5))]
)
def test_what_are_no_factor_shapes(shapes: object) -> None:
    with pytest.raises(InputError):
        Kronecker(shapes)  # type: ignore[arg-type]


def test_shapes_that_do_not_divide_the_weight() -> None:
    with pytest.raises(InputError, match=r"factors 4×3 ⊗ 2×2 make a matrix 8×6, but the weight is 10×8"):
        Kronecker(((4, 3), (2, 2))).check((10, 8))
    with pytest.raises(InputError, match="1 or more, got 0"):
        Kronecker(((4, 3), (2, 2)), terms=0)
