"""Any Hugging Face `tokenizer.json`, by the `tokenizers` package (an extra); it goes whole into model folders."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dopant.data.text_files import read_text
from dopant.data.vocabulary import LARGEST_VOCABULARY, IdArray, blocks, check_keys, checked_ids
from dopant.errors import DopantError, FileError, InputError


@dataclass(frozen=True)
class HuggingFaceTokenizer:
    """A tokenizer of the `tokenizers` package without special tokens, truncation, padding and BPE dropout.

    Attributes:
        definition: the contents of its `tokenizer.json`.
    """

    kind: ClassVar[str] = "huggingface"
    definition: dict[str, Any]
    _tokenizer: Any = field(init=False, repr=False, compare=False)
    _size: int = field(init=False, repr=False, compare=False)
    _unknown: int | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tokenizer = _build(self.definition)
        ids = tokenizer.get_vocab(with_added_tokens=True).values()
        if not ids:
            raise FileError("huggingface tokenizer: its vocabulary is empty")
        if max(ids) >= LARGEST_VOCABULARY:
            raise FileError(f"huggingface tokenizer: id {max(ids)} is beyond {LARGEST_VOCABULARY - 1}")
        object.__setattr__(self, "_tokenizer", tokenizer)
        object.__setattr__(self, "_size", max(ids) + 1)  # ids may have gaps
        model = self.definition["model"]
        unknown = model.get("unk_id")  # Unigram's; the other models name the token
        if unknown is None and isinstance(model.get("unk_token"), str):
            unknown = tokenizer.token_to_id(model["unk_token"])
        object.__setattr__(self, "_unknown", unknown)

    @classmethod
    def from_file(cls, path: Path) -> HuggingFaceTokenizer:
        """The tokenizer of a `tokenizer.json`.

        Raises:
            InputError: the file is missing, unreadable or no tokenizer, or `tokenizers` is not installed.
        """
        text = read_text(path)
        try:
            definition = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is no Hugging Face tokenizer: not JSON: {error}") from error
        try:
            return cls.from_json({"kind": cls.kind, "tokenizer": definition})
        except FileError as error:
            raise InputError(
                f"{path} is no Hugging Face tokenizer: {error}; needed is a fast tokenizer's tokenizer.json"
            ) from error

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> HuggingFaceTokenizer:
        """What `to_json` gave.

        Raises:
            FileError: that cannot be.
            InputError: the `tokenizers` package is not installed.
        """
        check_keys(data, cls.kind, {"kind", "tokenizer"})
        definition = data["tokenizer"]
        if not isinstance(definition, dict) or not isinstance(definition.get("model"), dict):
            raise FileError("huggingface tokenizer: its definition must be an object with a model")
        return cls(definition)

    def to_json(self) -> dict[str, Any]:
        """`{"kind": "huggingface", "tokenizer": {...}}`, the whole definition."""
        return {"kind": self.kind, "tokenizer": self.definition}

    @property
    def size(self) -> int:
        """The largest id and one."""
        return self._size

    def encode(self, text: str) -> IdArray:
        """Text -> ids (tokens,) int64; long texts in blocks of a million characters, cut where a word ends.

        Raises:
            InputError: the text has words the tokenizer knows no token for, not even an unknown one.
        """
        parts = [np.empty(0, dtype=np.int64)]
        parts += [np.array(self._encoding(block).ids, dtype=np.int64) for block in blocks(text)]
        return np.concatenate(parts)

    def decode(self, ids: Iterable[int]) -> str:
        """Ids -> text. Raises InputError for an id that is not in the vocabulary."""
        checked = checked_ids(ids, self.size)
        with _failing_as(InputError, "the tokenizer cannot decode these ids"):
            text: str = self._tokenizer.decode(checked, skip_special_tokens=False)
        return text

    def unknown_words(self, text: str) -> list[str]:
        """The pieces of text that encode to the unknown token, once each; none if it has no such token."""
        found: dict[str, None] = {}
        for block in blocks(text):
            encoding = self._encoding(block)
            for i, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True):
                if i == self._unknown:
                    found[block[start:stop]] = None
        return list(found)

    def _encoding(self, text: str) -> Any:
        whole = text.encode("utf-8", "replace").decode()  # half a surrogate pair, from a command line
        with _failing_as(InputError, "the tokenizer cannot encode this text"):
            return self._tokenizer.encode(whole, add_special_tokens=False)


def _build(definition: Mapping[str, Any]) -> Any:
    try:
        tokenizers = importlib.import_module("tokenizers")
    except ImportError as error:
        raise InputError(
            "a Hugging Face tokenizer needs the package tokenizers, which is not installed: "
            "pip install 'dopant[tokenizers]'"
        ) from error
    # what would shorten a text, lengthen it, or encode it differently each time
    plain = {**definition, "truncation": None, "padding": None}
    if plain["model"].get("dropout") is not None:
        plain["model"] = {**plain["model"], "dropout": None}
    with _failing_as(FileError, "huggingface tokenizer"):
        return tokenizers.Tokenizer.from_str(json.dumps(plain))


@contextmanager
def _failing_as(kind: type[DopantError], said: str) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # the package raises bare Exception, and PanicException, which is none
        raise kind(f"{said}: {error}") from error
