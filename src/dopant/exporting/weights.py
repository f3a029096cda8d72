"""What ONNX operators make of a structured weight: the matrix itself, products with it, and its rows.

Three open functions, so that a structure defined elsewhere can be exported too: register an implementation of each
for its weight. They mirror `to_dense`, `linear` and `rows` of the weight.
"""

from __future__ import annotations

from functools import singledispatch
from math import prod

import numpy as np
from torch import nn

from dopant.errors import KindError
from dopant.exporting.source import Source, without_skips
from dopant.ops.kronecker import contraction_order
from dopant.structures import (
    DenseWeight,
    DopedWeight,
    KroneckerWeight,
    LowRankWeight,
    SparseWeight,
    StackedWeight,
)


@singledispatch
def dense(weight: nn.Module, source: Source) -> str:
    """W itself, (out, in), computed from constants alone: a runtime does it once, when it loads the file.

    Raises:
        KindError: nobody has registered how this weight is exported.
    """
    raise KindError(f"nothing is registered to export a {type(weight).__name__} to ONNX")


@singledispatch
def linear(weight: nn.Module, source: Source, x: str) -> str:
    """x (n, in) -> (n, out), from the factors, W not formed. Raises KindError as `dense` does."""
    raise KindError(f"nothing is registered to export products with a {type(weight).__name__} to ONNX")


@singledispatch
def rows(weight: nn.Module, source: Source, index: str) -> str:
    """index (n,) int64 -> (n, in), W not formed. Raises KindError as `dense` does."""
    raise KindError(f"nothing is registered to export rows of a {type(weight).__name__} to ONNX")


# dense


@dense.register
def _(weight: DenseWeight, source: Source) -> str:
    return source.matrix("matrix", weight.matrix)


@linear.register
def _(weight: DenseWeight, source: Source, x: str) -> str:
    return source.graph.add("MatMul", x, source.graph.transposed(source.matrix("matrix", weight.matrix)))


@rows.register
def _(weight: DenseWeight, source: Source, index: str) -> str:
    return source.matrix_rows("matrix", weight.matrix, index)


# low rank


@dense.register
def _(weight: LowRankWeight, source: Source) -> str:
    left, right = source.matrix("left", weight.left), source.matrix("right", weight.right)
    return source.graph.root.add("MatMul", left, right)


@linear.register
def _(weight: LowRankWeight, source: Source, x: str) -> str:
    graph = source.graph
    small = graph.add("MatMul", x, graph.transposed(source.matrix("right", weight.right)))
    return graph.add("MatMul", small, graph.transposed(source.matrix("left", weight.left)))


@rows.register
def _(weight: LowRankWeight, source: Source, index: str) -> str:
    left = source.matrix_rows("left", weight.left, index)
    return source.graph.add("MatMul", left, source.matrix("right", weight.right))


# Kronecker


@dense.register
def _(weight: KroneckerWeight, source: Source) -> str:
    """Blocks (terms, a, 1, b, 1) · (terms, 1, c, 1, d), one factor after the other."""
    graph = source.graph.root
    factors = _factors(weight, source)
    product = factors[0]
    _, height, width = weight.factors[0].shape
    for name, factor in zip(factors[1:], weight.factors[1:], strict=True):
        terms, a, b = factor.shape
        left = graph.reshape(product, terms, height, 1, width, 1)
        height, width = height * a, width * b
        product = graph.reshape(graph.add("Mul", left, graph.reshape(name, terms, 1, a, 1, b)), terms, height, width)
    return graph.add("ReduceSum", product, graph.integers(0), keepdims=0)


@linear.register
def _(weight: KroneckerWeight, source: Source, x: str) -> str:
    """One small product a factor, in the order of ops.kronecker: (B ⊗ C) x = vec(B X Cᵀ)."""
    graph = source.graph
    shapes = [(int(factor.shape[1]), int(factor.shape[2])) for factor in weight.factors]
    terms, count = int(weight.factors[0].shape[0]), len(shapes)
    factors = _factors(weight, source)
    axes = list(range(count))  # which factor each axis after (n, terms) belongs to
    state = graph.reshape(x, -1, 1, *(b for _, b in shapes))
    for i in contraction_order(shapes):
        at = axes.index(i)
        state = _permuted(source, state, [j for j in range(count) if j != at] + [at])
        axes.append(axes.pop(at))
        # (terms, 1, ..., b, a), or (b, a): a runtime takes that as one product for all vectors
        lead = () if terms == 1 else (terms, *(1,) * (count - 2))
        factor = graph.transposed(factors[i], 3)
        state = graph.add("MatMul", state, graph.root.reshape(factor, *lead, shapes[i][1], shapes[i][0]))
    state = _permuted(source, state, [axes.index(i) for i in range(count)])
    summed = graph.add("ReduceSum", state, graph.integers(1), keepdims=0) if terms > 1 else state
    return graph.reshape(summed, -1, prod(a for a, _ in shapes))


@rows.register
def _(weight: KroneckerWeight, source: Source, index: str) -> str:
    """Row i takes from each factor the row given by i's digit in the mixed radix of the factors' heights."""
    graph = source.graph
    rest, digits = index, []
    for factor in reversed(weight.factors[1:]):
        height = graph.integer(int(factor.shape[1]))
        digits.append(graph.add("Mod", rest, height))
        rest = graph.add("Div", rest, height)
    digits.append(rest)
    picked = [
        graph.add("Gather", factor, digit, axis=1)  # (terms, n, b)
        for factor, digit in zip(_factors(weight, source), reversed(digits), strict=True)
    ]
    product = picked[0]
    terms, width = int(weight.factors[0].shape[0]), int(weight.factors[0].shape[2])
    for factor, row in zip(weight.factors[1:], picked[1:], strict=True):
        b = int(factor.shape[2])
        outer = graph.add("Mul", graph.reshape(product, terms, -1, width, 1), graph.reshape(row, terms, -1, 1, b))
        width *= b
        product = graph.reshape(outer, terms, -1, width)
    return graph.add("ReduceSum", product, graph.integers(0), keepdims=0)


