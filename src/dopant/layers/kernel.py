"""The seam through which kernels of another kind serve a layer while it runs, and only while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Kernel = Callable[..., Any]
"""Takes what the layer's `forward` takes, and gives what it gives."""

FLOATS = (torch.float32,)
INDICES = (torch.int32, torch.int64)


def kernel_for(layer: nn.Module, *inputs: Tensor, dtypes: tuple[torch.dtype, ...] = FLOATS) -> Kernel | None:
    """The kernel set on a layer, if it may serve this call.

    That is in evaluation, without gradients, tracing or autocast, of float32 parameters, on tensors of the CPU that
    are not empty and of one of the `dtypes`. Everything else is torch's, its errors too.
    """
    kernel: Kernel | None = getattr(layer, "kernel", None)
    if kernel is None or layer.training or torch.is_grad_enabled():
        return None
    if torch._C._get_tracing_state() is not None or torch.is_autocast_enabled("cpu"):
        return None
    if next(layer.parameters()).dtype != torch.float32:
        return None
    for x in inputs:
        if x.device.type != "cpu" or x.dtype not in dtypes or x.is_neg() or 0 in (x.dim(), x.numel()):
            return None
    return kernel
