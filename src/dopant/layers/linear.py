"""torch.nn.Linear with a structured weight."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from dopant.layers.kernel import Kernel, kernel_for
from dopant.layers.row_masks import products, summed
from dopant.structures import Dense, StructuredWeight


class Linear(nn.Module):
    """y = W x + b.

    Args:
        in_features, out_features: sizes of x and y.
        bias: whether there is a b.
        weight: a structured weight of shape (out_features, in_features); by default a new dense one.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        weight: StructuredWeight | None = None,
    ) -> None:
        super().__init__()
        self.kernel: Kernel | None = None
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Dense().new((out_features, in_features)) if weight is None else weight
        bound = max(1, in_features) ** -0.5
        self.bias = nn.Parameter(torch.empty(out_features).uniform_(-bound, bound)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in_features) -> (..., out_features)."""
        if (kernel := kernel_for(self, x)) is not None:
            return cast(Tensor, kernel(self, x))
        y = summed(products(self.weight), x)
        if self.bias is None:
            return y
        # in place, the decoder's y being large; autograd forbids it for a view that a function of our own returned
        return y + self.bias if y._is_view() else y.add_(self.bias)

    def extra_repr(self) -> str:
        """As torch.nn.Linear says it."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
