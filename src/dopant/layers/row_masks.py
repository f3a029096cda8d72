"""Products with a weight whose paths may be under row masks, as co-matrix dropout draws them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, singledispatch

import torch.nn.functional as F
from torch import Tensor

from dopant.ops.kronecker import kronecker_dense
from dopant.ops.masked import add_masked
from dopant.structures import KroneckerWeight, MaskedWeight, StructuredWeight

Product = tuple[Callable[[Tensor], Tensor], Tensor | None]
"""x -> y, and the mask of y (broadcastable to it) or None."""


def products(weight: StructuredWeight, *, formed: bool = False) -> list[Product]:
    """The products whose sum is W x: one, or one a path where masks are set.

    Args:
        formed: form the matrices first, for products that are repeated many times.
    """
    masks: tuple[Tensor | None, ...] = (None,) if weight.row_masks is None else weight.row_masks
    paths = (weight,) if weight.row_masks is None else weight.paths()
    return [
        (partial(F.linear, weight=w.to_dense()) if formed else w.linear, mask)
        for w, mask in zip(paths, masks, strict=True)
    ]


def summed(parts: list[Product], x: Tensor, time: int | None = None) -> Tensor:
    """The masked products of x, added up; `time` picks the step of masks (time, batch, out)."""
    total: Tensor | None = None
    for product, mask in parts:
        y = product(x)
        if mask is not None:
            y = y * (mask[time] if time is not None and mask.dim() == 3 else mask)
        total = y if total is None else total + y
    assert total is not None  # a weight has one path at least
    return total


def masks_are_by_row(weight: StructuredWeight) -> bool:
    """Whether the masks, if any, are one value a row, so that they can be multiplied into W."""
    return weight.row_masks is None or all(mask.dim() == 1 for mask in weight.row_masks)


def masked_dense(weight: StructuredWeight) -> Tensor:
    """W formed, with the rows of its paths under their masks."""
    first, *others = weight.paths()
    masks: Sequence[Tensor | None] = weight.row_masks or (None,) * (1 + len(others))
    total = _formed(first, masks[0])
    for path, mask in zip(others, masks[1:], strict=True):
        total = _added(path, total, mask)
    return total


@singledispatch
def _formed(path: StructuredWeight, rows: Tensor | None) -> Tensor:
    """The matrix of a path, its rows multiplied by `rows`."""
    return path.to_dense() if rows is None else path.to_dense() * rows.unsqueeze(-1)


@_formed.register
def _(path: KroneckerWeight, rows: Tensor | None) -> Tensor:
    return kronecker_dense(path.factors, rows)


@singledispatch
def _added(path: StructuredWeight, total: Tensor, rows: Tensor | None) -> Tensor:
    """`total` and the matrix of a path, its rows multiplied by `rows`."""
    return total + _formed(path, rows)


@_added.register
def _(path: MaskedWeight, total: Tensor, rows: Tensor | None) -> Tensor:
    return add_masked(total, path.matrix, path.mask, rows)


def masked_rows(weight: StructuredWeight, index: Tensor) -> Tensor:
    """The rows of W at `index`, those of its paths under their masks; masks of more than a row fit `index`."""
    if weight.row_masks is None:
        return weight.rows(index)
    total: Tensor | None = None
    for path, mask in zip(weight.paths(), weight.row_masks, strict=True):
        rows = path.rows(index) * mask.expand(*index.shape, mask.shape[-1]).gather(-1, index.unsqueeze(-1))
        total = rows if total is None else total + rows
    assert total is not None  # a weight has one path at least
    return total
