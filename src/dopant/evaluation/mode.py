"""Evaluation leaves a model as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dopant.ops.precision import matrix_products

Scorer = Callable[[Tensor, Any], tuple[Tensor, Any]]
"""Maps (tokens (time, batch), state) to (logits (time, batch, vocabulary), state): a model, or a runtime."""


@contextmanager
def evaluating(model: Scorer) -> Iterator[torch.device]:
    """No gradients, float32 products, and of a module evaluation mode, put back at the end; gives the device."""
    if not isinstance(model, nn.Module):
        yield torch.device("cpu")
        return
    training = [module for module in model.modules() if module.training]  # parts may be frozen in evaluation mode
    device = next(model.parameters()).device
    model.eval()
    try:
        with torch.no_grad(), matrix_products(device, tf32=False):
            yield device
    finally:
        for module in training:
            module.training = True