def _factors(weight: KroneckerWeight, source: Source) -> list[str]:
    return [source.matrix(f"factor_{number}", factor) for number, factor in enumerate(weight.factors)]


def _permuted(source: Source, state: str, order: list[int]) -> str:
    """The axes after (n, terms) in another order."""
    if order == sorted(order):
        return state
    return source.graph.add("Transpose", state, perm=[0, 1, *(axis + 2 for axis in order)])


# sparse


@dense.register
def _(weight: SparseWeight, source: Source) -> str:
    graph, found = source.graph.root, source.nonzeros(without_skips(weight))
    flat = graph.zeros(graph.integers(weight.shape[0] * weight.shape[1]))
    places = graph.add("Unsqueeze", found.positions, graph.integers(1))
    return graph.reshape(graph.add("ScatterND", flat, places, found.values), *weight.shape)


@linear.register
def _(weight: SparseWeight, source: Source, x: str) -> str:
    """Each non-zero times its column of x, added up by rows; ScatterND would add from several threads at once."""
    graph, found = source.graph, source.nonzeros(without_skips(weight))
    x = graph.add("Transpose", x, perm=[1, 0])  # (in, n)
    products = graph.add(
        "Mul", graph.add("Gather", x, found.columns), graph.root.add("Unsqueeze", found.values, graph.integers(1))
    )
    rows_index = graph.root.add("Unsqueeze", found.rows, graph.integers(1))
    count = graph.add("Shape", x, start=1)
    zeros = graph.zeros(graph.add("Concat", graph.integers(weight.shape[0]), count, axis=0))
    index = graph.add("Expand", rows_index, graph.add("Shape", products))
    summed = graph.add("ScatterElements", zeros, index, products, axis=0, reduction="add")
    return graph.add("Transpose", summed, perm=[1, 0])


@rows.register
def _(weight: SparseWeight, source: Source, index: str) -> str:
    """As many places a row as the fullest has, those beyond its end with the value zero."""
    weight = without_skips(weight)
    graph, root, found = source.graph, source.graph.root, source.nonzeros(weight)
    most = int(weight.row_index.bincount().max())
    ones = root.add("Add", root.add("Mul", found.rows, root.integer(0)), root.integer(1))
    none = root.zeros(root.integers(weight.shape[0]), np.int64)
    counts = root.add("ScatterElements", none, found.rows, ones, axis=0, reduction="add")
    starts = root.add("CumSum", counts, root.integer(0), exclusive=1)
    places = root.constant(np.arange(most, dtype=np.int64), f"{source.name}.places")
    column = graph.integers(1)
    inside = graph.add("Less", places, graph.add("Unsqueeze", graph.add("Gather", counts, index), column))
    first = graph.add("Unsqueeze", graph.add("Gather", starts, index), column)
    at = graph.add("Where", inside, graph.add("Add", first, places), graph.integer(0))
    values = graph.add("Mul", graph.add("Gather", found.values, at), graph.to(inside, np.float32))
    zeros = graph.zeros(graph.add("Concat", graph.add("Shape", index), graph.integers(weight.shape[1]), axis=0))
    columns = graph.add("Gather", found.columns, at)
    return graph.add("ScatterElements", zeros, columns, values, axis=1, reduction="add")


# doped


@dense.register
def _(weight: DopedWeight, source: Source) -> str:
    base, overlay = dense(weight.base, source.part("base")), dense(weight.overlay, source.part("overlay"))
    return source.graph.root.add("Add", base, overlay)


@linear.register
def _(weight: DopedWeight, source: Source, x: str) -> str:
    base, overlay = linear(weight.base, source.part("base"), x), linear(weight.overlay, source.part("overlay"), x)
    return source.graph.add("Add", base, overlay)


@rows.register
def _(weight: DopedWeight, source: Source, index: str) -> str:
    base, overlay = rows(weight.base, source.part("base"), index), rows(weight.overlay, source.part("overlay"), index)
    return source.graph.add("Add", base, overlay)


# stacked


@dense.register
def _(weight: StackedWeight, source: Source) -> str:
    parts = [dense(part, source.part(f"parts.{number}")) for number, part in enumerate(weight._parts())]
    return source.graph.root.add("Concat", *parts, axis=0)


@linear.register
def _(weight: StackedWeight, source: Source, x: str) -> str:
    parts = [linear(part, source.part(f"parts.{number}"), x) for number, part in enumerate(weight._parts())]
    return source.graph.add("Concat", *parts, axis=1)


@rows.register
def _(weight: StackedWeight, source: Source, index: str) -> str:
    """Each part answers for the nearest of its rows; the answer of the part that has the row is taken."""
    graph, answer, first = source.graph, "", 0
    for number, part in enumerate(weight._parts()):
        inside = graph.add("Sub", index, graph.integer(first))
        nearest = graph.add("Min", inside, graph.integer(part.shape[0] - 1))
        nearest = graph.add("Max", nearest, graph.integer(0))
        mine = rows(part, source.part(f"parts.{number}"), nearest)
        if number == 0:
            answer = mine
        else:
            here = graph.add("Unsqueeze", graph.add("Less", inside, graph.integer(0)), graph.integers(1))
            answer = graph.add("Where", here, answer, mine)
        first += part.shape[0]
    return answer
