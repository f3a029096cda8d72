from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dopant.reporting.labels import apart

places = st.lists(st.floats(-50, 150, allow_nan=False), max_size=12)


def test_labels_with_room_stay_where_they_are() -> None:
    assert apart([10, 50, 30], 10, 0, 100) == [10, 50, 30]


def test_two_that_collide_part_evenly() -> None:
    assert apart([50, 52], 10, 0, 100) == pytest.approx([46, 56])


def test_equal_wishes_keep_their_order() -> None:
    assert apart([50, 50, 50], 10, 0, 100) == pytest.approx([40, 50, 60])


def test_too_many_share_the_room() -> None:
    assert apart([5] * 5, 10, 0, 20) == pytest.approx([0, 5, 10, 15, 20])


def test_none_and_one() -> None:
    assert apart([], 10, 0, 100) == []
    assert apart([120], 10, 0, 100) == [100]


@given(places)
def test_no_two_touch_and_all_lie_within(wanted: list[float]) -> None:
    placed = apart(wanted, 7, 0, 100)
    assert all(-1e-6 <= place <= 100 + 1e-6 for place in placed)
    ordered = sorted(placed)
    assert all(b - a >= 7 - 1e-6 for a, b in itertools.pairwise(ordered))


@given(places)
def test_the_order_is_kept(wanted: list[float]) -> None:
    placed = apart(wanted, 7, 0, 100)
    order = sorted(range(len(wanted)), key=lambda index: (wanted[index], index))
    assert [placed[index] for index in order] == sorted(placed)


@given(st.lists(st.floats(0, 100, allow_nan=False), min_size=1, max_size=10))
def test_no_shift_of_all_is_nearer_to_the_wishes(wanted: list[float]) -> None:
    def distance(shift: float) -> float:
        return sum((place + shift - wish) ** 2 for place, wish in zip(placed, wanted, strict=True))

    placed = apart(wanted, 7, -1000, 1000)
    assert distance(0) <= min(distance(0.5), distance(-0.5)) + 1e-6
