"""Sparse matrices given by their non-zeros: the product with vectors, the choice of the largest entries."""

from __future__ import annotations

import math
import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dopant.errors import InputError
from dopant.ops.precision import without_autocast

# torch calls its CSR support beta, and our users can do nothing about it. For the whole process: to catch it at each
# call makes Python forget which warnings it has shown, and is not for several threads.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")

_GATHER_ELEMENTS = 1 << 24  # the largest temporary of the plain-gather path


def top_k_mask(scores: Tensor, k: int) -> Tensor:
    """Where the `k` largest scores are: a bool mask of the shape of `scores` with exactly `k` True.

    Equal scores go by position, the lower first; NaN counts as the smallest.

    Args:
        scores: of any shape and real dtype.
        k: 0 ... the number of scores.

    Raises:
        InputError: `k` is out of its range.
    """
    total = scores.numel()
    if not 0 <= k <= total:
        raise InputError(f"cannot choose {k} of {total} entries; give a count from 0 to {total}")
    if k in (0, total):
        return torch.full(scores.shape, k > 0, dtype=torch.bool, device=scores.device)
    flat = _ordered(scores).reshape(-1)
    threshold: Any
    if flat.device.type == "cpu":  # several times faster than torch's kthvalue
        threshold = np.partition(flat.numpy(), total - k)[total - k].item()
    else:
        threshold = flat.kthvalue(total - k + 1).values
    mask: Tensor = flat > threshold
    ties = (flat == threshold).nonzero().squeeze(1)
    mask[ties[: k - int(mask.sum())]] = True
    return mask.view(scores.shape)


def balanced_mask(scores: Tensor, k: int, banks: int) -> Tensor:
    """Where the `k` largest scores are that spread evenly: banks are equal strips of columns, of every row.

    Each bank of each row holds k / (rows · banks) entries, rounded down or up: its own largest, and where one more is
    to be had, the largest of those (bank-balanced sparsity, Cao et al., FPGA 2019). Strips differ by a column at most.

    Args:
        scores: (m, n), as in `top_k_mask`.
        k: 0 ... m · n.
        banks: 1 ... n.

    Raises:
        InputError: `k` or `banks` is out of its range.
    """
    m, n = scores.shape
    if not 0 <= k <= m * n:
        raise InputError(f"cannot choose {k} of {m * n} entries; give a count from 0 to {m * n}")
    if not 1 <= banks <= max(1, n):
        raise InputError(f"cannot cut {n} columns into {banks} banks; give a number from 1 to {max(1, n)}")
    mask = torch.zeros(m, n, dtype=torch.bool, device=scores.device)
    flat = _ordered(scores)
    each, more = divmod(k, max(1, m * banks))
    edges = [bank * n // banks for bank in range(banks + 1)]
    next_best, places = [], []
    for first, end in pairwise(edges):
        # stable: of equal scores the lower position, as top_k_mask has it
        order = flat[:, first:end].sort(dim=1, descending=True, stable=True).indices + first
        mask.scatter_(1, order[:, :each], True)
        if more and each < end - first:
            places.append(order[:, each])
            next_best.append(flat.gather(1, order[:, each : each + 1]).squeeze(1))
    if more:
        row, bank = top_k_mask(torch.stack(next_best, dim=1), more).nonzero(as_tuple=True)
        mask[row, torch.stack(places, dim=1)[row, bank]] = True
    return mask


def _ordered(scores: Tensor) -> Tensor:
    """The scores in a dtype that can be sorted anywhere, NaN as the smallest."""
    scores = scores.detach()
    if scores.dtype in (torch.bfloat16, torch.float16, torch.bool):
        scores = scores.float()
    if scores.is_floating_point():
        scores = scores.nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)
    return scores


def sparse_linear(x: Tensor, values: Tensor, rows: Tensor, columns: Tensor, out_features: int) -> Tensor:
    """The product with the sparse W[rows[i], columns[i]] = values[i], x (..., in) -> (..., out_features).

    Differentiable, twice if need be, in `x` and `values`; W is never formed. Fastest if `rows` is sorted.
    float16 and bfloat16 are computed in float32 and rounded once.

    Args:
        x: (..., in), floating.
        values: (nnz,), floating; nnz may be zero.
        rows, columns: (nnz,) int64, within the matrix.
        out_features: number of rows of W.
    """
    dtype = torch.promote_types(x.dtype, values.dtype)
    work = dtype if dtype in (torch.float32, torch.float64) else torch.float32
    flat = x.reshape(-1, x.shape[-1]).to(work)
    product: Tensor = _Product.apply(flat, values.to(work), rows, columns, out_features)  # type: ignore[no-untyped-call]
    return product.to(dtype).reshape(*x.shape[:-1], out_features)


