"""The published compositions under their published names, put together from the plain structures."""

from __future__ import annotations

from dopant.structures.base import Shape, Structure
from dopant.structures.dense import Dense
from dopant.structures.doped import Doped
from dopant.structures.kronecker import Kronecker
from dopant.structures.low_rank import LowRank
from dopant.structures.sparse import Sparse
from dopant.structures.stacked import Stacked


def pruned(nonzeros: int) -> Sparse:
    """Magnitude pruning (Zhu & Gupta 2017, arXiv 1710.01878): the largest entries of the matrix."""
    return Sparse(nonzeros)


def lmf(rank: int) -> LowRank:
    """Low-rank matrix factorisation (LMF)."""
    return LowRank(rank)


def hybrid(rows: int, dense_rows: int, rest: Structure) -> Structure:
    """`dense_rows` dense rows over a structured rest; all dense, or all rest, at the ends."""
    if dense_rows <= 0:
        return rest
    if dense_rows >= rows:
        return Dense()
    return Stacked((Dense(), rest), (dense_rows, rows - dense_rows))


def per_gate(structure: Structure, rows: int, gates: int) -> Structure:
    """The same structure for each gate's `rows` rows of an LSTM matrix (gates = 1: the structure itself)."""
    return structure if gates == 1 else Stacked((structure,) * gates, (rows,) * gates)


def hmd(rows: int, dense_rows: int, gates: int = 1) -> Structure:
    """Hybrid matrix decomposition (arXiv 1906.04886): in each gate dense rows over a rest of rank 1.

    HMF (arXiv 2010.03193) is the same matrix kept for the inputs and for the state of an LSTM apart, where the
    blocks are square and a dense row costs half as much as a rank of LMF.
    """
    return per_gate(hybrid(rows, dense_rows, LowRank(1)), rows, gates)


def hybrid_kronecker(rows: int, dense_rows: int, rest: tuple[Shape, ...], gates: int = 1) -> Structure:
    """In each gate dense rows over a Kronecker product."""
    return per_gate(hybrid(rows, dense_rows, Kronecker(rest)), rows, gates)


def doped_kronecker(shapes: tuple[Shape, ...], nonzeros: int, terms: int = 1) -> Doped:
    """Doped Kronecker products (arXiv 2001.08896)."""
    return Doped(Kronecker(shapes, terms), Sparse(nonzeros))


def doped_lmf(rank: int, nonzeros: int) -> Doped:
    """A doped low-rank matrix (arXiv 2102.07071)."""
    return Doped(LowRank(rank), Sparse(nonzeros))


def doped_hmd(rows: int, dense_rows: int, nonzeros: int, gates: int = 1) -> Doped:
    """A doped hybrid matrix (arXiv 2102.07071)."""
    return Doped(hmd(rows, dense_rows, gates), Sparse(nonzeros))
