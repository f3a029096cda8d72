"""The character-level tokenizer: one id a code point."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from dopant.data.vocabulary import (
    UNKNOWN,
    IdArray,
    blocks,
    brief,
    checked_ids,
    ranked_vocabulary,
    read_vocabulary,
)
from dopant.errors import FileError

CODE_POINTS = 0x110000
REPLACEMENT = "\ufffd"
"""How an unknown character is shown: Unicode's sign for just that."""

Codes = np.ndarray[tuple[int], np.dtype[np.uint32]]


@dataclass(frozen=True)
class CharacterTokenizer:
    """Code points, line ends among them; what is not in the vocabulary is `<unk>`.

    Attributes:
        vocabulary: the characters in the order of their ids, and `<unk>`.
    """

    kind: ClassVar[str] = "character"
    vocabulary: tuple[str, ...]

    @classmethod
    def from_text(cls, text: str, *, size: int | None = None, minimum: int | None = None) -> CharacterTokenizer:
        """The characters of a training text, by frequency, then code point.

        Args:
            text: the training split.
            size: the most entries in all, `<unk>` included.
            minimum: the least count of a character; None is 1.

        Raises:
            InputError: size below 2 or minimum below 1.
        """
        found: dict[str, int] = {}
        for block in blocks(text):
            codes, counts = np.unique(code_points(block), return_counts=True)
            for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
                found[chr(code)] = found.get(chr(code), 0) + count
        return cls(ranked_vocabulary(found, (UNKNOWN,), size, 1 if minimum is None else minimum))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CharacterTokenizer:
        """What `to_json` gave. Raises FileError where that cannot be."""
        vocabulary = read_vocabulary(data, cls.kind, (UNKNOWN,))
        for index, character in enumerate(vocabulary):
            if len(character) != 1 and character != UNKNOWN:
                raise FileError(f"character tokenizer: entry {index}, {brief(character)}, is not one character")
        return cls(vocabulary)

    def to_json(self) -> dict[str, Any]:
        """`{"kind": "character", "vocabulary": [...]}`."""
        return {"kind": self.kind, "vocabulary": list(self.vocabulary)}

    @property
    def size(self) -> int:
        """The number of ids."""
        return len(self.vocabulary)

    @cached_property
    def _unknown(self) -> int:
        return self.vocabulary.index(UNKNOWN)

    @cached_property
    def _table(self) -> IdArray:
        table = np.full(CODE_POINTS, self._unknown, dtype=np.int64)
        for i, character in enumerate(self.vocabulary):
            if character != UNKNOWN:
                table[ord(character)] = i
        return table

    def encode(self, text: str) -> IdArray:
        """Text -> ids (characters,) int64."""
        return self._table[code_points(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """Ids -> text, with U+FFFD for `<unk>`; encodes to the same ids unless U+FFFD is in the vocabulary.

        Raises:
            InputError: an id that is not in the vocabulary.
        """
        checked = checked_ids(ids, self.size)
        return "".join(REPLACEMENT if i == self._unknown else self.vocabulary[i] for i in checked)

    def unknown_words(self, text: str) -> list[str]:
        """The characters that encode to `<unk>`, once each, in the order of the text."""
        characters = list(dict.fromkeys(text))
        return [c for c in characters if self._table[ord(c)] == self._unknown]


def code_points(text: str) -> Codes:
    """The code points of a text, (characters,)."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
