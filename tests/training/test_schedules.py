from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dopant.training.schedules import learning_rate, sparsity
from dopant.training.settings import CoMatrixDropout, Sparsify, TrainSettings

FRACTION = st.floats(0.0, 1.0)


def test_the_learning_rate_of_the_small_model() -> None:
    """Zaremba et al., section 4.1: full for four epochs, then halved at the start of each."""
    at = learning_rate(TrainSettings(learning_rate=1.0, constant_epochs=4, decay=0.5), steps_per_epoch=10)
    assert [at(step) for step in (0, 39, 40, 49, 50, 129)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.5**9]


def test_the_cubic_ramp_by_hand() -> None:
    at = sparsity(Sparsify(begin=0.2, end=0.6), final=0.9, steps=100)
    assert [at(0), at(19), at(20)] == [0.0, 0.0, 0.0]
    assert at(40) == pytest.approx(0.9 - 0.9 * 0.5**3)  # half way
    assert [at(60), at(99)] == [0.9, 0.9]


def test_the_ramp_starts_from_the_initial_sparsity() -> None:
    at = sparsity(Sparsify(begin=0.5, end=1.0, initial_sparsity=0.3), final=0.9, steps=10)
    assert (at(4), at(5)) == (0.0, pytest.approx(0.3))
    assert sparsity(Sparsify(begin=0.0, end=1.0, initial_sparsity=0.8), final=0.5, steps=10)(0) == 0.5


@given(FRACTION, FRACTION, FRACTION, st.integers(1, 200))
def test_the_ramp_never_falls_and_ends_where_it_should(a: float, b: float, final: float, steps: int) -> None:
    at = sparsity(Sparsify(begin=min(a, b), end=max(a, b)), final, steps)
    values = [at(step) for step in range(steps + 1)]
    assert all(0.0 <= value <= final for value in values)
    assert all(later >= earlier - 1e-12 for earlier, later in pairwise(values))
    assert values[-1] == final


@pytest.mark.parametrize("settings", [Sparsify, CoMatrixDropout])
def test_an_end_before_the_beginning_is_refused(settings: type[Sparsify]) -> None:
    with pytest.raises(ValidationError, match=r"end 0.25 lies before begin 0.75"):
        settings(begin=0.75, end=0.25)
