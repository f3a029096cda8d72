"""Families of structures with one size to turn: the smallest member, and the largest that a budget holds."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dopant.ops.kronecker import factor_shapes
from dopant.structures.base import Shape, Structure
from dopant.structures.dense import Dense
from dopant.structures.doped import Doped
from dopant.structures.kronecker import Kronecker
from dopant.structures.presets import hybrid, per_gate
from dopant.structures.sparse import Sparse

Price = Callable[[Structure], int]
"""What a structure costs for the weight in question: parameters or bytes."""

_BALANCED = 4  # the larger Kronecker factor has at most this many times the entries of the smaller


class Family(ABC):
    """Structures for one weight, ordered by size."""

    @property
    def fixed(self) -> bool:
        """Whether there is one member only, so that no budget changes it."""
        return False

    @abstractmethod
    def smallest(self, price: Price) -> Structure:
        """The cheapest member."""

    @abstractmethod
    def largest(self, price: Price, limit: int) -> Structure | None:
        """The best member that costs no more than `limit`, None if there is none."""


@dataclass(frozen=True)
class Fixed(Family):
    """One given structure."""

    structure: Structure

    @property
    def fixed(self) -> bool:
        """It is."""
        return True

    def smallest(self, price: Price) -> Structure:
        """The structure."""
        return self.structure

    def largest(self, price: Price, limit: int) -> Structure | None:
        """The structure, if it fits."""
        return self.structure if price(self.structure) <= limit else None


@dataclass(frozen=True)
class Knob(Family):
    """`make(size)` for sizes from `low` to `high`; the price must not fall as the size grows."""

    make: Callable[[int], Structure]
    low: int
    high: int

    def smallest(self, price: Price) -> Structure:
        """The structure at the low end."""
        return self.make(self.low)

    def largest(self, price: Price, limit: int) -> Structure | None:
        """By bisection."""
        if price(self.make(self.low)) > limit:
            return None
        low, high = self.low, self.high
        while low < high:
            middle = (low + high + 1) // 2
            if price(self.make(middle)) <= limit:
                low = middle
            else:
                high = middle - 1
        return self.make(low)


@dataclass(frozen=True)
class Products(Family):
    """Kronecker products of two factors: of the highest rank within the budget, the one with most parameters.

    With `fewest`, the one with fewest parameters instead: what doping and hybrids put under the rest, chosen for
    full rank at the fewest parameters (arXiv 1906.02876). Of equal ones the one with fewer multiply-accumulates,
    then the one with the smaller first factor.
    """

    shape: Shape
    terms: int = 1
    fewest: bool = False

    def smallest(self, price: Price) -> Structure:
        """The cheapest product, whatever its rank; of equal ones the best."""
        return max(self._members(), key=lambda product: (-price(product), self._rating(product)))

    def largest(self, price: Price, limit: int) -> Structure | None:
        """The best by rank, then parameters."""
        fitting = [product for product in self._members() if price(product) <= limit]
        return max(fitting, key=self._rating, default=None)

    def _members(self) -> Iterator[Kronecker]:
        members = (Kronecker(shapes, self.terms) for shapes in factor_shapes(self.shape))
        genuine = [m for m in members if (1, 1) not in m.shapes]
        # a number has no factors, so a 1 × 1, 1 × prime or prime × 1 matrix keeps its only, trivial, product
        return iter(genuine or [Kronecker((self.shape, (1, 1)), self.terms)])

    def _rating(self, product: Kronecker) -> tuple[int, int, int, int]:
        cost = product.cost(self.shape)
        size = -cost.parameters if self.fewest else cost.parameters
        return product_rank(self.shape, product), size, -cost.macs, -math.prod(product.shapes[0])


def product_rank(shape: Shape, product: Kronecker) -> int:
    """The highest rank that a matrix kept as `product` can have."""
    return min(*shape, product.terms * math.prod(min(a, b) for a, b in product.shapes))


@dataclass(frozen=True)
class HybridProducts(Family):
    """Dense rows over a Kronecker rest of full rank: as many dense rows as fit such that the rest splits well.

    The rest's rows must have divisors, so not every number of dense rows will do. The first from the top whose
    two factors are balanced is taken; if none is, the first that fits.
    """

    shape: Shape
    terms: int = 1

    def smallest(self, price: Price) -> Structure:
        """No dense rows: the cheapest product."""
        return Products(self.shape, self.terms).smallest(price)

    def largest(self, price: Price, limit: int) -> Structure | None:
        """Search downwards from the number of dense rows that would fill the budget alone."""
        rows, columns = self.shape
        fallback: Structure | None = None
        for dense in range(min(rows - 1, limit * rows // max(1, price(Dense()))), 0, -1):
            rest = (rows - dense, columns)
            product = Products(rest, self.terms, fewest=True).largest(_parameters(rest), math.prod(rest))
            if not isinstance(product, Kronecker) or product_rank(rest, product) < min(rest):
                continue
            member = hybrid(rows, dense, product)
            if price(member) > limit:
                continue
            entries = sorted(a * b for a, b in product.shapes)
            if entries[-1] <= _BALANCED * entries[0]:
                return member
            fallback = fallback or member
        return fallback or Products(self.shape, self.terms).largest(price, limit)


@dataclass(frozen=True)
class DopedFamily(Family):
    """A base under a sparse overlay: the base within its `share` of the budget, the overlay takes what is left.

    `per_bank` is the overlay's, see `Sparse`.
    """

    base: Family
    shape: Shape
    share: float
    per_bank: int = 0

    def smallest(self, price: Price) -> Structure:
        """The cheapest base and a single non-zero."""
        return Doped(self.base.smallest(price), Sparse(1, self.per_bank))

    def largest(self, price: Price, limit: int) -> Structure | None:
        """The base first; where its share is too small for any, the cheapest there is."""
        base = self.base.largest(price, int(limit * self.share)) or self.base.smallest(price)
        return self._over(base).largest(price, limit)

    def _over(self, base: Structure) -> Knob:
        return Knob(lambda nonzeros: Doped(base, Sparse(nonzeros, self.per_bank)), 1, math.prod(self.shape))


@dataclass(frozen=True)
class PerGate(Family):
    """The same member of `family` for each of an LSTM matrix's gates, `rows` rows each."""

    family: Family
    rows: int
    gates: int

    @property
    def fixed(self) -> bool:
        """Whether the family is."""
        return self.family.fixed

    def smallest(self, price: Price) -> Structure:
        """The cheapest member for each gate."""
        return self._wrap(self.family.smallest(self._inner(price)))

    def largest(self, price: Price, limit: int) -> Structure | None:
        """The best that fits once for every gate."""
        member = self.family.largest(self._inner(price), limit)
        return None if member is None else self._wrap(member)

    def _wrap(self, structure: Structure) -> Structure:
        return per_gate(structure, self.rows, self.gates)

    def _inner(self, price: Price) -> Price:
        return lambda structure: price(self._wrap(structure))


def _parameters(shape: Shape) -> Price:
    return lambda structure: structure.cost(shape).parameters
