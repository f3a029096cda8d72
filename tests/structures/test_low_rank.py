from __future__ import annotations

import pytest
import torch

from dopant.cost import Cost
from dopant.errors import InputError
from dopant.structures import LowRank


def test_the_factors_and_their_cost() -> None:
    weight = LowRank(3).new((8, 5))
    assert {name: tuple(p.shape) for name, p in weight.named_parameters()} == {"left": (8, 3), "right": (3, 5)}
    assert weight.cost() == Cost(39, 39, 4 * 39)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fit_is_the_truncated_decomposition(dtype: torch.dtype) -> None:
    matrix = torch.randn(8, 5, dtype=dtype)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    assert torch.allclose(LowRank(2).fit(matrix).to_dense(), (u[:, :2] * s[:2]) @ vh[:2], atol=1e-5)


def test_what_is_no_rank() -> None:
    with pytest.raises(InputError, match="1 or more, got 0"):
        LowRank(0)
    with pytest.raises(InputError, match=r"rank 6 is more than a matrix 8×5 can have; choose at most 5"):
        LowRank(6).check((8, 5))
    with pytest.raises(InputError, match="rank 6"):
        LowRank(6).new((8, 5))
