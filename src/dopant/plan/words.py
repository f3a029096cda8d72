"""A structure and a factor in words, for tables and messages."""

from __future__ import annotations

import math
from functools import singledispatch

from dopant.structures.base import Shape, Structure
from dopant.structures.dense import Dense
from dopant.structures.doped import Doped
from dopant.structures.kronecker import Kronecker
from dopant.structures.low_rank import LowRank
from dopant.structures.sparse import Sparse
from dopant.structures.stacked import Stacked


@singledispatch
def in_words(structure: Structure, shape: Shape) -> str:
    """A structure in a few words, for a weight of `shape`; kinds from outside say what they are called."""
    return structure.kind


@in_words.register
def _(structure: Dense, shape: Shape) -> str:
    return "dense"


@in_words.register
def _(structure: Sparse, shape: Shape) -> str:
    words = f"{structure.nonzeros:,} non-zeros ({100 * (1 - structure.nonzeros / math.prod(shape)):.2f} % zero)"
    return words if structure.per_bank == 0 else f"{words}, {structure.per_bank} to a bank"


@in_words.register
def _(structure: LowRank, shape: Shape) -> str:
    return f"rank {structure.rank}"


@in_words.register
def _(structure: Kronecker, shape: Shape) -> str:
    factors = " ⊗ ".join(f"{a}×{b}" for a, b in structure.shapes)
    words = factors if structure.terms == 1 else f"{structure.terms} terms of {factors}"
    rank = structure.terms * math.prod(min(a, b) for a, b in structure.shapes)
    return words if rank >= min(shape) else f"{words}, of rank {rank}"


@in_words.register
def _(structure: Stacked, shape: Shape) -> str:
    parts = list(zip(structure.parts, structure.rows, strict=True))
    if len(parts) > 1 and len(set(parts)) == 1:
        part, rows = parts[0]
        return f"{len(parts)} × [{in_words(part, (rows, shape[1]))}]"
    return " over ".join(_block(part, (rows, shape[1])) for part, rows in parts)


@in_words.register
def _(structure: Doped, shape: Shape) -> str:
    return f"{in_words(structure.base, shape)} + {in_words(structure.overlay, shape)}"


def reading(factor: float) -> str:
    """A factor both ways: "25.0x smaller, 4.0 % kept"."""
    kept = 100 / factor
    return f"{factor:.1f}x smaller, {kept:.1f} % kept" if kept >= 0.1 else f"{factor:.1f}x smaller, {kept:.2g} % kept"


def _block(structure: Structure, shape: Shape) -> str:
    if isinstance(structure, Dense):
        return f"{shape[0]:,} dense rows"
    return f"{in_words(structure, shape)} ({shape[0]:,} rows)"
