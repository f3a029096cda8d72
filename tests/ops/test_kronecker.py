from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dopant.errors import InputError
from dopant.ops import kronecker
from dopant.ops.kronecker import (
    Shape,
    contraction_macs,
    contraction_order,
    factor_shapes,
    kronecker_dense,
    kronecker_linear,
    kronecker_rows,
    nearest_kronecker,
    rearrange,
)

shape = st.tuples(st.integers(1, 4), st.integers(1, 4))
shape_lists = st.lists(shape, min_size=2, max_size=4)


def random_factors(
    shapes: list[Shape] | tuple[Shape, ...], terms: int, seed: int = 0, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(terms, *s, generator=generator, dtype=dtype) for s in shapes]


def oracle(factors: list[Tensor]) -> Tensor:
    total: Tensor | None = None
    for r in range(factors[0].shape[0]):
        product = factors[0][r].contiguous()
        for factor in factors[1:]:
            product = torch.kron(product, factor[r].contiguous())
        total = product if total is None else total + product
    assert total is not None
    return total


@settings(max_examples=60, deadline=None)
@given(shape_lists, st.integers(1, 3), st.integers(0, 2**31))
def test_dense_is_the_sum_of_torch_krons(shapes: list[Shape], terms: int, seed: int) -> None:
    factors = random_factors(shapes, terms, seed)
    assert torch.allclose(kronecker_dense(factors), oracle(factors))


@settings(max_examples=60, deadline=None)
@given(shape_lists, st.integers(1, 3), st.lists(st.integers(0, 3), max_size=2), st.integers(0, 2**31))
def test_linear_is_the_product_with_dense(shapes: list[Shape], terms: int, batch: list[int], seed: int) -> None:
    factors = random_factors(shapes, terms, seed)
    dense = oracle(factors)
    x = torch.randn(*batch, dense.shape[1], dtype=torch.float64)
    y = kronecker_linear(x, factors)
    assert y.shape == (*batch, dense.shape[0])
    assert torch.allclose(y, x @ dense.mT)


@settings(max_examples=60, deadline=None)
@given(shape_lists, st.integers(1, 3), st.lists(st.integers(0, 3), max_size=2), st.integers(0, 2**31))
def test_rows_are_those_of_dense(shapes: list[Shape], terms: int, batch: list[int], seed: int) -> None:
    factors = random_factors(shapes, terms, seed)
    dense = oracle(factors)
    index = torch.randint(dense.shape[0], batch, generator=torch.Generator().manual_seed(seed))
    rows = kronecker_rows(factors, index)
    assert rows.shape == (*batch, dense.shape[1])
    assert torch.allclose(rows, dense[index])


@pytest.mark.parametrize("index", [6, -1, 600])
def test_a_row_that_is_not_there(index: int) -> None:
    with pytest.raises(IndexError):
        kronecker_rows(random_factors([(2, 2), (3, 3)], 2), torch.tensor([0, index]))


