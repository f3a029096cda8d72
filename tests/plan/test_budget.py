"""The published budgets, and what holds for every method at any size."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dopant.cost import FLOAT32, Storage
from dopant.plan.budget import Claim, ImpossibleError, share
from dopant.plan.families import Fixed, Products, product_rank
from dopant.plan.methods import METHODS, Options
from dopant.structures import Dense, Doped, Kronecker, LowRank, Sparse, Stacked, Structure

MEDIUM = (2600, 1300)


def medium(method: str, factor: int, **options: object) -> list[Structure]:
    """The structures of the two [x; h] matrices of hidden size 650."""
    claims = [Claim(MEDIUM, METHODS[method].family(MEDIUM, 4, Options(**options)))] * 2  # type: ignore[arg-type]
    return share(claims, 2 * math.prod(MEDIUM) // factor, "parameters", FLOAT32)


def total(structures: list[Structure]) -> int:
    return sum(structure.cost(MEDIUM).parameters for structure in structures)


@pytest.mark.parametrize(
    ("factor", "parameters", "overlay", "rank", "dense_rows"),
    [
        (10, 676_000, 668_296, 86, 63),
        (20, 338_000, 330_296, 43, 31),
        (25, 270_400, 262_696, 34, 24),
        (30, 225_333, 217_629, 28, 20),
    ],
)
def test_published_budgets(factor: int, parameters: int, overlay: int, rank: int, dense_rows: int) -> None:
    assert total(medium("pruning", factor)) == parameters

    doped = medium("doped-kronecker", factor)
    assert all(isinstance(s, Doped) and s.base == Kronecker(((52, 26), (50, 50))) for s in doped)
    assert sum(s.overlay.nonzeros for s in doped if isinstance(s, Doped)) == overlay
    assert total(doped) == parameters

    assert medium("lmf", factor) == [LowRank(rank)] * 2

    gate = Stacked((Dense(), LowRank(1)), (dense_rows, 650 - dense_rows))
    assert medium("hmd", factor) == [Stacked((gate,) * 4, (650,) * 4)] * 2


def test_smallest_products_of_full_rank() -> None:
    for shape, shapes, parameters in (
        ((2600, 1300), ((52, 26), (50, 50)), 3852),
        ((2600, 650), ((50, 26), (52, 25)), 2600),
        ((650, 650), ((26, 26), (25, 25)), 1301),
    ):
        best = Products(shape, fewest=True).largest(lambda s, z=shape: s.cost(z).parameters, math.prod(shape))
        assert isinstance(best, Kronecker)
        assert best.cost(shape).parameters == parameters
        assert {frozenset([s]) for s in best.shapes} == {frozenset([s]) for s in shapes}
        assert product_rank(shape, best) == min(shape)
    assert Kronecker(((52, 26), (50, 50))).cost(MEDIUM).macs == 132_600


def test_kronecker_takes_full_rank_first_then_the_most_parameters() -> None:
    (best, _) = medium("kronecker", 25)
    assert isinstance(best, Kronecker)
    assert product_rank(MEDIUM, best) == 1300
    assert 3852 < best.cost(MEDIUM).parameters <= 135_200
    # 46 parameters are too few for any product of full rank: rank counts before size
    family = METHODS["kronecker"].family((64, 64))
    low = family.largest(lambda s: s.cost((64, 64)).parameters, 127)
    assert low is None
    assert family.largest(lambda s: s.cost((64, 64)).parameters, 128) == Kronecker(((8, 8), (8, 8)))


def test_hybrid_kronecker_keeps_dense_rows_in_each_gate_over_a_full_rank_rest() -> None:
    (best, other) = medium("hybrid-kronecker", 25)
    assert best == other
    assert isinstance(best, Stacked)
    assert best.rows == (650,) * 4
    (gate, *_) = best.parts
    assert isinstance(gate, Stacked)
    dense, rest = gate.parts
    assert dense == Dense()
    assert isinstance(rest, Kronecker)
    assert gate.rows == (23, 627)
    assert product_rank((627, 1300), rest) == 627


def test_doped_shares_are_settable() -> None:
    for share_of_base in (0.25, 0.5):
        (doped, _) = medium("doped-lmf", 25, base_share=share_of_base)
        assert isinstance(doped, Doped)
        assert doped.base == LowRank(int(135_200 * share_of_base) // 3900)
        assert doped.cost(MEDIUM).parameters == 135_200
    (doped, _) = medium("doped-hmd", 25)
    assert isinstance(doped, Doped)
    assert doped.base.cost(MEDIUM).parameters <= 135_200 / 4
    (doped, _) = medium("doped-kronecker", 25, base_share=0.3)
    assert isinstance(doped, Doped)
    assert 3852 < doped.base.cost(MEDIUM).parameters <= 0.3 * 135_200


def test_non_zeros_may_be_asked_for_in_banks() -> None:
    assert medium("pruning", 25, per_bank=4) == [Sparse(135_200, per_bank=4)] * 2
    for method in ("doped-kronecker", "doped-lmf", "doped-hmd"):
        (doped, _) = medium(method, 25, per_bank=4)
        assert isinstance(doped, Doped)
        assert doped.overlay.per_bank == 4
        assert doped.cost(MEDIUM).parameters == 135_200


def test_given_parts_override_the_choice() -> None:
    shapes = ((26, 13), (100, 100))
    (doped, _) = medium("doped-kronecker", 25, shapes=shapes, terms=2)
    assert doped == Doped(Kronecker(shapes, 2), Sparse(135_200 - 2 * (338 + 10_000)))
    assert medium("lmf", 25, rank=7) == [LowRank(7)] * 2
    gate = Kronecker(((26, 26), (25, 50)))
    assert medium("kronecker", 25, shapes=gate.shapes, per_gate=True) == [Stacked((gate,) * 4, (650,) * 4)] * 2


def test_a_weight_that_cannot_shrink_so_far_is_made_up_for_by_the_others() -> None:
    big, small, fixed = (1000, 1000), (10, 500), (20, 20)
    claims = [
        Claim(big, METHODS["pruning"].family(big)),
        Claim(small, METHODS["lmf"].family(small)),
        Claim(fixed, Fixed(Dense())),
    ]
    limit = (1_000_000 + 5_000 + 400) // 50
    structures = share(claims, limit, "parameters", FLOAT32)
    assert structures == [Sparse(limit - 510 - 400), LowRank(1), Dense()]


def test_what_does_not_fit_says_how_far_it_can_go() -> None:
    claims = [Claim(MEDIUM, METHODS["lmf"].family(MEDIUM))] * 2
    with pytest.raises(ImpossibleError) as error:
        share(claims, 7799, "parameters", FLOAT32)
    assert error.value.smallest == 7800
    assert share(claims, 7800, "parameters", FLOAT32) == [LowRank(1)] * 2


@settings(max_examples=60, deadline=None)
@given(
    method=st.sampled_from(sorted(set(METHODS) - {"dense"})),
    shapes=st.lists(st.tuples(st.integers(1, 12).map(lambda k: 4 * k), st.integers(1, 40)), min_size=1, max_size=3),
    factor=st.floats(1, 30),
    count=st.sampled_from(["parameters", "bytes"]),
    storage=st.builds(Storage, st.sampled_from(["float32", "float16", "int8"]), st.sampled_from(["gaps", "rice"])),
    gates=st.sampled_from([1, 4]),
)
def test_whatever_fits_keeps_the_limit_and_suits_its_shape(
    method: str, shapes: list[tuple[int, int]], factor: float, count: str, storage: Storage, gates: int
) -> None:
    claims = [Claim(shape, METHODS[method].family(shape, gates)) for shape in shapes]
    dense = sum(math.prod(shape) for shape in shapes) * (4 if count == "bytes" else 1)
    limit = int(dense / factor)
    try:
        structures = share(claims, limit, count, storage)  # type: ignore[arg-type]
    except ImpossibleError as error:
        limit = max(limit + 1, error.smallest)
        structures = share(claims, limit, count, storage)  # type: ignore[arg-type]
    spent = 0
    for claim, structure in zip(claims, structures, strict=True):
        structure.check(claim.shape)
        cost = structure.cost(claim.shape, storage)
        spent += cost.parameters if count == "parameters" else cost.stored_bytes
    assert spent <= limit


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("lmf", {"rank": 2}),
        ("hmd", {"dense_rows": 2}),
        ("kronecker", {"shapes": ((25, 26), (26, 50)), "per_gate": True}),
        ("kronecker", {"shapes": ((52, 26), (50, 50))}),
    ],
)
def test_a_size_that_is_given_leaves_nothing_to_choose(method: str, options: dict[str, object]) -> None:
    assert METHODS[method].family(MEDIUM, 4, Options(**options)).fixed  # type: ignore[arg-type]
    assert not METHODS[method].family(MEDIUM, 4, Options()).fixed


def test_the_rank_that_a_product_can_have() -> None:
    assert product_rank(MEDIUM, Kronecker(((52, 26), (50, 50)))) == 1300
    assert product_rank(MEDIUM, Kronecker(((26, 52), (100, 25)))) == 26 * 25
