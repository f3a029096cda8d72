from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dopant.data import CharacterTokenizer
from dopant.errors import InputError

TEXT = "banana\u00e9\n"


def test_the_vocabulary_goes_by_frequency_then_code_point() -> None:
    tokenizer = CharacterTokenizer.from_text(TEXT)
    assert tokenizer.vocabulary == ("a", "n", "\n", "b", "\u00e9", "<unk>")
    ids = tokenizer.encode("nab\n\U0001f600")
    assert ids.tolist() == [1, 0, 3, 2, 5]
    assert ids.dtype == np.int64
    assert tokenizer.size == 6


def test_rare_characters_count_for_unk() -> None:
    assert CharacterTokenizer.from_text(TEXT, minimum=2).vocabulary == ("<unk>", "a", "n")
    assert CharacterTokenizer.from_text(TEXT, size=2).vocabulary == ("<unk>", "a")
    with pytest.raises(InputError, match="vocabulary size is 1; at least 2"):
        CharacterTokenizer.from_text(TEXT, size=1)


def test_unknown_characters_are_named_and_shown() -> None:
    tokenizer = CharacterTokenizer.from_text(TEXT)
    assert tokenizer.unknown_words("bxyx") == ["x", "y"]
    assert tokenizer.decode(tokenizer.encode("bx")) == "b\ufffd"
    assert tokenizer.encode("\ud800").tolist() == [5]


def test_ids_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="id 6 at position 1 is not in the vocabulary"):
        CharacterTokenizer.from_text(TEXT).decode([0, 6])


@given(st.text(max_size=60))
def test_a_text_decodes_to_itself(text: str) -> None:
    tokenizer = CharacterTokenizer.from_text(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
