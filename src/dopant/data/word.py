"""The word-level tokenizer, with Penn Treebank's conventions (Mikolov et al. 2010, Zaremba et al. 2014)."""

from __future__ import annotations

import re
from collections import Counter
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
from dopant.errors import FileError, InputError

END = "<eos>"
"""What a line end becomes."""

SPECIAL = (END, UNKNOWN)
RARE = 3
"""The least count of a word in a training text that has no `<unk>` of its own."""


@dataclass(frozen=True)
class WordTokenizer:
    """Words between whitespace; each line end is `<eos>`, each word not in the vocabulary `<unk>`.

    Attributes:
        vocabulary: the words in the order of their ids, with `<eos>` and `<unk>`.
    """

    kind: ClassVar[str] = "word"
    vocabulary: tuple[str, ...]

    @classmethod
    def from_text(cls, text: str, *, size: int | None = None, minimum: int | None = None) -> WordTokenizer:
        """The vocabulary of a training text, by frequency, then alphabet.

        Args:
            text: the training split.
            size: the most words in all, `<eos>` and `<unk>` included.
            minimum: the least count of a word. None: 1 where the text has `<unk>` already, as Penn Treebank
                and WikiText have; else 3, as with 1 `<unk>` would never be trained.

        Raises:
            InputError: size below 3 or minimum below 1; or neither is given, and more than half of the
                text is rare words.
        """
        counts: Counter[str] = Counter()
        for block in blocks(text):
            counts.update(split_words(block))
        if minimum is None:
            minimum = 1 if UNKNOWN in counts else RARE
            words = [count for word, count in counts.items() if word not in SPECIAL]
            rare = [count for count in words if count < minimum]
            if size is None and 2 * sum(rare) > sum(words):
                raise InputError(
                    f"{len(rare):,} of {len(words):,} words of the training text occur less than {minimum} times and "
                    "would make more than half of it <unk>; give a minimum (tokenizer.minimum=1), take the character "
                    "tokenizer, or more text"
                )
        return cls(ranked_vocabulary(counts, SPECIAL, size, minimum))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> WordTokenizer:
        """What `to_json` gave. Raises FileError where that cannot be."""
        vocabulary = read_vocabulary(data, cls.kind, SPECIAL)
        for index, word in enumerate(vocabulary):
            if word.split() != [word]:
                raise FileError(f"word tokenizer: entry {index}, {brief(word)}, holds whitespace")
        return cls(vocabulary)

    def to_json(self) -> dict[str, Any]:
        """`{"kind": "word", "vocabulary": [...]}`."""
        return {"kind": self.kind, "vocabulary": list(self.vocabulary)}

    @property
    def size(self) -> int:
        """The number of ids."""
        return len(self.vocabulary)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.vocabulary)}

    def encode(self, text: str) -> IdArray:
        """Text -> ids (tokens,) int64."""
        get, unknown = self._ids.get, self._ids[UNKNOWN]
        parts = [np.empty(0, dtype=np.int64)]
        for block in blocks(text):
            words = split_words(block)
            parts.append(np.fromiter((get(word, unknown) for word in words), np.int64, len(words)))
        return np.concatenate(parts)

    def decode(self, ids: Iterable[int]) -> str:
        """Ids -> words with spaces between and a line end for each `<eos>`; encodes to the same ids.

        Raises:
            InputError: an id that is not in the vocabulary.
        """
        words = (self.vocabulary[i] for i in checked_ids(ids, self.size))
        return re.sub(" ?\n ?", "\n", " ".join("\n" if word == END else word for word in words))

    def unknown_words(self, text: str) -> list[str]:
        """The words that encode to `<unk>` without being it, once each, in the order of the text."""
        return list(dict.fromkeys(word for word in split_words(text) if word not in self._ids))


def split_words(text: str) -> list[str]:
    """The words of a text, with `<eos>` for each line end."""
    return text.replace("\n", f" {END} ").split()
