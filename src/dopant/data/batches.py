"""The reader of Zaremba et al. 2014 (arXiv 1409.2329): contiguous columns of text."""

from __future__ import annotations

from collections.abc import Sequence

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
