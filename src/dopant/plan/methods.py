"""The methods by their published names, each as a family of structures for a weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from dopant.errors import FileError, InputError, PlanError, did_you_mean
from dopant.plan.families import DopedFamily, Family, Fixed, HybridProducts, Knob, PerGate, Products
from dopant.structures.base import Shape, Structure
from dopant.structures.dense import Dense
from dopant.structures.description import structure_from
from dopant.structures.kronecker import Kronecker
from dopant.structures.low_rank import LowRank
from dopant.structures.presets import hybrid
from dopant.structures.sparse import MOST_PER_BANK, Sparse

PRODUCT_SHARE = 0.5  # the most of a budget that doping spends on its Kronecker part (at 25x it needs 3 %)
BASE_SHARE = 0.25  # the share of a budget that doping gives to a low-rank or hybrid part


@dataclass(frozen=True)
class Options:
    """What a user may fix of a method's structure; None leaves it to the method.

    Args:
        shapes: the factors of a Kronecker part, ((rows, columns), ...), two or more.
        terms: how many Kronecker products are summed.
        rank: of a low-rank part.
        dense_rows: of a hybrid part, in each gate.
        base_share: the share of the budget for the structure under an overlay, above 0 and below 1.
        per_bank: how evenly non-zeros spread, see `Sparse`; 4 is what the native runtime gains by.
        per_gate: one structure for each gate of an LSTM, or one for the whole matrix.

    Raises:
        PlanError: a value out of range.
    """

    shapes: tuple[Shape, ...] | None = None
    terms: int | None = None
    rank: int | None = None
    dense_rows: int | None = None
    base_share: float | None = None
    per_bank: int | None = None
    per_gate: bool | None = None

    def __post_init__(self) -> None:
        for name in ("terms", "rank", "dense_rows", "per_bank"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise PlanError(f"structure: {name} is a whole number, 1 or more; got {value!r}")
        if self.per_bank is not None and self.per_bank > MOST_PER_BANK:
            raise PlanError(f"structure: per_bank is at most {MOST_PER_BANK}; got {self.per_bank}")
        if self.per_gate is not None and not isinstance(self.per_gate, bool):
            raise PlanError(f"structure: per_gate is true or false; got {self.per_gate!r}")
        share = self.base_share
        if share is not None and (not isinstance(share, (int, float)) or isinstance(share, bool) or not 0 < share < 1):
            raise PlanError(f"structure: base_share is a number above 0 and below 1; got {share!r}")
        if self.shapes is not None:
            object.__setattr__(self, "shapes", _shapes(self.shapes))

    def given(self) -> tuple[str, ...]:
        """The names of the options that are set."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name) is not None)


@dataclass(frozen=True)
class Method:
    """A way to make weights small.

    Args:
        name: as on the command line, in recipes and reports.
        summary: one line for a reader.
        joint: whether an LSTM keeps [x; h] as one matrix for this method, or the two apart.
        options: the names of `Options` it understands.
        family: (shape, gates, options) -> the structures to choose from.
    """

    name: str
    summary: str
    joint: bool
    options: tuple[str, ...]
    make_family: Callable[[Shape, int, Options], Family]

    def family(self, shape: Shape, gates: int = 1, options: Options | None = None) -> Family:
        """The structures of this method for a weight of `shape` with `gates` equal blocks of rows.

        Raises:
            PlanError: an option that the method does not know, or that does not suit the shape.
        """
        options = options or Options()
        self.check_options(options)
        if gates < 1 or shape[0] % gates:
            raise PlanError(f"a weight of {shape[0]} rows has no {gates} gates of equal rows")
        return self.make_family(shape, gates, options)

    def check_options(self, options: Options) -> None:
        """Raise PlanError for an option that the method does not know."""
        for name in options.given():
            if name not in self.options:
                known = f"it takes {', '.join(self.options)}" if self.options else "it takes none"
                raise PlanError(f"method {self.name!r} has no use for {name!r}; {known}")


def method_named(name: str) -> Method:
    """The method of this name.

    Raises:
        PlanError: there is none.
    """
    if isinstance(name, str) and name in METHODS:
        return METHODS[name]
    way_out = did_you_mean(name, METHODS, f"choose one of {', '.join(METHODS)}", cutoff=0.4)
    raise PlanError(f"method {str(name)[:40]!r} is not known; {way_out}")


def read_structure(data: Structure | Options | Mapping[str, Any] | None) -> Structure | Options:
    """What a user says of a structure: all of it, `{"kind": ...}`, or some `Options`, `{"shapes": ...}`.

    Raises:
        PlanError: neither; or an option that does not exist.
    """
    if data is None:
        return Options()
    if isinstance(data, (Structure, Options)):
        return data
    if not isinstance(data, Mapping):
        raise PlanError(f"a structure is a mapping with a 'kind' or with options; got {str(data)[:80]!r}")
    if "kind" in data:
        try:
            return structure_from(dict(data))
        except (FileError, InputError) as error:
            raise PlanError(f"structure: {error}") from None
    known = [field.name for field in fields(Options)]
    for key in data:
        if key not in known:
            way_out = did_you_mean(key, [*known, "kind"], f"choose from {', '.join(known)}, or kind")
            raise PlanError(f"structure: option {key!r} is not known; {way_out}")
    return Options(**data)


