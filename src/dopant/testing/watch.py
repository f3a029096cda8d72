"""See what torch computes: the largest tensor made, and the multiply-accumulates of matrix products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_STRIDED = torch.strided


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context in which each operation, of the forward and the backward pass, is looked at.

    Attributes:
        largest: elements of the largest tensor in memory that an operation returned; views cost what they look at.
        where: that operation.
        macs: multiply-accumulates of all matrix products; of a sparse matrix its non-zeros count.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.largest = 0
        self.where = "nothing"
        self.macs = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operation and note what it made."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and (elements := _elements(tensor)) > self.largest:
                self.largest, self.where = elements, str(func)
        name = func.overloadpacket.__name__
        if name in _FACTORS:
            left, right = (args[i] for i in _FACTORS[name])
            self.macs += _macs(left, right)
        return result


_FACTORS = {
    "mm": (0, 1),
    "bmm": (0, 1),
    "mv": (0, 1),
    "dot": (0, 1),
    "addmm": (1, 2),
    "baddbmm": (1, 2),
    "addmv": (1, 2),
}
"""Which arguments of an operation are multiplied."""


def _elements(tensor: Tensor) -> int:
    if tensor.layout is not _STRIDED:
        return int(tensor._nnz())
    return tensor.untyped_storage().nbytes() // tensor.element_size()


def _macs(left: Tensor, right: Tensor) -> int:
    entries = left.numel() if left.layout is _STRIDED else int(left._nnz())
    if left.dim() == 1 or right.dim() < left.dim():
        return entries
    return entries * int(right.shape[-1])
