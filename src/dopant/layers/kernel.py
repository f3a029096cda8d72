"""The seam through which kernels of another kind serve a layer while it runs, and only while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

Kernel = Callable[..., Any]
"""Takes the layer and what its `forward` takes, and gives what that gives."""

FLOATS = (torch.float32,)
INDICES = (torch.int32, torch.int64)


def kernel_for(layer: nn.Module, *inputs: Tensor, dtypes: tuple[torch.dtype, ...] = FLOATS) -> Kernel | None:
    """The kernel set on a layer, if it may serve this call.

    That is in evaluation, without gradients, autocast or anything that records or transforms what torch computes, of
    float32 parameters that tell when they change, without row masks, on plain tensors of the CPU that are not empty and
    of one of the `dtypes`. Everything else is torch's, its errors too.
    """
    kernel: Kernel | None = getattr(layer, "kernel", None)
    if kernel is None or layer.training or torch.is_grad_enabled() or _watched() or torch.is_autocast_enabled("cpu"):
        return None
    parameter = next(layer.parameters())
    if parameter.dtype != torch.float32 or parameter.is_inference():  # made in inference mode, it counts no changes
        return None
    if any(getattr(weight, "row_masks", None) is not None for weight in layer.children()):
        return None
    for x in inputs:
        if type(x) not in (Tensor, nn.Parameter) or x.layout != torch.strided or x.device.type != "cpu":
            return None
        if x.dtype not in dtypes or x.is_neg() or 0 in (x.dim(), x.numel()):
            return None
    return kernel


def _watched() -> bool:
    """Whether something records or transforms torch's operations: a compiler, a tracer, torch.func, a dispatch mode."""
    return (
        torch.compiler.is_compiling()  # first: a compiler cannot read on
        or torch._C._get_tracing_state() is not None
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._len_torch_dispatch_stack() > 0
        or forward_ad._current_level >= 0
    )