def _gated(make: Callable[[Shape, Options], Family], always: bool) -> Callable[[Shape, int, Options], Family]:
    """`make` for the whole matrix or for each gate; `always` per gate unless an option says otherwise."""

    def family(shape: Shape, gates: int, options: Options) -> Family:
        split = always if options.per_gate is None else options.per_gate
        if not split or gates == 1:
            return make(shape, options)
        rows = shape[0] // gates
        return PerGate(make((rows, shape[1]), options), rows, gates)

    return family


def _doped(make: Callable[[Shape, int, Options], Family], share: float) -> Callable[[Shape, int, Options], Family]:
    def family(shape: Shape, gates: int, options: Options) -> Family:
        return DopedFamily(make(shape, gates, options), shape, options.base_share or share, options.per_bank or 0)

    return family


def _dense(shape: Shape, gates: int, options: Options) -> Family:
    return Fixed(Dense())


def _pruning(shape: Shape, gates: int, options: Options) -> Family:
    return Knob(lambda nonzeros: Sparse(nonzeros, options.per_bank or 0), 1, math.prod(shape))


def _low_rank(shape: Shape, options: Options) -> Family:
    if options.rank is None:
        return Knob(LowRank, 1, min(shape))
    return _suiting(LowRank(options.rank), shape)


def _hybrid(shape: Shape, options: Options) -> Family:
    rank = LowRank(options.rank or 1)
    _suiting(rank, shape)

    def make(dense_rows: int) -> Structure:
        return hybrid(shape[0], dense_rows, rank)

    if options.dense_rows is None:
        # under `rank` rows of rest a low rank saves nothing: the next size is all dense
        return Knob(make, 0, shape[0] - rank.rank)
    return _suiting(make(options.dense_rows), shape)


def _product(shape: Shape, options: Options) -> Family:
    if options.shapes is None:
        return Products(shape, options.terms or 1)
    return _suiting(Kronecker(options.shapes, options.terms or 1), shape)


def _small_product(shape: Shape, options: Options) -> Family:
    family = _product(shape, options)
    # a share that was asked for is to be used; otherwise the overlay gets all that full rank does not need
    return replace(family, fewest=options.base_share is None) if isinstance(family, Products) else family


def _hybrid_product(shape: Shape, options: Options) -> Family:
    if options.dense_rows is None:
        return HybridProducts(shape, options.terms or 1)
    rest = (shape[0] - options.dense_rows, shape[1])
    if rest[0] < 1:
        raise PlanError(f"structure: {options.dense_rows} dense rows leave nothing of {shape[0]}; ask for fewer")
    if options.shapes is not None:
        product: Structure = Kronecker(options.shapes, options.terms or 1)
        return _suiting(hybrid(shape[0], options.dense_rows, product), shape)
    products = Products(rest, options.terms or 1, fewest=True)
    best = products.largest(lambda structure: structure.cost(rest).parameters, math.prod(rest))
    return Fixed(hybrid(shape[0], options.dense_rows, best or products.smallest(lambda s: 0)))


def _suiting(structure: Structure, shape: Shape) -> Fixed:
    try:
        structure.check(shape)
    except InputError as error:
        raise PlanError(f"structure: {error}") from None
    return Fixed(structure)


def _shapes(value: Any) -> tuple[Shape, ...]:
    try:
        shapes = tuple((a, b) for a, b in value)
    except (TypeError, ValueError):
        shapes = ()
    numbers = [number for shape in shapes for number in shape]
    if len(shapes) < 2 or any(not isinstance(n, int) or isinstance(n, bool) or n < 1 for n in numbers):
        raise PlanError(
            f"structure: shapes are two or more pairs of rows and columns such as [[52, 26], [50, 50]]; "
            f"got {str(value)[:80]}"
        )
    return shapes


_LOW_RANK = _gated(_low_rank, always=False)
_HYBRID = _gated(_hybrid, always=True)

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("dense", "nothing is changed", True, (), _dense),
        Method("pruning", "the largest entries, the rest zero", True, ("per_bank",), _pruning),
        Method("lmf", "low-rank matrix factorisation", True, ("rank", "per_gate"), _LOW_RANK),
        Method(
            "hmd",
            "hybrid matrix decomposition: dense rows over a rest of rank 1, in each gate",
            True,
            ("rank", "dense_rows", "per_gate"),
            _HYBRID,
        ),
        Method(
            "hmf",
            "hybrid matrix factorisation: as HMD, of the input and recurrent matrices apart",
            False,
            ("rank", "dense_rows", "per_gate"),
            _HYBRID,
        ),
        Method(
            "kronecker",
            "a Kronecker product of two factors",
            True,
            ("shapes", "terms", "per_gate"),
            _gated(_product, always=False),
        ),
        Method(
            "hybrid-kronecker",
            "dense rows over a Kronecker product, in each gate",
            True,
            ("dense_rows", "shapes", "terms", "per_gate"),
            _gated(_hybrid_product, always=True),
        ),
        Method(
            "doped-kronecker",
            "a small Kronecker product of full rank and a sparse overlay",
            True,
            ("shapes", "terms", "base_share", "per_bank", "per_gate"),
            _doped(_gated(_small_product, always=False), PRODUCT_SHARE),
        ),
        Method(
            "doped-lmf",
            "a low-rank matrix and a sparse overlay",
            True,
            ("rank", "base_share", "per_bank", "per_gate"),
            _doped(_LOW_RANK, BASE_SHARE),
        ),
        Method(
            "doped-hmd",
            "dense rows over a rest of rank 1 in each gate, and a sparse overlay",
            True,
            ("rank", "dense_rows", "base_share", "per_bank", "per_gate"),
            _doped(_HYBRID, BASE_SHARE),
        ),
    )
}
"""Every method by its name, in the order of reports."""
