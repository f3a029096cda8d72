"""Comparing results within the rounding of their dtype; failures are AssertionErrors that tell how far they are off."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NoReturn

import torch
from torch import Tensor

from dopant.structures import StructuredWeight

ROUNDINGS = {torch.float64: 64.0, torch.float32: 64.0, torch.bfloat16: 8.0}
"""How many roundings (eps of the dtype, relative to the largest number) a result may be off."""

Run = Callable[[StructuredWeight, Tensor], Tensor]
"""A weight and an input to a result."""


def fail(text: str) -> NoReturn:
    """Raise AssertionError; unlike `assert` also under python -O, which must not silence a contract."""
    raise AssertionError(text)


def seeded(seed: int) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def random(shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> Tensor:
    """Normal numbers."""
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def dtype_of(weight: StructuredWeight) -> torch.dtype:
    """The dtype of a weight's numbers."""
    return next((p.dtype for p in weight.parameters()), torch.float32)


def copy_of(weight: StructuredWeight, dtype: torch.dtype) -> StructuredWeight:
    """A copy to work on."""
    return copy.deepcopy(weight).to(dtype)


def same(what: str, got: Tensor, expected: Tensor, roundings: float) -> None:
    """Fail unless `got` is `expected` up to so many roundings of its dtype, relative to its largest number."""
    if got.shape != expected.shape or got.dtype != expected.dtype:
        fail(f"{what} is {got.dtype} {tuple(got.shape)}, not {expected.dtype} {tuple(expected.shape)}")
    _close(what, got, expected, roundings * torch.finfo(expected.dtype).eps)


def same_gradients(weight: StructuredWeight, dtype: torch.dtype, x: Tensor, ours: Run, dense: Run) -> None:
    """Fail unless result and gradients of `ours`, in `dtype`, are those of `dense`, in float64.

    Args:
        weight: is copied, rounded to `dtype`, and given to both.
        x: the input; floating numbers are given to both in their dtype, and get a gradient.
    """
    rounded = copy_of(weight, dtype)
    got = _run(rounded, dtype, x, ours)
    expected = _run(rounded, torch.float64, x, dense)
    batch = f"(result of shape {tuple(got['the result'].shape)})"
    for name, tensor in expected.items():
        if name not in got:
            fail(f"{name} is missing {batch}")
        if got[name].dtype != dtype:
            fail(f"{name} is {got[name].dtype}, not {dtype} {batch}")
        if got[name].shape != tensor.shape:
            fail(f"{name} has shape {tuple(got[name].shape)}, not {tuple(tensor.shape)} {batch}")
        _close(f"{name} {batch}", got[name], tensor, ROUNDINGS[dtype] * torch.finfo(dtype).eps)


def _run(weight: StructuredWeight, dtype: torch.dtype, x: Tensor, run: Run) -> dict[str, Tensor]:
    used = copy_of(weight, dtype)
    given = x.to(dtype).detach().requires_grad_() if x.is_floating_point() else x
    y = run(used, given)
    upstream = random(tuple(y.shape), 16, torch.bfloat16)  # numbers that each dtype holds exactly
    torch.autograd.backward(y, upstream.to(y.dtype))
    found = {"the result": y.detach()}
    found |= {f"the gradient of {name}": p.grad for name, p in used.named_parameters() if p.grad is not None}
    if given.grad is not None:
        found["the gradient of x"] = given.grad
    return found


def _close(what: str, got: Tensor, expected: Tensor, tolerance: float) -> None:
    if not expected.numel():
        return
    wide = expected.detach().double()
    allowed = tolerance * float(wide.abs().max())
    off = float((got.detach().double() - wide).abs().max())
    if not off <= allowed:
        fail(f"{what} is off by {off:.3g} in {got.dtype}, allowed is {allowed:.3g}")
