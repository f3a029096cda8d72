from __future__ import annotations

import importlib
import warnings
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dopant.errors import InputError
from dopant.ops import sparse
from dopant.ops.sparse import balanced_mask, sparse_linear, top_k_mask


@pytest.fixture(params=["csr", "gather"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to multiply: torch's CSR, and plain gathers where torch has none."""
    if request.param == "gather":
        monkeypatch.setattr(sparse, "_mkl", lambda: False)
        monkeypatch.setattr(sparse, "_GATHER_ELEMENTS", 50)  # several chunks
    elif not sparse._mkl():
        pytest.skip("torch is built without MKL here")
    return str(request.param)


def random_pattern(m: int, n: int, k: int, seed: int, ordered: bool = True) -> tuple[Tensor, Tensor]:
    positions = torch.randperm(m * n, generator=torch.Generator().manual_seed(seed))[:k]
    positions = positions.sort().values if ordered else positions
    return positions // n, positions % n


def dense_of(values: Tensor, rows: Tensor, columns: Tensor, m: int, n: int) -> Tensor:
    return values.new_zeros(m, n).index_put((rows, columns), values)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.booleans(), st.lists(st.integers(0, 3), max_size=2), st.data())
def test_the_product_and_its_gradients_are_those_of_the_dense_matrix(
    m: int, n: int, ordered: bool, batch: list[int], data: st.DataObject
) -> None:
    k = data.draw(st.integers(0, m * n))
    rows, columns = random_pattern(m, n, k, data.draw(st.integers(0, 2**31)), ordered)
    results = []
    for way in ("sparse", "dense"):
        generator = torch.Generator().manual_seed(k)
        values = torch.randn(k, generator=generator, dtype=torch.float64, requires_grad=True)
        x = torch.randn(*batch, n, generator=generator, dtype=torch.float64, requires_grad=True)
        if way == "sparse":
            y = sparse_linear(x, values, rows, columns, m)
        else:
            y = x @ dense_of(values, rows, columns, m, n).mT
        y.square().sum().backward()
        results.append((y.detach(), x.grad, values.grad))
    for ours, theirs in zip(*results, strict=True):
        assert ours is not None
        assert theirs is not None
        assert ours.shape == theirs.shape
        assert torch.allclose(ours, theirs)


@pytest.mark.parametrize("ordered", [True, False])
def test_gradients_to_second_order(path: str, ordered: bool) -> None:
    rows, columns = random_pattern(6, 5, 11, 3, ordered)
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    values = torch.randn(11, dtype=torch.float64, requires_grad=True)

    def product(x: Tensor, values: Tensor) -> Tensor:
        return sparse_linear(x, values, rows, columns, 6)

    assert torch.autograd.gradcheck(product, (x, values))
    assert torch.autograd.gradgradcheck(product, (x, values))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_every_dtype_is_right_within_its_rounding(path: str, dtype: torch.dtype) -> None:
    rows, columns = random_pattern(40, 30, 200, 0)
    values = torch.randn(200).to(dtype).requires_grad_()
    x = torch.randn(7, 30).to(dtype).requires_grad_()
    y = sparse_linear(x, values, rows, columns, 40)
    assert y.dtype == dtype
    dense = dense_of(values.detach().double(), rows, columns, 40, 30)
    exact = x.detach().double() @ dense.mT
    tolerance = 4 * torch.finfo(dtype).eps  # rounded once, so relative to the result and not to its summands
    assert torch.allclose(y.double(), exact, rtol=tolerance, atol=1e-5)
    g = torch.randn(7, 40).to(dtype)
    y.backward(g)
    assert values.grad is not None
    assert x.grad is not None
    assert values.grad.dtype == x.grad.dtype == dtype
    wide = g.double()
    assert torch.allclose(x.grad.double(), wide @ dense, rtol=tolerance, atol=1e-5)
    assert torch.allclose(
        values.grad.double(), (wide.mT @ x.detach().double())[rows, columns], rtol=tolerance, atol=1e-5
    )


@pytest.mark.parametrize("batch", [(), (0,), (1,), (2, 3), (2, 0)])
@pytest.mark.parametrize("k", [0, 1, 12])
def test_empty_rows_no_nonzeros_and_any_batch(path: str, batch: tuple[int, ...], k: int) -> None:
    rows, columns = random_pattern(50, 4, k, 1)  # most rows are empty
    values = torch.randn(k, requires_grad=True)
    x = torch.randn(*batch, 4, requires_grad=True)
    y = sparse_linear(x, values, rows, columns, 50)
    assert y.shape == (*batch, 50)
    assert torch.allclose(y, x @ dense_of(values, rows, columns, 50, 4).mT, atol=1e-6)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape
    assert values.grad is not None
    assert values.grad.shape == (k,)


def test_an_input_that_is_not_contiguous(path: str) -> None:
    rows, columns = random_pattern(5, 4, 9, 1)
    values = torch.randn(9)
    x = torch.randn(4, 6).mT
    expected = x @ dense_of(values, rows, columns, 5, 4).mT
    assert torch.allclose(sparse_linear(x, values, rows, columns, 5), expected, atol=1e-6)


def test_the_product_may_be_changed_in_place(path: str) -> None:
    rows, columns = random_pattern(5, 4, 9, 1)
    values = torch.randn(9, requires_grad=True)
    sparse_linear(torch.randn(2, 4), values, rows, columns, 5).add_(1.0).sum().backward()
    assert values.grad is not None


def test_nobody_is_warned_of_torchs_beta_state() -> None:
    rows, columns = random_pattern(5, 4, 9, 1)
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # else torch warns once a process, maybe in an earlier test
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("default")  # without pytest's own filters
            importlib.reload(sparse)  # pytest takes filters away that were set when it read the tests
            for _ in range(2):
                warnings.warn("the user's own", stacklevel=1)
                values = torch.randn(9, requires_grad=True)
                sparse_linear(torch.randn(2, 4), values, rows, columns, 5).sum().backward()
        assert [str(warning.message) for warning in told] == ["the user's own"]
    finally:
        torch.set_warn_always(before)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, 2.5, -1.0, float("inf")]), min_size=1, max_size=24), st.data())
