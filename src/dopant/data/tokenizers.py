"""What a tokenizer is, how one is made for a corpus, and how one is read back from a model folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from dopant.data.character import CharacterTokenizer
from dopant.data.corpus import Corpus
from dopant.data.huggingface import HuggingFaceTokenizer
from dopant.data.text_files import nearest
from dopant.data.vocabulary import IdArray, brief
from dopant.data.word import WordTokenizer
from dopant.errors import FileError, InputError, KindError


class Tokenizer(Protocol):
    """Text to ids and back. Two with equal `to_json()` are the same."""

    kind: ClassVar[str]

    @property
    def size(self) -> int:
        """The number of ids a model needs: ids are 0 to size - 1."""
        ...

    def encode(self, text: str) -> IdArray:
        """Text -> ids (tokens,) int64."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Ids -> readable text. Raises InputError for an id out of range."""
        ...

    def unknown_words(self, text: str) -> list[str]:
        """What of a text the vocabulary does not have, once each, in the order of the text."""
        ...

    def to_json(self) -> dict[str, Any]:
        """All there is to know, as JSON with a `kind`; `tokenizer_from` reads it."""
        ...


TRAINED: dict[str, type[WordTokenizer] | type[CharacterTokenizer]] = {
    WordTokenizer.kind: WordTokenizer,
    CharacterTokenizer.kind: CharacterTokenizer,
}
"""Tokenizers made from a training text, by the name they have in recipes and files."""

KINDS = (*TRAINED, HuggingFaceTokenizer.kind)
"""All kinds there are in files."""


def make_tokenizer(
    spec: str | Path, corpus: Corpus, *, size: int | None = None, minimum: int | None = None
) -> Tokenizer:
    """The tokenizer `spec` names, with its vocabulary from the corpus's training split where it has none yet.

    Args:
        spec: `word`, `character`, or the path of a Hugging Face `tokenizer.json` or of the folder with it.
        corpus: only `train` is read.
        size: the most entries of the vocabulary, special ones included.
        minimum: the least count of an entry; for the default see `WordTokenizer.from_text`.

    Raises:
        InputError: unknown spec, a size or minimum out of range or given with a file, a file that is no
            tokenizer, or the `tokenizers` package is not installed.
    """
    trained = TRAINED.get(str(spec))
    if trained is not None:
        return trained.from_text(corpus.train, size=size, minimum=minimum)
    path = Path(spec)
    if not _exists(path):
        raise InputError(
            f"unknown tokenizer {str(spec)!r}; known are {', '.join(TRAINED)}, or the path of a tokenizer.json"
            + nearest(str(spec), list(TRAINED))
        )
    if size is not None or minimum is not None:
        raise InputError(f"{path} brings its vocabulary; size and minimum go with {' and '.join(TRAINED)} alone")
    return HuggingFaceTokenizer.from_file(path / "tokenizer.json" if path.is_dir() else path)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long, a folder one may not enter
        return False


def tokenizer_from(data: object) -> Tokenizer:
    """The tokenizer that `to_json` described; runs no code from the description.

    Raises:
        KindError: a kind this release does not know.
        FileError: anything else that `to_json` cannot have given.
        InputError: the kind is huggingface and the `tokenizers` package is not installed.
    """
    if not isinstance(data, Mapping):
        raise FileError(f"a tokenizer must be a JSON object, not {brief(data)}")
    if "kind" not in data:
        raise FileError(f"a tokenizer needs a kind, one of {', '.join(KINDS)}")
    kind = data["kind"]
    if kind == HuggingFaceTokenizer.kind:
        return HuggingFaceTokenizer.from_json(data)
    trained = TRAINED.get(kind) if isinstance(kind, str) else None
    if trained is None:
        hint = nearest(kind, list(KINDS)) if isinstance(kind, str) else ""
        raise KindError(f"unknown tokenizer kind {brief(kind)}; this release knows {', '.join(KINDS)}{hint}")
    return trained.from_json(data)
