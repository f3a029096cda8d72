"""Sums of Kronecker products: products with vectors, rows, the dense matrix, and the nearest one to a matrix.

Everywhere `factors` is a sequence of two or more tensors, the i-th (terms, a_i, b_i), and stands for
W = sum_r factors[0][r] ⊗ factors[1][r] ⊗ ..., a matrix of prod(a_i) rows and prod(b_i) columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dopant.errors import InputError
from dopant.ops.low_rank import leading_singular, widen
from dopant.ops.precision import without_autocast

Shape = tuple[int, int]

_FLOAT64_ENTRIES = 1 << 21  # larger matrices are polished in float32
_SWEEPS = 200
_SWEEP_ENTRIES = 1 << 30  # sweeps · entries: half a minute's work at most, reached by the largest matrices alone


def contraction_order(shapes: Sequence[Shape]) -> tuple[int, ...]:
    """The order of applying the factors to a vector that takes the fewest multiply-accumulates.

    Applying factor i costs (elements now) · a_i and leaves a_i / b_i times the elements; comparing two
    neighbours of the order shows that sorting by 1 / b_i − 1 / a_i is optimal.
    """
    return tuple(sorted(range(len(shapes)), key=lambda i: (1 / shapes[i][1] - 1 / shapes[i][0], -i)))


def contraction_macs(shapes: Sequence[Shape], terms: int = 1) -> int:
    """Multiply-accumulates of one product with a vector in `contraction_order`."""
    elements = math.prod(b for _, b in shapes)
    total = 0
    for i in contraction_order(shapes):
        a, b = shapes[i]
        total += elements * a
        elements = elements // b * a
    return total * terms


def kronecker_linear(x: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """The product with W, x (..., n) -> (..., m), by one small matrix product a factor.

    For one term of two factors this is (B ⊗ C) x = vec(B X Cᵀ) with X = x as a (b_1, b_2) matrix, rows first.
    The largest intermediate holds terms · (elements between two factors) numbers a vector.

    Args:
        x: (..., n), n = prod(b_i).
        factors: the i-th (terms, a_i, b_i), of the dtype of `x`.
    """
    shapes = [(int(f.shape[1]), int(f.shape[2])) for f in factors]
    terms, last = factors[0].shape[0], len(factors) - 1
    order = contraction_order(shapes)
    sizes = [b for _, b in shapes]
    axes = list(range(len(shapes)))  # which factor each trailing axis of `state` belongs to
    batch = math.prod(x.shape[:-1])
    state = x.reshape(1, batch, *sizes)
    for step, i in enumerate(order):
        a, b = shapes[i]
        factor = factors[i]
        axis = axes.index(i)
        state = state.movedim(axis + 2, -1)
        axes.append(axes.pop(axis))
        lead = state.shape[1:-1]
        if step == last and terms > 1:  # the sum over terms is part of the last product
            flat = state.movedim(0, -2).reshape(-1, terms * b)
            state = (flat @ factor.transpose(0, 1).reshape(a, terms * b).mT).reshape(1, *lead, a)
        elif step == 0 and terms > 1:  # all terms read the same vector: one product, terms · a wide
            state = state.reshape(-1, b) @ factor.reshape(terms * a, b).mT
            state = state.reshape(*lead, terms, a).movedim(-2, 0)
        elif terms > 1:
            state = torch.bmm(state.reshape(terms, -1, b), factor.mT).reshape(terms, *lead, a)
        else:
            state = (state.reshape(-1, b) @ factor[0].mT).reshape(1, *lead, a)
    back = [axes.index(i) + 1 for i in range(len(shapes))]
    return state[0].permute(0, *back).reshape(*x.shape[:-1], math.prod(a for a, _ in shapes))


def kronecker_dense(factors: Sequence[Tensor], rows: Tensor | None = None) -> Tensor:
    """W itself, (m, n).

    Args:
        factors: the i-th (terms, a_i, b_i).
        rows: (m,) multiplies the rows of W; None for ones.
    """
    product = factors[-1]
    for factor in reversed(factors[1:-1]):
        product = torch.einsum("rab,rcd->racbd", factor, product).flatten(3, 4).flatten(1, 2)
    product = product.unsqueeze(1)
    if rows is not None:  # into what is small yet, so that W is written once
        product = product * rows.view(1, -1, product.shape[2], 1)
    dense: Tensor = _Form.apply(factors[0], product)  # type: ignore[no-untyped-call]
    return dense


class _Form(torch.autograd.Function):
    """(terms, a, b), (terms, a or 1, c, d) -> (a·c, b·d): the second factor may differ for each row of the first.

    Forming W once a training step is worth a gradient of its own: the gradient of W is rearranged once and both
    factors' gradients are products with it, in half the time of those of the broadcast product.
    """

    @staticmethod
    def forward(first: Tensor, second: Tensor) -> Tensor:
        (terms, a, b), (_, _, c, d) = first.shape, second.shape
        if terms == 1:
            return (first[0][:, None, :, None] * second[0][:, :, None, :]).reshape(a * c, b * d)
        each = second.flatten(2).transpose(0, 1)  # (a or 1, terms, c·d)
        with without_autocast(first.device):
            blocks = first.flatten(1).mT @ each[0] if len(each) == 1 else torch.bmm(first.permute(1, 2, 0), each)
        return blocks.view(a, b, c, d).transpose(1, 2).reshape(a * c, b * d)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        first, second = ctx.saved_tensors
        (grad,) = grads
        (_, a, b), (terms, each, c, d) = first.shape, second.shape
        arranged = rearrange(grad, (a, b), (c, d)).view(each, -1, c * d)  # (a, b, c·d), or (1, a·b, c·d)
        grad_first = grad_second = None
        with without_autocast(grad.device):
            if ctx.needs_input_grad[0]:
                blocks = torch.bmm(arranged, second.flatten(2).permute(1, 2, 0))
                grad_first = blocks.reshape(a, b, terms).permute(2, 0, 1)
            if ctx.needs_input_grad[1]:
                ours = first.reshape(terms, each, -1).transpose(0, 1)  # (a, terms, b), or (1, terms, a·b)
                grad_second = torch.bmm(ours, arranged).transpose(0, 1).reshape(second.shape)
        return grad_first, grad_second


def kronecker_rows(factors: Sequence[Tensor], index: Tensor) -> Tensor:
    """Rows of W, index (...) of integers -> (..., n): outer products of the factors' rows.

    Row i of W takes from each factor the row given by i's digit in the mixed radix (a_1, a_2, ...).

    Raises:
        IndexError: an index is outside 0 ... m - 1.
    """
    rest = index.reshape(-1)
    rows: list[Tensor] = []
    for factor in reversed(factors[1:]):
        rows.append(_digit_rows(factor, rest.remainder(factor.shape[1])))
        rest = rest.div(factor.shape[1], rounding_mode="floor")
    rows.append(_digit_rows(factors[0], rest))  # an index out of range leaves a first digit out of range
    product = rows[0]
    for row in rows[1:-1]:
        product = (row.unsqueeze(3) * product.unsqueeze(2)).flatten(2)
    both = torch.bmm(rows[-1].permute(1, 2, 0), product.transpose(0, 1))
    return both.reshape(*index.shape, both.shape[1] * both.shape[2])


def _digit_rows(factor: Tensor, digit: Tensor) -> Tensor:
    """(terms, a, b), (count,) -> (terms, count, b)."""
    terms, a, b = factor.shape
    picked = F.embedding(digit, factor.transpose(0, 1).reshape(a, terms * b))
    return picked.view(-1, terms, b).transpose(0, 1)


def rearrange(matrix: Tensor, first: Shape, second: Shape) -> Tensor:
    """(a·c, b·d) -> (a·b, c·d): row (i, j) is block (i, j) of `matrix`, so that first ⊗ second has rank one.

    Raises:
        InputError: the two shapes do not multiply to the matrix's.

    Source: Van Loan and Pitsianis, "Approximation with Kronecker products", 1993, section 2.
    """
    (a, b), (c, d) = first, second
    _check_shapes(matrix, (first, second))
    return matrix.reshape(a, c, b, d).transpose(1, 2).reshape(a * b, c * d)


@torch.no_grad()
def nearest_kronecker(matrix: Tensor, shapes: Sequence[Shape], terms: int = 1) -> list[Tensor]:
    """The sum of `terms` Kronecker products nearest to `matrix` in the Frobenius norm.

    Two factors: the best there is, from the leading singular vectors of the rearranged matrix. More: split
    two by two, then alternating least squares to convergence, a local best whose error falls in each sweep.

    Args:
        matrix: (m, n), any floating dtype.
        shapes: two or more (a_i, b_i) with prod(a_i) = m and prod(b_i) = n.
        terms: 1 or more; terms beyond the rank of the rearranged matrix come out as zeros.

    Returns:
        The factors, (terms, a_i, b_i) each; the factors of a term have the same norm.

    Raises:
        InputError: the shapes do not multiply to the matrix's, `terms` < 1, or `matrix` is not finite.
    """
    _check_shapes(matrix, shapes)
    if terms < 1:
        raise InputError(f"terms must be 1 or more, got {terms}")
    wide = widen(matrix)
    factors = _split(wide, list(shapes), terms)
    if len(shapes) > 2:
        factors = _alternate(wide, factors)
    return [factor.to(matrix.dtype).contiguous() for factor in _balance(factors)]


def factor_shapes(shape: Shape) -> list[tuple[Shape, Shape]]:
    """All ways to write `shape` as two factor shapes, ((a_1, b_1), (a_2, b_2)), ascending."""
    rows, columns = shape
    return [((a, b), (rows // a, columns // b)) for a in _divisors(rows) for b in _divisors(columns)]


def _check_shapes(matrix: Tensor, shapes: Sequence[Shape]) -> None:
    if len(shapes) < 2:
        raise InputError(f"a Kronecker product needs two or more factors, got {len(shapes)}")
    m, n = (math.prod(int(s[side]) for s in shapes) for side in (0, 1))
    if tuple(matrix.shape) != (m, n) or m < 1 or n < 1:
        product = " ⊗ ".join(f"{a}×{b}" for a, b in shapes)
        raise InputError(
            f"factors {product} make a {m}×{n} matrix, the matrix is {'×'.join(map(str, matrix.shape))}; "
            f"factor_shapes lists those that divide it"
        )


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _split(matrix: Tensor, shapes: list[Shape], terms: int) -> list[Tensor]:
    """Peel off the first factor by the leading singular vectors; split what belongs to each term further."""
    first = shapes[0]
    rest = (math.prod(a for a, _ in shapes[1:]), math.prod(b for _, b in shapes[1:]))
    arranged = rearrange(matrix, first, rest)
    rank = min(terms, *arranged.shape)
    u, s, v = leading_singular(arranged, rank)
    if rank < terms:
        u, v = (F.pad(t, (0, terms - rank)) for t in (u, v))
        s = F.pad(s, (0, terms - rank))
    scale = s.sqrt()
    head = (u * scale).mT.reshape(terms, *first)
    tail = (v * scale).mT.reshape(terms, *rest)
    if len(shapes) == 2:
        return [head, tail]
    tails = [_split(term, shapes[1:], 1) for term in tail]
    return [head, *(torch.cat(parts) for parts in zip(*tails, strict=True))]


def _alternate(matrix: Tensor, factors: list[Tensor]) -> list[Tensor]:
    """Polish by alternating least squares: as a tensor of modes a_i·b_i, W is a sum of rank-one terms."""
    dtype = torch.float64 if matrix.numel() <= _FLOAT64_ENTRIES else torch.float32
    count, terms = len(factors), factors[0].shape[0]
    shapes = [(int(f.shape[1]), int(f.shape[2])) for f in factors]
    grid = matrix.to(dtype).reshape(*(a for a, _ in shapes), *(b for _, b in shapes))
    grid = grid.permute(*(axis for i in range(count) for axis in (i, count + i)))
    sizes = [a * b for a, b in shapes]
    modes = [f.to(dtype).reshape(terms, -1).mT for f in factors]  # (a_i·b_i, terms)
    tensor = grid.reshape(sizes)
    energy = float(tensor.square().sum(dtype=torch.float64))
    gained = -math.inf
    for _ in range(max(1, min(_SWEEPS, _SWEEP_ENTRIES // matrix.numel()))):
        for i in range(count):
            before, after = _khatri_rao(modes[:i], terms, tensor), _khatri_rao(modes[i + 1 :], terms, tensor)
            target = _contract(tensor.reshape(before.shape[0], sizes[i], after.shape[0]), before, after)
            gram = (before.mT @ before).double() * (after.mT @ after).double()
            modes[i] = (target.double() @ torch.linalg.pinv(gram, hermitian=True)).to(dtype)
        # at the optimum of the last mode <T, W> = |W|², and the error is |T|² − <T, W>
        explained = float((target.double() * modes[-1].double()).sum())
        if explained - gained <= 1e-9 * energy:
            break
        gained = explained
    return [mode.mT.reshape(terms, *shape) for mode, shape in zip(modes, shapes, strict=True)]


def _contract(tensor: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """(p, d, q), (p, terms), (q, terms) -> (d, terms), the longer side first: what it leaves is the smaller."""
    p, d, q = tensor.shape
    if q >= p:
        return ((tensor.reshape(p * d, q) @ after).view(p, d, -1) * before.unsqueeze(1)).sum(0)
    return torch.einsum("rdq,qr->dr", (before.mT @ tensor.reshape(p, d * q)).view(-1, d, q), after)


def _khatri_rao(modes: list[Tensor], terms: int, like: Tensor) -> Tensor:
    product = like.new_ones(1, terms)
    for mode in modes:
        product = (product.unsqueeze(1) * mode.unsqueeze(0)).reshape(-1, terms)
    return product


def _balance(factors: list[Tensor]) -> list[Tensor]:
    """Give the factors of each term the same norm; a term with a zero factor becomes all zero."""
    norms = [factor.flatten(1).norm(dim=1) for factor in factors]
    mean = torch.stack(norms).double().log().mean(0).exp().to(factors[0].dtype)  # 0 if any norm is 0
    return [
        factor * torch.where(norm > 0, mean / norm, torch.zeros_like(norm))[:, None, None]
        for factor, norm in zip(factors, norms, strict=True)
    ]
