"""Where a weight's numbers come from in a graph: initializers as the file stores them, and the nodes that open them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dopant.cost import ESCAPE, Storage
from dopant.exporting.graph import Graph
from dopant.ops.gaps import encode_gaps
from dopant.ops.nibbles import decode_nibbles
from dopant.ops.quantise import INT8
from dopant.ops.steps import quantise_steps
from dopant.storage.pack import SCALE, STEP, pack, pack_matrix
from dopant.structures import SparseWeight


@dataclass(frozen=True)
class NonZeros:
    """The non-zeros of a sparse matrix as values of a graph, row by row.

    Args:
        values: (count,) float32.
        positions: (count,) int64, row-major in the matrix.
        rows, columns: (count,) int64.
    """

    values: str
    positions: str
    rows: str
    columns: str


@dataclass(frozen=True)
class Source:
    """A weight's place in a graph.

    Args:
        graph: where the products with the weight are added.
        name: of the weight; its initializers are called as the tensors of a model folder.
        storage: the type of the values, of which fewer bits than 8 become 8; positions are gaps in any case, which ONNX
            operators can open.
    """

    graph: Graph
    name: str
    storage: Storage

    def part(self, name: str) -> Source:
        """The place of a part of the weight."""
        return Source(self.graph, f"{self.name}.{name}", self.storage)

    def matrix(self, name: str, matrix: Tensor) -> str:
        """A matrix (..., rows, columns) in float32."""
        return self.graph.kept((self.name, name), lambda: self._opened(self.graph.root, name, matrix, None))

    def matrix_rows(self, name: str, matrix: Tensor, index: str) -> str:
        """Rows (n, columns) of a matrix (rows, columns); no other row is opened."""
        return self._opened(self.graph, name, matrix, index)

    def nonzeros(self, weight: SparseWeight) -> NonZeros:
        """The non-zeros of a sparse matrix that `without_skips` has gone over."""
        return self.graph.kept((self.name, "nonzeros"), lambda: self._opened_nonzeros(weight))

    def _opened(self, graph: Graph, name: str, matrix: Tensor, index: str | None) -> str:
        def made() -> dict[str, str]:
            packed = self._in_bytes(pack_matrix(name, matrix, self.storage), name, matrix)
            return {key: self._constant(key, part) for key, part in packed.items()}

        stored = self.graph.kept((self.name, name, "stored"), made)
        parts = dict(stored)
        if index is not None:
            of_rows = {key: part for key, part in stored.items() if key != name + STEP}
            parts |= {key: graph.add("Gather", part, index) for key, part in of_rows.items()}
        values = parts[name]
        if self.storage.values != "float32":
            values = graph.to(values, np.float32)
        if self.storage.scaled:
            scales = graph.add("Unsqueeze", graph.to(parts[name + SCALE], np.float32), graph.integers(-1))
            values = graph.add("Mul", values, scales)
        if self.storage.values == "huffman":
            values = graph.add("Mul", values, parts[name + STEP])
        return values

    def _opened_nonzeros(self, weight: SparseWeight) -> NonZeros:
        graph = self.graph.root
        packed = pack(weight, Storage(self.storage.values, "gaps"))
        stored = self._in_bytes(packed, "values", weight.values)
        gaps = graph.to(self._constant("positions", stored["positions"]), np.int64)
        reached = graph.add("CumSum", graph.add("Add", gaps, graph.integer(1)), graph.integer(0))
        positions = graph.add("Sub", reached, graph.integer(1))
        rows = graph.add("Div", positions, graph.integer(weight.shape[1]))
        columns = graph.add("Mod", positions, graph.integer(weight.shape[1]))
        values = self._constant("values", stored["values"])
        if self.storage.values != "float32":
            values = graph.to(values, np.float32)
        if self.storage.scaled:
            scales = graph.to(self._constant("values" + SCALE, stored["values" + SCALE]), np.float32)
            values = graph.add("Mul", values, graph.add("Gather", scales, rows))
        if self.storage.values == "huffman":
            values = graph.add("Mul", values, self._constant("values" + STEP, stored["values" + STEP]))
        return NonZeros(values, positions, rows, columns)

    def _in_bytes(self, packed: dict[str, Tensor], name: str, numbers: Tensor) -> dict[str, Tensor]:
        """The same with a byte for each number, where a file has less; four where some are larger than a byte holds."""
        if self.storage.values == "int4":
            return packed | {name: decode_nibbles(packed[name], numbers.shape[-1])}
        if self.storage.values == "huffman":
            levels = quantise_steps(numbers.cpu())[0]
            large = levels.numel() and int(levels.abs().max()) > INT8.last
            return packed | {name: levels if large else levels.to(torch.int8)}
        return packed

    def _constant(self, name: str, tensor: Tensor) -> str:
        return self.graph.constant(tensor.numpy(), f"{self.name}.{name}")


def without_skips(weight: SparseWeight) -> SparseWeight:
    """The same matrix with a zero kept wherever its gaps code skips places, and one at least.

    Then each byte of the code stands for a value, and runtimes know all sizes before they have opened it: only so do
    they open it when they load the file. A skip over 255 places leaves the last of them free for the zero.
    """
    codes = encode_gaps(weight.positions) if weight.values.numel() else np.zeros(1, np.uint8)
    ends = torch.from_numpy(codes != ESCAPE)
    positions = torch.from_numpy(np.cumsum(codes.astype(np.int64) + ends.numpy()) - 1)
    values = torch.zeros(len(codes))
    if weight.values.numel():
        values[ends] = weight.values.detach().cpu().float()
    return SparseWeight(weight.shape, values, positions, weight.per_bank)
