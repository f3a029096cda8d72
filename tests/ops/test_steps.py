from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dopant.cost import FINENESS, STEP_BYTES
from dopant.ops.huffman import encode_huffman
from dopant.ops.steps import (
    LAST,
    decode_steps,
    dequantise_steps,
    encode_steps,
    quantise_steps,
    steps_bytes,
    whole_steps,
)

numbers = st.lists(st.floats(-(2.0**100), 2.0**100, width=32), max_size=60)


@given(numbers)
def test_no_number_is_off_by_more_than_half_a_step(values: list[float]) -> None:
    given_ = torch.tensor(values, dtype=torch.float32)
    levels, step = quantise_steps(given_)
    assert levels.dtype == torch.int32
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


@given(st.lists(st.integers(-127, 127), min_size=1, max_size=60), st.integers(-20, 20), st.integers(128, 255))
def test_the_largest_step_of_whole_multiples_is_found(whole: list[int], exponent: int, digits: int) -> None:
    step = math.ldexp(float(digits), exponent)
    found = whole_steps(torch.tensor([step * level for level in whole], dtype=torch.float32))
    assert found is not None
    levels, largest = found
    common = math.gcd(*whole)
    assert levels.tolist() == [level // common if common else 0 for level in whole]
    assert largest == step * common


def test_a_step_is_a_sixth_of_the_root_mean_square() -> None:
    values = 0.37 * torch.randn(200, 300, generator=torch.Generator().manual_seed(0))
    levels, step = quantise_steps(values)
    assert float(step) == pytest.approx(0.37 / FINENESS, rel=0.01)
    error = (dequantise_steps(levels, step) - values).square().mean().sqrt()
    assert float(error) == pytest.approx(float(step) / math.sqrt(12.0), rel=0.01)


def test_other_numbers_are_no_whole_multiples() -> None:
    assert whole_steps(torch.randn(10_000)) is None
    assert whole_steps(torch.randn(3)) is None
    assert whole_steps(torch.tensor([1.0, LAST + 1.0])) is None
    assert whole_steps(torch.tensor([torch.nan, 1.0])) is None
    assert whole_steps(torch.tensor([torch.inf, 1.0])) is None


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        quantise_steps(torch.tensor([1.0, bad]))


@pytest.mark.parametrize("outlier", [60.0, 1000.0, 3000.0])
def test_a_few_large_numbers_do_not_cost_the_others(outlier: float) -> None:
    values = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    values[7] = -outlier
    levels, step = quantise_steps(values)
    assert float(step) == pytest.approx(float(values.square().mean().sqrt()) / FINENESS, rel=0.005)
    assert float((dequantise_steps(levels, step) - values).abs().max()) <= 0.51 * float(step)
    assert torch.equal(decode_steps(encode_steps(values)[0], len(values)), levels)


@given(st.lists(st.integers(-LAST, LAST) | st.integers(-300, 300), max_size=40))
def test_numbers_of_several_bytes_there_and_back(whole: list[int]) -> None:
    values = torch.tensor([*whole, 1], dtype=torch.float32)
    codes, step = encode_steps(values)
    assert step == 1.0
    assert decode_steps(codes, len(values)).tolist() == [*whole, 1]
    assert steps_bytes(values) == len(codes) + STEP_BYTES


def test_numbers_near_the_largest_float_stay_finite() -> None:
    for seed in range(20):
        values = torch.finfo(torch.float32).max * torch.rand(9, generator=torch.Generator().manual_seed(seed)).sign()
        values[0] *= 0.3
        assert torch.isfinite(dequantise_steps(*quantise_steps(values))).all()


@pytest.mark.parametrize(
    ("symbols", "count", "text"),
    [
        ([1, 2, 3], 2, "hold 3 numbers where 2 are needed"),
        ([1, 2], 3, "hold 2 numbers where 3 are needed"),
        ([1, 127], 1, "end within a number"),
        ([1, -128], 2, "-128 is no byte of a number"),
        ([127] * 520 + [0], 1, "larger than 65535|more than"),
    ],
)
def test_what_is_no_number_is_refused(symbols: list[int], count: int, text: str) -> None:
    codes = encode_huffman(np.array(symbols, np.int8).view(np.uint8))
    with pytest.raises(ValueError, match=text):
        decode_steps(codes, count)


def test_the_bytes_do_not_hang_on_the_scale_and_are_known_of_what_cannot_be_stored() -> None:
    matrix = torch.randn(30, 40)
    size = steps_bytes(matrix)
    assert STEP_BYTES < size < 30 * 40 * 0.65
    assert steps_bytes(1024.0 * matrix) == size
    matrix[3, 4] = torch.nan
    assert abs(steps_bytes(matrix) - size) < 10
