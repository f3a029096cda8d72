"""Sharing one budget out among weights: each gets the same factor where it can."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from dopant.cost import Storage
from dopant.plan.families import Family, Price
from dopant.plan.target import Count
from dopant.structures.base import Shape, Structure


@dataclass(frozen=True)
class Claim:
    """A weight that wants a part of the budget: its shape and the structures it may take."""

    shape: Shape
    family: Family

    def price(self, count: Count, storage: Storage) -> Price:
        """What a structure costs for this weight, in units of `count`."""

        def price(structure: Structure) -> int:
            cost = structure.cost(self.shape, storage)
            return cost.parameters if count == "parameters" else cost.stored_bytes

        return price


class ImpossibleError(Exception):
    """The budget does not hold even the smallest structures, which take `smallest`."""

    def __init__(self, smallest: int) -> None:
        super().__init__(f"the smallest structures take {smallest:,}")
        self.smallest = smallest


def share(claims: Sequence[Claim], limit: int, count: Count, storage: Storage) -> list[Structure]:
    """The largest structures that together cost no more than `limit`, in the order of `claims`.

    Each weight may spend in proportion to its dense size, so that all get the same factor. A weight whose smallest
    structure costs more than that takes the smallest, and the others make up for it; a fixed structure likewise.
    Shares are whole numbers that add up to `limit`; what a weight's sizes are too coarse to use is left unused.

    Raises:
        ImpossibleError: the smallest structures together cost more than `limit`.
    """
    prices = [claim.price(count, storage) for claim in claims]
    smallest = [claim.family.smallest(price) for claim, price in zip(claims, prices, strict=True)]
    least = [price(structure) for price, structure in zip(prices, smallest, strict=True)]
    if sum(least) > limit:
        raise ImpossibleError(sum(least))
    settled = {i for i, claim in enumerate(claims) if claim.family.fixed}
    while True:
        open_claims = [i for i in range(len(claims)) if i not in settled]
        shares = _proportional(
            limit - sum(least[i] for i in settled), [math.prod(claims[i].shape) for i in open_claims]
        )
        short = {i for i, part in zip(open_claims, shares, strict=True) if part < least[i]}
        if not short:
            break
        settled |= short
    chosen = list(smallest)
    for i, part in zip(open_claims, shares, strict=True):
        chosen[i] = claims[i].family.largest(prices[i], part) or smallest[i]
    return chosen


def _proportional(total: int, sizes: Sequence[int]) -> list[int]:
    """Whole parts of `total` in proportion to `sizes`: what rounding takes from one, a later one gets."""
    if not sizes:
        return []
    ends = [total * end // sum(sizes) for end in accumulate(sizes)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]
