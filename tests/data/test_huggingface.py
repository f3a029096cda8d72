from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dopant.data import HuggingFaceTokenizer, make_corpus, make_tokenizer, tokenizer_from
from dopant.data.vocabulary import blocks
from dopant.errors import FileError, InputError

CORPUS = make_corpus("x", "the cat saw the dog\n" * 20, "the cat\n", "the dog\n")


def definition(**changes: Any) -> dict[str, Any]:
    """A word-level tokenizer.json."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {"the": 0, "cat": 1, "<unk>": 4}, "unk_token": "<unk>"},
        **changes,
    }


def test_without_the_package_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(InputError, match=r"pip install 'dopant\[tokenizers\]'"):
        tokenizer_from({"kind": "huggingface", "tokenizer": definition()})


class TestWithThePackage:
    @pytest.fixture(autouse=True)
    def package(self) -> None:
        pytest.importorskip("tokenizers")

    def test_a_file_and_its_folder_are_read(self, tmp_path: Path) -> None:
        (tmp_path / "tokenizer.json").write_text(json.dumps(definition()))
        tokenizer = make_tokenizer(str(tmp_path / "tokenizer.json"), CORPUS)
        assert tokenizer.to_json() == make_tokenizer(tmp_path, CORPUS).to_json()
        assert tokenizer.encode("the cat bird the").tolist() == [0, 1, 4, 0]
        assert str(tokenizer.encode("").dtype) == "int64"
        assert tokenizer.decode([0, 1]) == "the cat"
        assert tokenizer.size == 5
        assert tokenizer.unknown_words("the bird ate the bird") == ["bird", "ate"]

    def test_it_is_kept_whole(self) -> None:
        tokenizer = HuggingFaceTokenizer(definition())
        again = tokenizer_from(json.loads(json.dumps(tokenizer.to_json())))
        assert again == tokenizer
        assert again.encode("cat the").tolist() == [1, 0]

    def test_a_byte_level_tokenizer_gives_the_text_back(self) -> None:
        import tokenizers

        trained = tokenizers.Tokenizer(tokenizers.models.BPE())
        trained.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        trained.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=300, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        )
        trained.train_from_iterator([CORPUS.train], trainer)
        tokenizer = HuggingFaceTokenizer(json.loads(trained.to_str()))
        text = "The caf\u00e9\n  saw\n\n\u4e16 a dog\n"
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert tokenizer.unknown_words(text) == []
        assert tokenizer.encode("\ud800").size == 1  # half a surrogate pair becomes a question mark

    def test_truncation_padding_and_dropout_are_off(self) -> None:
        changed = definition(
            truncation={"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
            padding={
                "strategy": {"Fixed": 9},
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "the",
            },
        )
        assert HuggingFaceTokenizer(changed).encode("the cat the").tolist() == [0, 1, 0]
        model = {"type": "BPE", "dropout": 1.0, "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}
        assert HuggingFaceTokenizer(definition(model=model)).encode("ab").tolist() == [2]

    def test_a_long_text_goes_in_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tokenizer = HuggingFaceTokenizer(definition())
        whole = tokenizer.encode(CORPUS.train).tolist()
        monkeypatch.setattr("dopant.data.huggingface.blocks", lambda text: blocks(text, 11))
        assert tokenizer.encode(CORPUS.train).tolist() == whole

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "not JSON"),
            ("[" * 100_000, "not JSON"),
            ("[]", "must be an object with a model"),
            ("{}", "must be an object with a model"),
            ('{"model": {}}', "huggingface tokenizer: "),
            (json.dumps(definition(model={"type": "Rot13"})), "huggingface tokenizer: "),
            (
                json.dumps(definition(model={"type": "WordLevel", "vocab": {}, "unk_token": "u"})),
                "vocabulary is empty",
            ),
            (
                json.dumps(definition(model={"type": "WordLevel", "vocab": {"a": 2**31}, "unk_token": "a"})),
                "id 2147483648 is beyond",
            ),
        ],
    )
    def test_what_is_no_tokenizer_is_refused(self, tmp_path: Path, text: str, message: str) -> None:
        path = tmp_path / "tokenizer.json"
        path.write_text(text)
        with pytest.raises(InputError) as error:
            make_tokenizer(path, CORPUS)
        assert f"{path} is no Hugging Face tokenizer: " in str(error.value)
        assert message in str(error.value)

    def test_in_a_model_folder_the_same_is_a_file_error(self) -> None:
        with pytest.raises(FileError, match="must be an object with a model"):
            tokenizer_from({"kind": "huggingface", "tokenizer": "gpt2"})
        with pytest.raises(FileError, match="has the unknown module"):
            tokenizer_from({"kind": "huggingface", "tokenizer": definition(), "module": "os"})

    def test_what_it_cannot_encode_or_decode_is_refused(self) -> None:
        strict = definition(model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "u"})
        with pytest.raises(InputError, match="the tokenizer cannot encode this text: "):
            HuggingFaceTokenizer(strict).encode("b")
        with pytest.raises(InputError, match="id -1 at position 0 is not in the vocabulary"):
            HuggingFaceTokenizer(strict).decode([-1])

    def test_it_brings_its_vocabulary(self, tmp_path: Path) -> None:
        (tmp_path / "tokenizer.json").write_text(json.dumps(definition()))
        with pytest.raises(InputError, match="size and minimum go with word and character alone"):
            make_tokenizer(tmp_path, CORPUS, size=100)
