from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dopant.ops.masked import add_masked

DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def parts(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    base, matrix = (torch.randn(4, 5, generator=generator).to(dtype) for _ in range(2))
    return base, matrix, torch.rand(4, 5, generator=generator) < 0.5, torch.tensor([0.0, 1.0, 1.25, -2.0], dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_is_the_sum(dtype: torch.dtype) -> None:
    base, matrix, mask, rows = parts(dtype)
    before = base.clone(), matrix.clone()
    torch.testing.assert_close(add_masked(base, matrix, mask), base + matrix * mask)
    torch.testing.assert_close(add_masked(base, matrix, mask, rows), base + matrix * mask * rows.unsqueeze(1))
    assert torch.equal(base, before[0])
    assert torch.equal(matrix, before[1])


def test_what_is_masked_does_not_matter() -> None:
    base, matrix, mask, rows = parts()
    hidden = matrix.masked_fill(~mask, torch.nan).requires_grad_()
    summed = add_masked(base, hidden, mask, rows)
    torch.testing.assert_close(summed, add_masked(base, matrix, mask, rows))
    summed.sum().backward()
    assert hidden.grad is not None
    assert torch.equal(hidden.grad != 0, mask & (rows != 0).unsqueeze(1))


def test_gradients() -> None:
    base, matrix, mask, rows = parts()
    inputs = (base.requires_grad_(), matrix.requires_grad_())
    for by_row in (None, rows):
        assert torch.autograd.gradcheck(lambda b, m, by_row=by_row: add_masked(b, m, mask, by_row), inputs)
        assert torch.autograd.gradgradcheck(lambda b, m, by_row=by_row: add_masked(b, m, mask, by_row), inputs)


def test_only_who_asks_gets_a_gradient() -> None:
    base, matrix, mask, rows = parts()
    add_masked(base.requires_grad_(), matrix, mask, rows).sum().backward()
    assert matrix.grad is None
    assert base.grad is not None
    assert torch.equal(base.grad, torch.ones_like(base))
