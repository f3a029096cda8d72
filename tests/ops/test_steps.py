from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dopant.ops.steps import FINENESS, LAST, dequantise_steps, quantise_steps, whole_steps

numbers = st.lists(st.floats(-(2.0**100), 2.0**100, width=32), max_size=60)


@given(numbers)
def test_no_number_is_off_by_more_than_half_a_step(values: list[float]) -> None:
    given_ = torch.tensor(values, dtype=torch.float32)
    levels, step = quantise_steps(given_)
    assert levels.dtype == torch.int8
    assert step.dtype == torch.float32
    assert not levels.numel() or int(levels.abs().max()) <= LAST
    off = (dequantise_steps(levels, step).double() - given_.double()).abs()
    assert not levels.numel() or float(off.max()) <= 0.501 * max(float(step), 1e-37)


@given(numbers)
def test_what_was_read_from_a_file_is_written_as_it_was(values: list[float]) -> None:
    levels, step = quantise_steps(torch.tensor(values, dtype=torch.float32))
    if step < 1e-30:
        return  # products of so small a step are not exact
    again, same = quantise_steps(dequantise_steps(levels, step))
    assert torch.equal(again, levels)
    assert same == step or not levels.any()


@given(st.lists(st.integers(-LAST, LAST), min_size=1, max_size=60), st.integers(-20, 20), st.integers(128, 255))
def test_the_largest_step_of_whole_multiples_is_found(whole: list[int], exponent: int, digits: int) -> None:
    step = math.ldexp(float(digits), exponent)
    found = whole_steps(torch.tensor([step * level for level in whole], dtype=torch.float32))
    assert found is not None
    levels, largest = found
    common = math.gcd(*whole)
    assert levels.tolist() == [level // common if common else 0 for level in whole]
    assert largest == step * common


def test_a_step_is_a_sixth_of_the_standard_deviation() -> None:
    values = 0.37 * torch.randn(200, 300, generator=torch.Generator().manual_seed(0))
    levels, step = quantise_steps(values)
    assert float(step) == pytest.approx(0.37 / FINENESS, rel=0.01)
    error = (dequantise_steps(levels, step) - values).square().mean().sqrt()
    assert float(error) == pytest.approx(float(step) / math.sqrt(12.0), rel=0.01)


def test_other_numbers_are_no_whole_multiples() -> None:
    assert whole_steps(torch.randn(10_000)) is None
    assert whole_steps(torch.randn(3)) is None
    assert whole_steps(torch.tensor([1.0, 128.0])) is None
    assert whole_steps(torch.tensor([torch.nan, 1.0])) is None
    assert whole_steps(torch.tensor([torch.inf, 1.0])) is None


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        quantise_steps(torch.tensor([1.0, bad]))
