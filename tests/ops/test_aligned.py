"""What a GPU multiplies in longer rows is the same product."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dopant.ops import aligned
from dopant.ops.aligned import aligned_linear, longer, whole_rows


def test_only_a_gpu_has_longer_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(3)
    assert [whole_rows(size, x) for size in (1, 16, 650)] == [1, 16, 650]

    class OnAGpu:
        is_cuda = True

        def element_size(self) -> int:
            return 4

    assert [whole_rows(size, OnAGpu()) for size in (1, 16, 200, 650)] == [16, 16, 200, 656]  # type: ignore[arg-type]


def test_the_product_and_its_gradients_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aligned, "whole_rows", lambda size, like: 8)
    torch.manual_seed(0)
    x, weight = torch.randn(2, 4, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    found = []
    for product in (aligned_linear, F.linear):
        leaves = [t.clone().requires_grad_() for t in (x, weight)]
        y = product(*leaves)
        y.sin().sum().backward()
        found.append([y.detach(), *(leaf.grad for leaf in leaves)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_rows_that_are_long_enough_are_not_copied() -> None:
    x = torch.zeros(2, 3)
    assert longer(x, 3) is x
    assert longer(x, 5).shape == (2, 5)
