from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dopant.data import WordTokenizer
from dopant.data.vocabulary import blocks
from dopant.errors import InputError

TEXT = "the cat saw the <unk>\nthe dog\n"


def test_the_vocabulary_goes_by_frequency_then_alphabet() -> None:
    tokenizer = WordTokenizer.from_text(TEXT)
    assert tokenizer.vocabulary == ("the", "<eos>", "<unk>", "cat", "dog", "saw")
    ids = tokenizer.encode("the dog\ncat")
    assert ids.tolist() == [0, 4, 1, 3]
    assert ids.dtype == np.int64


def test_rare_words_count_for_unk() -> None:
    assert WordTokenizer.from_text("a a a b b c\n", minimum=2).vocabulary == ("a", "b", "<eos>", "<unk>")
    assert WordTokenizer.from_text("a a a a b b c c d d\n", size=3).vocabulary == ("<unk>", "a", "<eos>")
    # a text without <unk> of its own gets one that is trained
    assert WordTokenizer.from_text("a a a b b c\n").vocabulary == ("<unk>", "a", "<eos>")


def test_special_words_are_there_even_where_the_text_has_none() -> None:
    assert set(WordTokenizer.from_text("a a a").vocabulary) == {"a", "<eos>", "<unk>"}


def test_a_size_or_minimum_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match="vocabulary size is 2; at least 3 are needed: <eos>, <unk>"):
        WordTokenizer.from_text(TEXT, size=2)
    with pytest.raises(InputError, match="minimum count is 0; at least 1"):
        WordTokenizer.from_text(TEXT, minimum=0)


def test_unknown_words_are_named_once() -> None:
    tokenizer = WordTokenizer.from_text(TEXT)
    assert tokenizer.unknown_words("the bird ate the bird <unk>\n") == ["bird", "ate"]
    assert tokenizer.encode("bird").tolist() == [2]


def test_decoding_is_readable() -> None:
    tokenizer = WordTokenizer.from_text(TEXT)
    assert tokenizer.decode(tokenizer.encode("the  cat \n\n saw\n")) == "the cat\n\nsaw\n"
    assert tokenizer.decode([]) == ""
    assert tokenizer.encode("").shape == (0,)


@pytest.mark.parametrize("ids", [[0, 6], [-1]])
def test_ids_out_of_range_are_refused(ids: list[int]) -> None:
    with pytest.raises(InputError, match="is not in the vocabulary; ids go from 0 to 5"):
        WordTokenizer.from_text(TEXT).decode(ids)


@given(st.lists(st.integers(0, 5), max_size=40))
def test_decoded_ids_encode_to_themselves(ids: list[int]) -> None:
    tokenizer = WordTokenizer.from_text(TEXT)
    assert tokenizer.encode(tokenizer.decode(ids)).tolist() == ids


@given(st.text("ab \n", max_size=200), st.integers(0, 9))
def test_blocks_are_the_text_and_cut_no_word(text: str, characters: int) -> None:
    parts = list(blocks(text, characters + 1))
    assert "".join(parts) == text
    assert [word for part in parts for word in part.split()] == text.split()


def test_a_long_text_is_encoded_in_blocks_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = WordTokenizer.from_text(TEXT)
    whole = tokenizer.encode(TEXT * 9)
    monkeypatch.setattr("dopant.data.word.blocks", lambda text: blocks(text, 7))
    assert tokenizer.encode(TEXT * 9).tolist() == whole.tolist()
    assert WordTokenizer.from_text(TEXT) == tokenizer


def test_a_million_words_take_less_than_two_seconds() -> None:
    text = TEXT * 130_000
    tokenizer = WordTokenizer.from_text(TEXT)
    start = time.process_time()
    assert len(tokenizer.encode(text)) > 1_000_000
    assert time.process_time() - start < 2


def test_a_text_of_rare_words_is_not_made_unknown_unasked() -> None:
    text = " ".join(f"word{number}" for number in range(50)) + "\n"
    with pytest.raises(InputError, match=r"50 of 50 words .* less than 3 times .* more than half of it <unk>"):
        WordTokenizer.from_text(text * 2 + "\n" * 9)
    assert WordTokenizer.from_text(text, minimum=1).size == 52
    assert WordTokenizer.from_text(text, minimum=2).size == 2  # asked for
