from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dopant.cost import Indices, Storage, expected_index_bytes
from dopant.ops.gaps import decode_gaps, encode_gaps
from dopant.ops.indices import decode_indices, encode_indices, index_bytes
from dopant.ops.rice import MAX_PARAMETER, decode_rice, encode_rice

codes = pytest.mark.parametrize("code", get_args(Indices))


@st.composite
def patterns(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Positions with short and long gaps, and a matrix around them."""
    gaps = draw(st.lists(st.one_of(st.integers(0, 3), st.integers(250, 1030), st.integers(0, 10**7)), max_size=30))
    positions = np.cumsum(np.array(gaps, dtype=np.int64) + 1) - 1
    room = draw(st.integers(0, 3))
    return positions, int(positions[-1] if len(positions) else 0) + 1 + room


@codes
@settings(max_examples=150, deadline=None)
@given(patterns())
def test_round_trip_and_exact_size(code: Indices, pattern: tuple[np.ndarray, int]) -> None:
    positions, total = pattern
    written = encode_indices(positions, total, code)
    assert written.dtype == np.uint8
    assert index_bytes(positions, total, code) == written.size
    read = decode_indices(written, len(positions), total, code)
    assert read.dtype == np.int64
    assert np.array_equal(read, positions)


@codes
def test_tensors_are_taken_as_well(code: Indices) -> None:
    positions = torch.tensor([1, 5, 1000])
    assert np.array_equal(encode_indices(positions, 1001, code), encode_indices(positions.numpy(), 1001, code))


@codes
@pytest.mark.parametrize("density", [0.0001, 0.002, 0.039, 0.3, 0.9])
def test_random_patterns_take_what_cost_expects(code: Indices, density: float) -> None:
    total = 400_000
    positions = np.sort(np.random.default_rng(0).choice(total, int(density * total), replace=False))
    expected = expected_index_bytes(total, len(positions), Storage(indices=code))
    assert index_bytes(positions, total, code) == pytest.approx(
        expected, rel=0.03 if code == "huffman" else 0.01, abs=2
    )


@pytest.mark.parametrize("count", [1, 2, 10, 100])
def test_few_non_zeros_take_what_cost_expects_on_average(count: int) -> None:
    total, random = 100_000, np.random.default_rng(0)
    taken = [
        encode_gaps(np.sort(random.choice(total, count, replace=False))).size for _ in range(max(20, 2000 // count))
    ]
    assert np.mean(taken) == pytest.approx(expected_index_bytes(total, count, Storage()), rel=0.05)


def test_gaps_by_hand() -> None:
    # Gaps of 0, 254, 255 and 600 places: 255 is the skip, so 255 takes two bytes and 600 three.
    positions = np.cumsum(np.array([0, 254, 255, 600]) + 1) - 1
    assert encode_gaps(positions).tolist() == [0, 254, 255, 0, 255, 255, 90]


def test_rice_by_hand() -> None:
    # Gaps 3, 0, 5, 2 with k = 1: quotients 1, 0, 2, 1 are 01 1 001 01, remainders 1, 0, 1, 0.
    positions = np.cumsum(np.array([3, 0, 5, 2]) + 1) - 1
    by_hand = np.array([1, 0b01100101, 0b10100000], dtype=np.uint8)
    assert np.array_equal(decode_rice(by_hand, 4, 20), positions)


def test_rice_takes_the_best_parameter() -> None:
    positions = np.sort(np.random.default_rng(1).choice(50_000, 2_000, replace=False))
    gaps = np.diff(positions, prepend=-1) - 1
    sizes = [1 + -(-int((gaps >> k).sum() + 2_000) // 8) + -(-2_000 * k // 8) for k in range(MAX_PARAMETER + 1)]
    assert encode_rice(positions).size == min(sizes)
    assert encode_rice(positions)[0] == sizes.index(min(sizes))


@codes
@pytest.mark.parametrize("bad", [[3, 3], [4, 2], [-1, 2], [[1, 2]]])
def test_positions_must_increase(code: Indices, bad: list[int]) -> None:
    with pytest.raises(ValueError, match="positions must"):
        encode_indices(np.array(bad), 10, code)


@codes
def test_positions_must_lie_in_the_matrix(code: Indices) -> None:
    for function in (encode_indices, index_bytes):
        with pytest.raises(ValueError, match="outside"):
            function(np.array([1, 10]), 10, code)


@codes
@pytest.mark.parametrize("nonzeros", [0, 2, 4])
def test_the_number_of_positions_is_checked(code: Indices, nonzeros: int) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (several texts)
        decode_indices(encode_indices(np.array([3, 400, 900]), 1000, code), nonzeros, 1000, code)


@codes
def test_positions_read_must_lie_in_the_matrix(code: Indices) -> None:
    with pytest.raises(ValueError, match="places"):
        decode_indices(encode_indices(np.array([3, 400, 900]), 1000, code), 3, 900, code)


@pytest.mark.parametrize(
    ("written", "nonzeros", "text"),
    [
        ([7, 255], 1, "skip that leads"),
        ([255, 255], 0, "skip that leads"),
        ([], 1, "hold 0 positions"),
    ],
)
def test_gap_codes_that_are_not_canonical(written: list[int], nonzeros: int, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        decode_gaps(np.array(written, dtype=np.uint8), nonzeros, 10**6)


@pytest.mark.parametrize(
    ("written", "nonzeros", "text"),
    [
        ([1], 0, "no position"),
        ([], 1, "too few"),
        ([0], 1, "too few"),
        ([MAX_PARAMETER + 1, 128, 0, 0, 0, 0, 0], 1, "parameter"),
        ([255, 128], 1, "parameter"),
        ([0, 0], 1, "hold 0 positions"),
        ([0, 192], 1, "hold 2 positions"),
        ([0, 128, 0], 1, "end before"),
        ([1, 128, 0b01000000], 1, "padding"),
        ([MAX_PARAMETER, 0b00000001, 255, 255, 255, 252], 1, "pass the end"),
        ([2, 0b11110000, 255], 4, "pass the end"),
    ],
)
def test_rice_codes_that_are_refused(written: list[int], nonzeros: int, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        decode_rice(np.array(written, dtype=np.uint8), nonzeros, 5)


@codes
@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=40), nonzeros=st.integers(0, 40), total=st.integers(0, 2**62))
def test_any_bytes_are_refused_or_good(code: Indices, data: bytes, nonzeros: int, total: int) -> None:
    try:
        positions = decode_indices(np.frombuffer(data, dtype=np.uint8), nonzeros, total, code)
    except ValueError:
        return
    assert len(positions) == nonzeros
    assert (np.diff(positions, prepend=-1) > 0).all()
    assert not len(positions) or positions[-1] < total


@pytest.mark.parametrize(("code", "size"), [("gaps", 2**59 / 255), ("rice", (2**59 / 2**30 + 30) / 8)])
def test_a_gap_may_be_as_long_as_floats_do_not_tell(code: Indices, size: float) -> None:
    assert expected_index_bytes(2**60, 1, Storage(indices=code)) == pytest.approx(size, rel=1e-3)
    assert expected_index_bytes(2**60, 2**60, Storage(indices="gaps")) == 2**60
