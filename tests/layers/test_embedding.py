from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dopant.errors import InputError
from dopant.layers import Embedding
from dopant.layers.convert import convert, revert
from dopant.plan import apply_plan, make_plan
from dopant.runtime import accelerate
from dopant.structures import Doped, Kronecker, LowRank, Sparse, Stacked, Structure

STRUCTURES: dict[str, Structure] = {
    "sparse": Sparse(20),
    "low rank": LowRank(2),
    "Kronecker": Kronecker(((3, 2), (4, 3))),
    "stacked": Stacked((LowRank(1), Sparse(5)), (8, 4)),
    "doped": Doped(Kronecker(((3, 2), (4, 3))), Sparse(5)),
}


@pytest.mark.parametrize("padding_idx", [None, 0, 7, -1, -12])
@pytest.mark.parametrize("index", [torch.tensor(3), torch.tensor([0, 7, 7, 11]), torch.zeros(0, 2, dtype=torch.int64)])
@pytest.mark.parametrize("training", [True, False])
def test_it_equals_torchs(padding_idx: int | None, index: Tensor, training: bool) -> None:
    theirs = nn.Embedding(12, 6, padding_idx=padding_idx).train(training)
    with torch.no_grad():
        theirs.weight.add_(1.0)  # the padding row need not be zero
    ours = convert(theirs)
    assert isinstance(ours, Embedding)
    assert ours.training == training
    assert torch.equal(ours(index), theirs(index))
    for layer in (ours, theirs):
        layer(index).square().sum().backward()
    assert torch.allclose(ours.weight.matrix.grad, theirs.weight.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize("padding_idx", [12, -13])
def test_padding_that_is_no_row_is_refused(padding_idx: int) -> None:
    with pytest.raises(InputError, match=f"padding_idx {padding_idx} is no row of an embedding of 12"):
        Embedding(12, 6, padding_idx, weight=LowRank(2).new((12, 6)))


@pytest.mark.parametrize("name", STRUCTURES)
def test_torch_exports_it_for_indices_of_any_shape(name: str) -> None:
    layer = Embedding(12, 6, padding_idx=3, weight=STRUCTURES[name].new((12, 6))).eval()
    sizes = {axis: torch.export.Dim(f"size_{axis}") for axis in range(2)}
    exported = torch.export.export(layer, (torch.tensor([[0, 3, 11], [3, 3, 5]]),), dynamic_shapes=(sizes,)).module()
    for index in (torch.tensor([[0, 3, 11], [3, 3, 5]]), torch.arange(12).view(6, 2)):
        torch.testing.assert_close(exported(index), layer(index))


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("padding_idx", [None, 3])
def test_any_structure_gives_its_rows(name: str, padding_idx: int | None) -> None:
    weight = STRUCTURES[name].new((12, 6)).double()
    layer = Embedding(12, 6, padding_idx, weight=weight)
    index = torch.tensor([[0, 3, 11], [3, 3, 5]])
    rows = layer(index)
    want = weight.to_dense()[index]
    assert torch.allclose(rows, want if padding_idx is None else want * (index != padding_idx).unsqueeze(-1))
    rows.square().sum().backward()
    got = [p.grad.clone() if p.grad is not None else torch.zeros_like(p) for p in weight.parameters()]
    weight.zero_grad()
    kept = index[index != padding_idx] if padding_idx is not None else index
    weight.to_dense()[kept].square().sum().backward()
    for ours, parameter in zip(got, weight.parameters(), strict=True):
        assert torch.allclose(ours, parameter.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize("start", ["new", "fit"])
def test_padding_stays_zero_when_a_plan_is_applied(start: Any) -> None:
    model = convert(nn.Sequential(nn.Embedding(100, 64, padding_idx=5))).eval()
    apply_plan(model, make_plan(model, target="10x", scope="model", count="parameters"), start)
    index = torch.tensor([[5, 1], [2, 5]])
    rows = model(index)
    assert not rows[index == 5].any()
    assert rows[index != 5].all(dim=-1).all()
    with torch.no_grad():
        torch.testing.assert_close(accelerate(copy.deepcopy(model))(index), rows)
        torch.testing.assert_close(revert(model)(index), rows)


def test_a_new_one_starts_like_torchs() -> None:
    torch.manual_seed(0)
    layer = Embedding(200, 50, padding_idx=-3)
    dense = layer.weight.to_dense().detach()
    assert not dense[197].any()
    assert float(dense.std()) == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("bad", [-1, 12])
@pytest.mark.parametrize("name", STRUCTURES)
def test_an_index_beyond_the_rows(bad: int, name: str) -> None:
    with pytest.raises(IndexError):
        Embedding(12, 6, weight=STRUCTURES[name].new((12, 6)))(torch.tensor([0, bad]))


def test_it_prints_like_torchs() -> None:
    assert "12, 6, padding_idx=11" in repr(Embedding(12, 6, padding_idx=-1))
