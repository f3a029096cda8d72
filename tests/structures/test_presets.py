"""Published parameter counts come out of the closed forms (hidden size 650, [x; h] in one 2600×1300 matrix)."""

from __future__ import annotations

import pytest

from dopant.plan.families import product_rank
from dopant.structures import Dense, Kronecker, LowRank, Shape, Stacked
from dopant.structures.presets import (
    doped_hmd,
    doped_kronecker,
    doped_lmf,
    hmd,
    hybrid,
    hybrid_kronecker,
    lmf,
    per_gate,
    pruned,
)

LAYER: Shape = (2600, 1300)
FACTORS = ((52, 26), (50, 50))
ENTRIES = 2 * 2600 * 1300  # two layers


def parameters(structure, shape: Shape = LAYER) -> int:  # type: ignore[no-untyped-def]
    structure.check(shape)
    return structure.cost(shape).parameters


@pytest.mark.parametrize(
    ("factors", "shape", "count"),
    [
        (FACTORS, LAYER, 3_852),
        (((50, 26), (52, 25)), (2600, 650), 2_600),
        (((25, 25), (26, 26)), (650, 650), 1_301),
    ],
)
def test_kronecker_alone(factors: tuple[Shape, ...], shape: Shape, count: int) -> None:
    assert parameters(Kronecker(factors), shape) == count
    assert product_rank(shape, Kronecker(factors)) == min(shape)


def test_kronecker_is_877_times_smaller_and_multiplies_less() -> None:
    cost = Kronecker(FACTORS).cost(LAYER)
    assert round(2600 * 1300 / cost.parameters) == 877
    assert cost.macs == 132_600
    assert Dense().cost(LAYER).macs == 3_380_000


@pytest.mark.parametrize(
    ("factor", "budget", "nonzeros", "rank", "dense_rows"),
    [
        (10, 676_000, 668_296, 86, 63),
        (20, 338_000, 330_296, 43, 31),
        (25, 270_400, 262_696, 34, 24),
        (30, 225_333, 217_629, 28, 20),
    ],
)
def test_the_table_of_budgets(factor: int, budget: int, nonzeros: int, rank: int, dense_rows: int) -> None:
    assert ENTRIES // factor == budget
    assert parameters(pruned(budget // 2)) == budget // 2
    half, odd = divmod(nonzeros, 2)
    assert 2 * parameters(doped_kronecker(FACTORS, half)) + odd == budget
    # the largest that fit
    assert 2 * parameters(lmf(rank)) <= budget < 2 * parameters(lmf(rank + 1))
    assert 2 * parameters(hmd(650, dense_rows, 4)) <= budget < 2 * parameters(hmd(650, dense_rows + 1, 4))


def test_hmd_has_the_published_form() -> None:
    m, n, r = 650, 1300, 24
    assert parameters(hmd(m, r), (m, n)) == r * n + (m - r) + n
    assert parameters(hmd(m, r, gates=4)) == 4 * (r * n + (m - r) + n)
    assert hmd(m, r) == Stacked((Dense(), LowRank(1)), (24, 626))
    per = hmd(m, r, gates=4)
    assert isinstance(per, Stacked)
    assert per.rows == (650,) * 4


def test_the_ends_of_a_hybrid() -> None:
    assert hybrid(10, 0, LowRank(1)) == LowRank(1)
    assert hybrid(10, 10, LowRank(1)) == Dense()


def test_hybrid_kronecker() -> None:
    structure = hybrid_kronecker(650, 26, ((26, 26), (24, 50)), gates=4)
    assert parameters(structure) == 4 * (26 * 1300 + 26 * 26 + 24 * 50)


def test_doped_ones_add_their_overlay() -> None:
    assert parameters(doped_lmf(10, 500)) == 10 * 3900 + 500
    assert parameters(doped_hmd(650, 10, 500, gates=4)) == parameters(hmd(650, 10, gates=4)) + 500


def test_one_gate_is_the_structure_itself() -> None:
    assert per_gate(LowRank(1), 650, 1) == LowRank(1)