def test_the_largest_k_are_chosen_and_ties_go_to_the_front(scores: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(0, len(scores)))
    mask = top_k_mask(torch.tensor(scores), k)
    expected = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]
    assert mask.nonzero().squeeze(1).tolist() == sorted(expected)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool]
)
def test_every_dtype_gives_exact_counts(dtype: torch.dtype) -> None:
    scores = (torch.rand(30, 20, generator=torch.Generator().manual_seed(0)) * 5).to(dtype)
    for k in (0, 1, 77, 599, 600):
        mask = top_k_mask(scores, k)
        assert mask.dtype == torch.bool
        assert mask.shape == scores.shape
        assert int(mask.sum()) == k
        if 0 < k < 600:
            assert float(scores[mask].double().min()) >= float(scores[~mask].double().max())


def test_scores_are_left_as_they_are_and_need_not_be_contiguous() -> None:
    scores = torch.randn(40, 30, requires_grad=True)
    copy = scores.detach().clone()
    mask = top_k_mask(scores.mT, 100)
    assert torch.equal(mask.mT.nonzero(), top_k_mask(copy, 100).nonzero())
    assert torch.equal(scores.detach(), copy)


def test_nan_counts_as_the_smallest() -> None:
    scores = torch.tensor([float("nan"), 1.0, float("nan"), -5.0])
    assert top_k_mask(scores, 2).tolist() == [False, True, False, True]
    assert top_k_mask(scores, 3).tolist() == [True, True, False, True]


@pytest.mark.parametrize("k", [-1, 7])
def test_an_impossible_count(k: int) -> None:
    with pytest.raises(InputError, match=f"cannot choose {k} of 6 entries; give a count from 0 to 6"):
        top_k_mask(torch.ones(2, 3), k)


def in_banks(mask: torch.Tensor, banks: int) -> torch.Tensor:
    """How many of each row lie in each strip of columns: (rows, banks)."""
    edges = [bank * mask.shape[1] // banks for bank in range(banks + 1)]
    return torch.stack([mask[:, a:b].sum(1) for a, b in pairwise(edges)], dim=1)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 6), st.integers(1, 20), st.data())
def test_the_largest_of_each_bank_are_chosen_evenly(m: int, n: int, data: st.DataObject) -> None:
    k, banks = data.draw(st.integers(0, m * n)), data.draw(st.integers(1, n))
    scores = torch.rand(m, n, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 2**31))))
    mask = balanced_mask(scores, k, banks)
    counts = in_banks(mask, banks)
    assert int(mask.sum()) == k
    assert int(counts.min()) >= k // (m * banks)
    assert int(counts.max()) <= -(-k // (m * banks))
    edges = [bank * n // banks for bank in range(banks + 1)]
    for row in range(m):
        for a, b in pairwise(edges):
            chosen, left = scores[row, a:b][mask[row, a:b]], scores[row, a:b][~mask[row, a:b]]
            assert not len(chosen) or not len(left) or float(chosen.min()) >= float(left.max())


def test_one_more_goes_to_the_banks_where_it_is_largest() -> None:
    scores = torch.tensor([[5.0, 4.0, 1.0, 0.5], [9.0, 0.1, 3.0, 2.0]])
    assert balanced_mask(scores, 6, 2).tolist() == [[True, True, True, False], [True, False, True, True]]


def test_one_bank_of_one_row_is_all_of_it() -> None:
    scores = torch.randn(1, 30)
    assert torch.equal(balanced_mask(scores, 7, 1), top_k_mask(scores, 7))


@pytest.mark.parametrize(("k", "banks"), [(-1, 1), (7, 1), (3, 0), (3, 4)])
def test_impossible_banks(k: int, banks: int) -> None:
    with pytest.raises(InputError, match=r"cannot choose .* of 6 entries|cannot cut 3 columns into . banks"):
        balanced_mask(torch.ones(2, 3), k, banks)


def test_a_program_that_torch_exports_has_the_product() -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.values = nn.Parameter(torch.randn(7))
            self.register_buffer("rows", torch.tensor([0, 0, 1, 3, 3, 4, 4]))
            self.register_buffer("columns", torch.tensor([1, 2, 0, 0, 3, 1, 2]))

        def forward(self, x: Tensor) -> Tensor:
            return sparse_linear(x, self.values, self.rows, self.columns, 5)

    product, x = Product().eval(), torch.randn(3, 4)
    exported = torch.export.export(product, (x,)).module()
    torch.testing.assert_close(exported(x), product(x))
