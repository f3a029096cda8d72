from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dopant.ops.huffman import decode_huffman, encode_huffman


@given(st.binary(max_size=3000))
def test_there_and_back(data: bytes) -> None:
    symbols = np.frombuffer(data, np.uint8)
    codes = encode_huffman(symbols)
    assert np.array_equal(decode_huffman(codes, len(symbols)), symbols)
    assert len(codes) <= len(symbols) + 5 * (len(symbols) > 0)


def test_numbers_take_as_many_bits_as_their_frequency_allows() -> None:
    levels = np.random.default_rng(0).normal(0.0, 6.0, 100_000).round().astype(np.int8)
    counts = np.unique(levels, return_counts=True)[1] / len(levels)
    entropy = -(counts * np.log2(counts)).sum()
    assert entropy <= 8 * len(encode_huffman(levels.view(np.uint8))) / len(levels) < entropy + 0.05


def deflated(data: bytes) -> np.ndarray:
    """With repetitions, which make streams that open to a thousand times as much."""
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    return np.frombuffer(coder.compress(data) + coder.flush(), np.uint8)


@pytest.mark.parametrize(
    ("codes", "most", "text"),
    [
        (np.array([255], np.uint8), 5, "damaged"),
        (encode_huffman(np.arange(40, dtype=np.uint8))[:-3], 40, "end early"),
        (np.append(encode_huffman(np.arange(40, dtype=np.uint8)), np.uint8(0)), 40, "go on after their end"),
        (encode_huffman(np.arange(40, dtype=np.uint8)), 39, "more than 39 symbols"),
        (deflated(bytes(10_000_000)), 10_000_000, "more than 7[0-9]{4} symbols"),
    ],
)
def test_what_is_no_such_stream_is_refused(codes: np.ndarray, most: int, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        decode_huffman(codes, most)
