from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dopant.errors import InputError
from dopant.ops import low_rank
from dopant.ops.low_rank import leading_singular, nearest_low_rank


def matrix_with(spectrum: Tensor, m: int, n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    count = len(spectrum)
    u = torch.linalg.qr(torch.randn(m, count, generator=generator, dtype=torch.float64))[0]
    v = torch.linalg.qr(torch.randn(n, count, generator=generator, dtype=torch.float64))[0]
    return (u * spectrum) @ v.mT


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_small_matrices_are_approximated_as_well_as_by_the_full_decomposition(
    m: int, n: int, data: st.DataObject
) -> None:
    rank = data.draw(st.integers(1, min(m, n)))
    seed = data.draw(st.integers(0, 2**31))
    matrix = torch.randn(m, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    left, right = nearest_low_rank(matrix, rank)
    assert left.shape == (m, rank)
    assert right.shape == (rank, n)
    best = torch.linalg.svdvals(matrix)[rank:].square().sum()
    assert torch.allclose((matrix - left @ right).square().sum(), best, atol=1e-20, rtol=1e-9)
    assert torch.allclose(left.norm(dim=0), right.norm(dim=1))  # balanced


@pytest.mark.parametrize("shape", [(600, 700), (700, 600), (530, 2100)])
@pytest.mark.parametrize("rank", [1, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_big_flat_spectra_converge(shape: tuple[int, int], rank: int, dtype: torch.dtype) -> None:
    # Gaussian noise has no gap between its singular values: the hard case for an iteration.
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    u, s, v = leading_singular(matrix, rank)
    exact = torch.linalg.svdvals(matrix.double())[:rank]
    energy = exact.square().sum()
    captured = (matrix.double() - (u * s).double() @ v.double().mT).square().sum()
    best = matrix.double().square().sum() - energy
    assert float(captured - best) <= 1e-5 * float(matrix.double().square().sum())
    assert torch.allclose(s.double(), exact, rtol=2e-3)
    eye = torch.eye(rank, dtype=dtype)
    assert torch.allclose(u.mT @ u, eye, atol=1e-4)
    assert torch.allclose(v.mT @ v, eye, atol=1e-4)


def test_the_iteration_is_used_for_big_matrices_and_agrees_with_the_decomposition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spectrum = torch.cat([torch.tensor([9.0, 7.0, 7.0, 3.0]), 0.9 ** torch.arange(40)]).double()
    matrix = matrix_with(spectrum, 80, 60)
    exact = leading_singular(matrix, 6)
    monkeypatch.setattr(low_rank, "_EXACT_SIDE", 1)
    monkeypatch.setattr(low_rank, "_EXACT_SHARE", 1)
    iterated = leading_singular(matrix, 6)
    assert torch.allclose(exact[1], iterated[1], rtol=1e-5)
    assert not torch.equal(exact[0], iterated[0])
    product = [(u * s) @ v.mT for u, s, v in (exact, iterated)]
    assert torch.allclose(product[0], product[1], atol=1e-2)


def test_a_small_subspace_is_restarted_until_it_has_converged(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = matrix_with(0.98 ** torch.arange(300).double(), 300, 320)
    exact = leading_singular(matrix, 3)[1]
    monkeypatch.setattr(low_rank, "_EXACT_SIDE", 1)
    monkeypatch.setattr(low_rank, "_KRYLOV_COLUMNS", 1)
    assert torch.allclose(leading_singular(matrix, 3)[1], exact, rtol=1e-4)


@pytest.mark.parametrize("true_rank", [0, 1, 3])
def test_a_matrix_of_less_rank_than_asked_for(true_rank: int) -> None:
    spectrum = torch.arange(1.0, true_rank + 1).double()
    matrix = matrix_with(spectrum, 520, 560) if true_rank else torch.zeros(520, 560, dtype=torch.float64)
    left, right = nearest_low_rank(matrix, 10)
    assert torch.isfinite(left).all()
    assert torch.allclose(left @ right, matrix, atol=1e-10)


def test_the_same_matrix_gives_the_same_factors() -> None:
    matrix = torch.randn(560, 540)
    first, second = leading_singular(matrix, 3), leading_singular(matrix, 3)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    before = torch.get_rng_state()
    leading_singular(matrix, 3)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    matrix = torch.randn(30, 20).to(dtype)
    left, right = nearest_low_rank(matrix, 4)
    wide = nearest_low_rank(matrix.float(), 4)
    assert left.dtype == right.dtype == dtype
    assert torch.equal(left, wide[0].to(dtype))
    assert torch.equal(right, wide[1].to(dtype))


@pytest.mark.parametrize("rank", [0, -1, 4])
def test_an_impossible_rank_says_which_are_possible(rank: int) -> None:
    with pytest.raises(InputError, match=f"rank {rank} does not fit a 3×5 matrix; give 1 to 3"):
        leading_singular(torch.ones(3, 5), rank)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_entries_that_are_not_finite_are_refused(bad: float) -> None:
    matrix = torch.ones(3, 3)
    matrix[1, 2] = bad
    with pytest.raises(InputError, match="NaN or infinite"):
        nearest_low_rank(matrix, 1)


@pytest.mark.parametrize("matrix", [torch.ones(3), torch.ones(2, 2, dtype=torch.int64)])
def test_what_is_no_real_matrix_is_refused(matrix: Tensor) -> None:
    with pytest.raises(InputError, match="floating-point matrix"):
        nearest_low_rank(matrix, 1)
