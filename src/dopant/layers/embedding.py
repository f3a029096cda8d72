"""torch.nn.Embedding with a structured weight."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from dopant.errors import InputError
from dopant.layers.kernel import INDICES, Kernel, kernel_for
from dopant.layers.row_masks import masked_rows
from dopant.structures import Dense, DenseWeight, StructuredWeight


class Embedding(nn.Module):
    """Rows of W by index.

    Args:
        num_embeddings, embedding_dim: rows and columns of W.
        padding_idx: an index whose row passes no gradient on, as in torch.nn.Embedding. Of a weight that is not dense,
            which cannot keep one row apart from the others, that row counts as zeros here.
        weight: a structured weight of shape (num_embeddings, embedding_dim); by default new, dense and normal.

    Raises:
        InputError: `padding_idx` is no row.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        weight: StructuredWeight | None = None,
    ) -> None:
        super().__init__()
        self.kernel: Kernel | None = None
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise InputError(
                f"padding_idx {padding_idx} is no row of an embedding of {num_embeddings}; give one of those"
            )
        self.padding_idx = padding_idx + num_embeddings if padding_idx is not None and padding_idx < 0 else padding_idx
        if weight is None:
            matrix = torch.randn(num_embeddings, embedding_dim)
            if self.padding_idx is not None:
                matrix[self.padding_idx] = 0.0
            weight = Dense().fit(matrix)
        self.weight = weight

    def forward(self, index: Tensor) -> Tensor:
        """index (...) of integers -> (..., embedding_dim)."""
        kernel = kernel_for(self, index, dtypes=INDICES)
        rows = cast(Tensor, kernel(self, index)) if kernel is not None else masked_rows(self.weight, index)
        if self.padding_idx is None:
            return rows
        padding = (index == self.padding_idx).unsqueeze(-1)
        if self.zeroes_padding:
            return rows.masked_fill(padding, 0.0)
        return torch.where(padding, rows.detach(), rows) if rows.requires_grad else rows

    @property
    def zeroes_padding(self) -> bool:
        """Whether the row at `padding_idx` counts as zeros, whatever the weight has there."""
        return self.padding_idx is not None and not isinstance(self.weight, DenseWeight)

    def extra_repr(self) -> str:
        """As torch.nn.Embedding says it."""
        return f"{self.num_embeddings}, {self.embedding_dim}" + (
            "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        )
