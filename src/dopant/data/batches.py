"""The reader of Zaremba et al. 2014 (arXiv 1409.2329): contiguous columns of text, read in windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from dopant.errors import InputError

Ids = Tensor | np.ndarray[tuple[int, ...], np.dtype[np.integer]] | Sequence[int]
"""Token ids in any form, one-dimensional."""


def batchify(ids: Ids, batch: int, *, device: torch.device | str | None = None) -> Tensor:
    """Ids (tokens,) -> columns (tokens // batch, batch), int64; each column a contiguous stretch of text.

    The last tokens % batch ids are left out, as in the original reader.

    Raises:
        InputError: batch is below 1, ids are not one-dimensional, or too few for two steps a column.
    """
    if batch < 1:
        raise InputError(f"batch is {batch}; at least 1 is needed")
    flat = torch.as_tensor(ids, dtype=torch.int64)
    if flat.dim() != 1:
        raise InputError(f"ids have shape {tuple(flat.shape)}; one dimension is needed")
    steps = flat.numel() // batch
    if steps < 2:
        largest = flat.numel() // 2
        way_out = f"use a batch of at most {largest}, or more text" if largest else "more text is needed"
        raise InputError(
            f"{flat.numel()} tokens are too few for batch {batch}: a column needs 2, an input and its target; {way_out}"
        )
    return flat[: steps * batch].view(batch, steps).t().contiguous().to(device)


def count_windows(steps: int, unroll: int, *, drop_last: bool) -> int:
    """How many windows `windows` yields for columns of this many steps."""
    whole, rest = divmod(steps - 1, unroll)
    return whole + (0 if drop_last or not rest else 1)


def windows(columns: Tensor, unroll: int, *, drop_last: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Columns (steps, batch) -> inputs and targets, both (time, batch) views; targets lie one step ahead.

    Args:
        columns: from `batchify`.
        unroll: steps a window.
        drop_last: leave out the last window where it is shorter than `unroll`, as in training; with False
            every step but the first is a target once, as evaluation needs.

    Raises:
        InputError: unroll is below 1, or there is not a single window. Raised at the call already.
    """
    if unroll < 1:
        raise InputError(f"unroll is {unroll}; at least 1 is needed")
    steps = columns.shape[0]
    if count_windows(steps, unroll, drop_last=drop_last) < 1:
        raise InputError(
            f"columns of {steps} steps hold no window of {unroll} inputs and targets; "
            f"use an unroll of at most {max(1, steps - 1)}, a smaller batch, or more text"
        )
    return _windows(columns, unroll, drop_last)


def _windows(columns: Tensor, unroll: int, drop_last: bool) -> Iterator[tuple[Tensor, Tensor]]:
    last = columns.shape[0] - 1
    for start in range(0, last, unroll):
        stop = min(start + unroll, last)
        if stop - start == unroll or not drop_last:
            yield columns[start:stop], columns[start + 1 : stop + 1]
