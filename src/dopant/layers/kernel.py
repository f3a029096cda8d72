"""The seam through which kernels of another kind serve a layer while it runs, and only while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Kernel = Callable[..., Any]
"""Takes what the layer's `forward` takes, and gives what it gives."""


def kernel_for(layer: nn.Module, *inputs: Tensor | None) -> Kernel | None:
    """The kernel set on a layer, if it may serve this call: in evaluation, without gradients, float32 on the CPU."""
    kernel: Kernel | None = getattr(layer, "kernel", None)
    if kernel is None or layer.training or torch.is_grad_enabled():
        return None
    for x in inputs:
        if x is not None and (x.device.type != "cpu" or (x.is_floating_point() and x.dtype != torch.float32)):
            return None
    return kernel
