from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dopant.ops.nibbles import decode_nibbles, encode_nibbles


@given(st.lists(st.integers(-8, 7), max_size=9), st.integers(1, 3))
def test_there_and_back(numbers: list[int], rows: int) -> None:
    levels = torch.tensor(numbers, dtype=torch.int8).repeat(2, rows, 1)
    codes = encode_nibbles(levels)
    assert codes.dtype == torch.uint8
    assert codes.shape == (2, rows, (len(numbers) + 1) // 2)
    back = decode_nibbles(codes, len(numbers))
    assert back.dtype == torch.int8
    assert torch.equal(back, levels)


def test_the_first_of_two_is_in_the_low_half() -> None:
    assert encode_nibbles(torch.tensor([1, -2, -8], dtype=torch.int8)).tolist() == [0xE1, 0x08]


@pytest.mark.parametrize(
    ("codes", "count", "text"), [([1, 16], 3, "beyond"), ([1], 3, "2 bytes"), ([1, 2], 2, "1 bytes")]
)
def test_what_is_no_code_is_refused(codes: list[int], count: int, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        decode_nibbles(torch.tensor(codes, dtype=torch.uint8), count)
