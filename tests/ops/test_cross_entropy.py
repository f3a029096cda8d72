from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dopant.ops.cross_entropy import summed_cross_entropy


def test_equals_torch_in_value_and_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(7, 11, generator=generator, dtype=torch.float64)
    targets = torch.randint(11, (7,), generator=generator)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    (summed_cross_entropy(ours, targets) * 0.3).backward()
    expected = F.cross_entropy(theirs, targets, reduction="sum") * 0.3
    expected.backward()
    assert torch.allclose(summed_cross_entropy(logits, targets) * 0.3, expected)
    assert torch.allclose(ours.grad, theirs.grad)


def test_a_second_derivative_is_refused() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    loss = summed_cross_entropy(logits, torch.tensor([0, 1, 2])).square()
    (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.square().sum().backward()


def test_stays_finite_where_the_target_is_nearly_impossible() -> None:
    logits = torch.tensor([[0.0, 500.0]])
    assert summed_cross_entropy(logits, torch.tensor([0])).item() == 500.0
