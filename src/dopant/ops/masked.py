"""A dense matrix under a mask laid over another matrix, in as few passes over memory as it takes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def add_masked(base: Tensor, matrix: Tensor, mask: Tensor, rows: Tensor | None = None) -> Tensor:
    """base + rows ∘ (matrix where mask is true, else 0), (m, n); differentiable in `base` and `matrix`.

    What `matrix` holds under a false mask does not matter, be it NaN.

    Args:
        base, matrix: (m, n), floating, of one dtype.
        mask: (m, n) bool.
        rows: (m,) multiplies the rows; None for ones. A constant: no gradient.
    """
    added: Tensor = _AddMasked.apply(base, matrix, mask, rows)  # type: ignore[no-untyped-call]
    return added


class _AddMasked(torch.autograd.Function):
    """Autograd's own way turns the mask into numbers, forward and backward, and keeps the product of each step."""

    @staticmethod
    def forward(base: Tensor, matrix: Tensor, mask: Tensor, rows: Tensor | None) -> Tensor:
        kept = torch.where(mask, matrix, 0.0)
        return kept.add_(base) if rows is None else torch.addcmul(base, kept, rows.unsqueeze(-1), out=kept)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[2:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        mask, rows = ctx.saved_tensors
        (grad,) = grads
        own = torch.where(mask, grad, 0.0) if ctx.needs_input_grad[1] else None
        if own is not None and rows is not None:
            own = own.mul_(rows.unsqueeze(-1))
        return grad, own, None, None
