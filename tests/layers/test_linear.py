from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dopant.layers import Linear
from dopant.layers.convert import convert
from dopant.structures import Dense, DenseWeight, Doped, Kronecker, LowRank, MaskedWeight, Sparse, Structure
from dopant.structures.doped import DopedWeight

STRUCTURES: dict[str, Structure] = {
    "dense": Dense(),
    "sparse": Sparse(9),
    "low rank": LowRank(2),
    "Kronecker": Kronecker(((2, 3), (4, 2))),
    "doped": Doped(Kronecker(((2, 3), (4, 2))), Sparse(5)),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [(), (0,), (4,), (2, 3)])
def test_it_equals_torchs(bias: bool, batch: tuple[int, ...]) -> None:
    theirs = nn.Linear(6, 8, bias=bias).double()
    ours = convert(theirs)
    results: list[dict[str, Tensor]] = []
    for layer in (ours, theirs):
        x = torch.ones(*batch, 6, dtype=torch.float64).cumsum(-1).requires_grad_()
        layer(x).square().sum().backward()
        assert x.grad is not None
        results.append({"x": x.grad, **{n.removesuffix(".matrix"): p.grad for n, p in layer.named_parameters()}})
    assert results[0].keys() == results[1].keys()
    for name in results[0]:
        assert torch.allclose(results[0][name], results[1][name]), name


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("bias", [True, False])
def test_any_structure_can_be_trained(name: str, bias: bool) -> None:
    layer = Linear(6, 8, bias, weight=STRUCTURES[name].new((8, 6))).double()
    x = torch.randn(5, 6, dtype=torch.float64)
    expected = nn.functional.linear(x, layer.weight.to_dense(), layer.bias)
    y = layer(x)
    assert torch.allclose(y, expected)
    y.square().sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


class Viewing(torch.autograd.Function):
    """Returns a view, which autograd lets nobody change in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor) -> Tensor:
        ctx.save_for_backward(x, matrix)
        return (matrix @ x.mT).mT

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, matrix = ctx.saved_tensors
        return grads[0] @ matrix, grads[0].mT @ x


def test_an_outside_weight_may_return_a_view() -> None:
    class ViewingWeight(DenseWeight):
        def linear(self, x: Tensor) -> Tensor:
            return Viewing.apply(x, self.matrix)  # type: ignore[no-any-return]

    layer = Linear(6, 8, weight=ViewingWeight(torch.randn(8, 6)))
    x = torch.randn(5, 6)
    y = layer(x)
    assert torch.allclose(y, x @ layer.weight.to_dense().mT + layer.bias, atol=1e-6)
    y.sum().backward()


def test_the_input_is_left_as_it_is() -> None:
    for structure in STRUCTURES.values():
        layer = Linear(6, 8, weight=structure.new((8, 6)))
        x = torch.randn(5, 6)
        before, weight = x.clone(), layer.weight.to_dense().detach().clone()
        layer(x)
        assert torch.equal(x, before)
        assert torch.equal(layer.weight.to_dense(), weight)


@pytest.mark.parametrize("size", [(8,), (5, 8)])
@pytest.mark.parametrize("trained", [False, True])
def test_row_masks_act_on_each_path_and_spare_the_bias(size: tuple[int, ...], trained: bool) -> None:
    weight = Doped(LowRank(2), Sparse(9)).new((8, 6))
    if trained:
        weight = DopedWeight(weight.base, MaskedWeight.from_sparse(weight.overlay))
    layer = Linear(6, 8, weight=weight)
    first, second = (torch.rand(size) < 0.5 for _ in range(2))
    x = torch.randn(5, 6)
    weight.row_masks = (first.float(), second.float())
    base, overlay = (part.to_dense() for part in weight.paths())
    assert torch.allclose(layer(x), (x @ base.mT) * first + (x @ overlay.mT) * second + layer.bias, atol=1e-6)
    weight.row_masks = None
    assert torch.allclose(layer(x), x @ (base + overlay).mT + layer.bias, atol=1e-6)


def test_a_new_one_starts_like_torchs() -> None:
    torch.manual_seed(0)
    ours, theirs = Linear(50, 400), nn.Linear(50, 400)
    for a, b in ((ours.weight.to_dense(), theirs.weight), (ours.bias, theirs.bias)):
        assert float(a.detach().std()) == pytest.approx(float(b.detach().std()), rel=0.1)
        assert float(a.detach().abs().max()) <= 50**-0.5


def test_it_prints_like_torchs() -> None:
    assert "in_features=6, out_features=8, bias=False" in repr(Linear(6, 8, bias=False))
    assert "low" in repr(Linear(6, 8, weight=LowRank(2).new((8, 6)))).lower()