@pytest.mark.parametrize("terms", [1, 2])
@pytest.mark.parametrize("shapes", [((2, 3), (3, 2)), ((3, 1), (1, 4)), ((2, 1), (1, 3), (2, 2))])
def test_gradients(shapes: tuple[Shape, ...], terms: int) -> None:
    factors = [f.requires_grad_() for f in random_factors(shapes, terms)]
    n = math.prod(b for _, b in shapes)
    x = torch.randn(2, n, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([[1, 0, 1]])
    assert torch.autograd.gradcheck(lambda x, *f: kronecker_linear(x, f), (x, *factors))
    assert torch.autograd.gradcheck(lambda *f: kronecker_dense(f), factors)
    assert torch.autograd.gradgradcheck(lambda *f: kronecker_dense(f), factors)
    assert torch.autograd.gradcheck(lambda *f: kronecker_rows(f, index), factors)


@pytest.mark.parametrize("terms", [1, 2])
@pytest.mark.parametrize("shapes", [((2, 3), (3, 2)), ((3, 1), (1, 4)), ((2, 1), (1, 3), (2, 2))])
def test_rows_multiplied_into_the_factors(shapes: tuple[Shape, ...], terms: int) -> None:
    factors = [f.requires_grad_() for f in random_factors(shapes, terms)]
    rows = torch.randn(math.prod(a for a, _ in shapes), dtype=torch.float64).relu()
    assert torch.allclose(kronecker_dense(factors, rows), oracle(factors) * rows.unsqueeze(1))
    assert torch.autograd.gradcheck(lambda *f: kronecker_dense(f, rows), factors)
    assert torch.autograd.gradgradcheck(lambda *f: kronecker_dense(f, rows), factors)


def test_dense_gives_a_gradient_only_to_who_asks() -> None:
    first, second = random_factors([(2, 3), (3, 2)], 2)
    kronecker_dense([first, second.requires_grad_()]).sum().backward()
    assert first.grad is None
    assert second.grad is not None


@settings(max_examples=60, deadline=None)
@given(shape_lists, st.integers(1, 3))
def test_macs_are_those_of_the_best_order_and_are_really_done(shapes: list[Shape], terms: int) -> None:
    def macs(order: tuple[int, ...]) -> int:
        sizes = [b for _, b in shapes]
        total = 0
        for i in order:
            total += math.prod(sizes) * shapes[i][0]
            sizes[i] = shapes[i][0]
        return total * terms

    assert contraction_macs(shapes, terms) == min(map(macs, itertools.permutations(range(len(shapes)))))
    assert contraction_macs(shapes, terms) == macs(contraction_order(shapes))
    factors = random_factors(shapes, terms)
    with FlopCounterMode(display=False) as counter:
        kronecker_linear(torch.randn(1, math.prod(b for _, b in shapes), dtype=torch.float64), factors)
    assert counter.get_total_flops() == 2 * contraction_macs(shapes, terms)


def test_macs_of_the_published_layout() -> None:
    assert contraction_macs(((52, 26), (50, 50))) == 132_600


@settings(max_examples=40, deadline=None)
@given(shape, shape, st.integers(0, 2**31))
def test_rearranging_makes_a_kronecker_product_an_outer_product(first: Shape, second: Shape, seed: int) -> None:
    b, c = random_factors([first, second], 1, seed)
    assert torch.equal(
        rearrange(torch.kron(b[0].contiguous(), c[0].contiguous()), first, second),
        b.reshape(-1, 1) * c.reshape(1, -1),
    )


@settings(max_examples=40, deadline=None)
@given(shape, shape, st.integers(1, 5), st.integers(0, 2**31))
def test_two_factors_are_the_best_there_are(first: Shape, second: Shape, terms: int, seed: int) -> None:
    m, n = first[0] * second[0], first[1] * second[1]
    matrix = torch.randn(m, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    factors = nearest_kronecker(matrix, (first, second), terms)
    assert [tuple(f.shape) for f in factors] == [(terms, *first), (terms, *second)]
    error = (matrix - kronecker_dense(factors)).square().sum()
    best = torch.linalg.svdvals(rearrange(matrix, first, second))[terms:].square().sum()
    assert torch.allclose(error, best, atol=1e-20, rtol=1e-8)
    norms = [f.flatten(1).norm(dim=1) for f in factors]
    assert torch.allclose(norms[0], norms[1])


def test_the_large_rearranged_matrix_is_fitted_as_well_as_by_its_full_decomposition() -> None:
    # 32×32 ⊗ 25×25: the rearranged matrix is 1024×625 and takes the iteration
    matrix = torch.randn(800, 800, generator=torch.Generator().manual_seed(0))
    for terms in (1, 8):
        factors = nearest_kronecker(matrix, ((32, 32), (25, 25)), terms)
        error = (matrix - kronecker_dense(factors)).double().square().sum()
        best = torch.linalg.svdvals(rearrange(matrix, (32, 32), (25, 25)).double())[terms:].square().sum()
        assert float(best) <= float(error) * (1 + 1e-9)
        assert float(error) <= float(best) * (1 + 1e-5)


@settings(max_examples=30, deadline=None)
@given(st.lists(shape, min_size=3, max_size=4), st.integers(0, 2**31))
def test_three_or_more_factors_find_their_own_product(shapes: list[Shape], seed: int) -> None:
    matrix = oracle(random_factors(shapes, 1, seed))
    factors = nearest_kronecker(matrix, shapes)
    assert torch.allclose(kronecker_dense(factors), matrix, atol=1e-9 * float(matrix.abs().max()))
    norms = torch.stack([f.norm() for f in factors])
    assert torch.allclose(norms, norms[0])


@pytest.mark.parametrize("terms", [1, 2, 3])
def test_alternating_only_ever_lowers_the_error(terms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = ((2, 3), (3, 2), (2, 2))
    matrix = torch.randn(12, 12, generator=torch.Generator().manual_seed(terms), dtype=torch.float64)
    split = kronecker._split(matrix, list(shapes), terms)
    errors = [float((matrix - kronecker_dense(split)).square().sum())]
    for sweeps in (1, 2, 3, 5, 10, 200):
        monkeypatch.setattr(kronecker, "_SWEEPS", sweeps)
        fitted = nearest_kronecker(matrix, shapes, terms)
        errors.append(float((matrix - kronecker_dense(fitted)).square().sum()))
    assert all(after <= before * (1 + 1e-9) for before, after in itertools.pairwise(errors))
    assert errors[-1] < 0.999 * errors[0]


def test_more_terms_fit_better() -> None:
    matrix = torch.randn(24, 24, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    errors = [
        float((matrix - kronecker_dense(nearest_kronecker(matrix, ((2, 3), (3, 2), (4, 4)), terms))).norm())
        for terms in (1, 2, 4)
    ]
    assert errors == sorted(errors, reverse=True)


def test_terms_beyond_the_rank_are_zeros() -> None:
    matrix = torch.randn(4, 6, dtype=torch.float64)
    factors = nearest_kronecker(matrix, ((2, 1), (2, 6)), 5)  # the rearranged matrix has rank 2
    assert torch.allclose(kronecker_dense(factors), matrix)
    assert all(not f[2:].any() for f in factors)


@pytest.mark.parametrize("shapes", [((2, 2), (3, 2)), ((2, 2), (3, 1), (1, 2))])
def test_a_zero_matrix(shapes: tuple[Shape, ...]) -> None:
    factors = nearest_kronecker(torch.zeros(6, 4), shapes, 2)
    assert all(torch.equal(f, torch.zeros_like(f)) for f in factors)


def test_bfloat16() -> None:
    factors = random_factors([(4, 3), (3, 4)], 2, dtype=torch.bfloat16)
    x = torch.randn(5, 12).bfloat16()
    wide = [f.double() for f in factors]
    y = kronecker_linear(x, factors)
    assert y.dtype == torch.bfloat16
    assert torch.allclose(y.double(), kronecker_linear(x.double(), wide), atol=0.3, rtol=0.05)
    fitted = nearest_kronecker(kronecker_dense(factors), ((4, 3), (3, 4)), 2)
    assert all(f.dtype == torch.bfloat16 for f in fitted)
    assert torch.allclose(kronecker_dense([f.double() for f in fitted]), oracle(wide), atol=0.2)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_factor_shapes_are_all_there_are(m: int, n: int) -> None:
    sides = range(1, 41)
    expected = [
        ((a, b), (c, d))
        for a, b in itertools.product(sides, repeat=2)
        for c, d in [(m // a, n // b)]
        if (a * c, b * d) == (m, n)
    ]
    assert factor_shapes((m, n)) == expected


def test_shapes_that_do_not_multiply_to_the_matrix() -> None:
    with pytest.raises(InputError, match=r"factors 4×3 ⊗ 2×2 make a 8×6 matrix, the matrix is 10×8"):
        nearest_kronecker(torch.ones(10, 8), ((4, 3), (2, 2)))
    with pytest.raises(InputError, match="two or more factors, got 1"):
        nearest_kronecker(torch.ones(10, 8), ((10, 8),))
    with pytest.raises(InputError, match="terms must be 1 or more, got 0"):
        nearest_kronecker(torch.ones(4, 4), ((2, 2), (2, 2)), 0)
    with pytest.raises(InputError, match="NaN or infinite"):
        nearest_kronecker(torch.full((4, 4), torch.nan), ((2, 2), (2, 2)))
