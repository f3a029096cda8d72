"""Structured weights: how a matrix is kept. One structure a file; `base` has the abstraction."""

from dopant.structures.base import KINDS, Shape, Structure, StructuredWeight, register
from dopant.structures.dense import Dense, DenseWeight
from dopant.structures.description import describe, structure_from
from dopant.structures.doped import Doped, DopedWeight
from dopant.structures.kronecker import Kronecker, KroneckerWeight
from dopant.structures.low_rank import LowRank, LowRankWeight
from dopant.structures.sparse import MaskedWeight, Sparse, SparseWeight
from dopant.structures.stacked import Stacked, StackedWeight

__all__ = [
    "KINDS",
    "Dense",
    "DenseWeight",
    "Doped",
    "DopedWeight",
    "Kronecker",
    "KroneckerWeight",
    "LowRank",
    "LowRankWeight",
    "MaskedWeight",
    "Shape",
    "Sparse",
    "SparseWeight",
    "Stacked",
    "StackedWeight",
    "Structure",
    "StructuredWeight",
    "describe",
    "register",
    "structure_from",
]