class _Product(torch.autograd.Function):
    """x (N, in) -> x Wᵀ (N, out)."""

    @staticmethod
    def forward(x: Tensor, values: Tensor, rows: Tensor, columns: Tensor, out_features: int) -> Tensor:
        return _multiply(x, values, rows, columns, out_features)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor, int], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:4])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, values, rows, columns = ctx.saved_tensors
        (grad,) = grads
        grad_x = grad_values = None
        if ctx.needs_input_grad[0]:
            grad_x = _Product.apply(grad, values, columns, rows, x.shape[1])  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[1]:
            grad_values = _Sampled.apply(grad, x, rows, columns)  # type: ignore[no-untyped-call]
        return grad_x, grad_values, None, None, None


class _Sampled(torch.autograd.Function):
    """g (N, out), x (N, in) -> the entries (rows, columns) of gᵀ x."""

    @staticmethod
    def forward(g: Tensor, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        return _sample(g, x, rows, columns)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        g, x, rows, columns = ctx.saved_tensors
        (grad,) = grads
        grad_g = grad_x = None
        if ctx.needs_input_grad[0]:
            grad_g = _Product.apply(x, grad, rows, columns, g.shape[1])  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[1]:
            grad_x = _Product.apply(g, grad, columns, rows, x.shape[1])  # type: ignore[no-untyped-call]
        return grad_g, grad_x, None, None


def _multiply(x: Tensor, values: Tensor, rows: Tensor, columns: Tensor, out_features: int) -> Tensor:
    if values.numel() == 0 or x.numel() == 0:
        return x.new_zeros(x.shape[0], out_features)
    if not _has_csr(x):
        output = x.new_zeros(x.shape[0], out_features)
        step = max(1, _GATHER_ELEMENTS // values.numel())
        for at in range(0, x.shape[0], step):
            part = x[at : at + step].index_select(1, columns) * values
            output[at : at + step].index_add_(1, rows, part)
        return output
    with without_autocast(x.device):
        matrix = _csr(values, rows, columns, (out_features, x.shape[1]))[0]
        # copied, not a view: autograd lets nobody change a view in place that a function of our own returned
        return x.new_empty(x.shape[0], out_features).copy_((matrix @ x.mT).mT)


def _sample(g: Tensor, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    if rows.numel() == 0 or g.shape[0] == 0:
        return x.new_zeros(rows.numel())
    if not _has_csr(x):
        total = x.new_zeros(rows.numel())
        step = max(1, _GATHER_ELEMENTS // rows.numel())
        for at in range(0, x.shape[0], step):
            left, right = g[at : at + step], x[at : at + step]
            total += (left.index_select(1, rows) * right.index_select(1, columns)).sum(0)
        return total
    with without_autocast(x.device):
        pattern, order = _csr(x.new_zeros(rows.numel()), rows, columns, (g.shape[1], x.shape[1]))
        sampled = torch.sparse.sampled_addmm(pattern, g.mT, x, beta=0.0).values()
    return sampled if order is None else torch.empty_like(sampled).index_copy_(0, order, sampled)


exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # torch 2.6 has the second alone
"""Whether torch.export traces: a program that it makes cannot branch on a tensor's contents."""


def _has_csr(x: Tensor) -> bool:
    """Whether torch multiplies CSR matrices here: always on CUDA, on the CPU only where built with MKL.

    Programs that torch.export makes hold none.
    """
    if exporting():
        return False
    return x.device.type == "cuda" or (x.device.type == "cpu" and _mkl())


def _mkl() -> bool:
    return bool(torch.backends.mkl.is_available())  # type: ignore[no-untyped-call]


def _csr(values: Tensor, rows: Tensor, columns: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
    """The matrix in CSR form, and the order the non-zeros had to be brought into (None: they came sorted)."""
    order = None
    if not bool((rows[1:] >= rows[:-1]).all()):
        order = torch.argsort(rows, stable=True)
        values, rows, columns = values[order], rows[order], columns[order]
    starts = rows.new_zeros(size[0] + 1)
    starts[1:] = torch.bincount(rows, minlength=size[0]).cumsum(0)
    return torch.sparse_csr_tensor(starts, columns, values, size, check_invariants=False), order
