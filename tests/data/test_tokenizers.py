from __future__ import annotations

import json
from typing import Any

import pytest

from dopant.data import make_corpus, make_tokenizer, tokenizer_from
from dopant.errors import FileError, InputError, KindError

CORPUS = make_corpus("x", "the cat saw the <unk>\n" * 4, "the bird\n", "the dog\n")


@pytest.mark.parametrize("kind", ["word", "character"])
def test_the_description_makes_the_same_tokenizer(kind: str) -> None:
    tokenizer = make_tokenizer(kind, CORPUS)
    again = tokenizer_from(json.loads(json.dumps(tokenizer.to_json())))
    assert again == tokenizer
    assert again.kind == kind
    assert again.encode(CORPUS.test).tolist() == tokenizer.encode(CORPUS.test).tolist()


def test_only_train_makes_the_vocabulary() -> None:
    assert make_tokenizer("word", CORPUS).unknown_words(CORPUS.valid) == ["bird"]
    assert make_tokenizer("word", CORPUS, minimum=4, size=4).size == 4
    assert make_tokenizer("word", CORPUS, minimum=5).size == 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("wrod", r"unknown tokenizer 'wrod'; .* did you mean 'word'\?"),
        ("no/tokenizer.json", "or the path of a tokenizer.json"),
        ("x" * 5000, "unknown tokenizer"),
    ],
)
def test_an_unknown_tokenizer_is_refused(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_tokenizer(spec, CORPUS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "must be a JSON object"),
        ({}, "needs a kind, one of word, character, huggingface"),
        ({"kind": "word"}, "word tokenizer lacks vocabulary"),
        ({"kind": "word", "vocabulary": ["<eos>", "<unk>"], "code": "x"}, "has the unknown code"),
        ({"kind": "word", "vocabulary": {}}, "must be a list of words"),
        ({"kind": "word", "vocabulary": []}, "must be a list of words"),
        ({"kind": "word", "vocabulary": ["<eos>", "<unk>", 3]}, "entry 2 must be a text, not 3"),
        ({"kind": "word", "vocabulary": ["<eos>", "<unk>", ""]}, "entry 2 must be a text, not ''"),
        ({"kind": "word", "vocabulary": ["a", "<eos>", "<unk>", "a"]}, "'a' is entry 0 and again entry 3"),
        ({"kind": "word", "vocabulary": ["a", "<eos>"]}, "has no <unk>"),
        ({"kind": "word", "vocabulary": ["a", "<unk>"]}, "has no <eos>"),
        ({"kind": "word", "vocabulary": ["<eos>", "<unk>", "a b"]}, "entry 2, 'a b', holds whitespace"),
        ({"kind": "word", "vocabulary": ["<eos>", "<unk>", "\ud800"]}, "is not valid Unicode"),
        ({"kind": "character", "vocabulary": ["a", "b"]}, "has no <unk>"),
        ({"kind": "character", "vocabulary": ["<unk>", "ab"]}, "entry 1, 'ab', is not one character"),
    ],
)
def test_a_malformed_description_is_refused(data: Any, message: str) -> None:
    with pytest.raises(FileError) as error:
        tokenizer_from(data)
    assert message in str(error.value)
    assert not isinstance(error.value, KindError)


@pytest.mark.parametrize("kind", ["words", "os.system", 3, None, ["word"]])
def test_an_unknown_kind_is_refused(kind: Any) -> None:
    with pytest.raises(KindError, match="this release knows word, character, huggingface"):
        tokenizer_from({"kind": kind, "vocabulary": []})
