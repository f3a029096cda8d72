"""A corpus: three splits of text, where they come from, and the checksum that tells them from any other."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from dopant.data.python_docs import python_docs
from dopant.data.text_files import SPLITS, cut_text, find_splits, nearest, read_text, siblings
from dopant.errors import InputError

PYTHON_DOCS = "python-docs"
"""The name of the corpus that needs no file: the docstrings of the running Python's standard library."""


@dataclass(frozen=True)
class Corpus:
    """Text in three splits; made by `make_corpus` or `read_corpus`.

    Attributes:
        name: what reports call it.
        train, valid, test: the splits.
        checksum: SHA-256 of the splits, as 64 hexadecimal digits.
        source: how to get it again: `kind` (folder, file, python-docs, text) and what belongs to that kind.
    """

    name: str
    train: str = field(repr=False)
    valid: str = field(repr=False)
    test: str = field(repr=False)
    checksum: str
    source: dict[str, str]

    def split(self, name: str) -> str:
        """The split of this name.

        Raises:
            InputError: it is none of train, valid, test.
        """
        if name not in SPLITS:
            raise InputError(f"unknown split {name!r}; there are {', '.join(SPLITS)}{nearest(name, list(SPLITS))}")
        text: str = getattr(self, name)
        return text


def make_corpus(name: str, train: str, valid: str, test: str, source: dict[str, str] | None = None) -> Corpus:
    """A corpus of texts at hand; `source` defaults to {"kind": "text"}.

    Raises:
        InputError: a split is empty or holds only whitespace.
    """
    digest = hashlib.sha256()
    for split, text in zip(SPLITS, (train, valid, test), strict=True):
        if not text.strip():
            raise InputError(f"the {split} split of {name} is empty; each of {', '.join(SPLITS)} needs text")
        data = text.encode("utf-8", "surrogatepass")
        # the length first, so that text moved from one split to the next makes another checksum
        digest.update(f"{split} {len(data)}\n".encode())
        digest.update(data)
    return Corpus(name, train, valid, test, digest.hexdigest(), dict(source or {"kind": "text"}))


def read_corpus(spec: str | Path) -> Corpus:
    """The corpus at a path, or the embedded one.

    Args:
        spec: `python-docs`; a folder with train, valid and test text (`train.txt`, `train`, `ptb.train.txt`,
            `wiki.train.tokens`, `wiki.train.raw`; `validation`, `val` or `dev` for valid); or one text file,
            split by `cut_text`. All text is UTF-8; line ends become `\\n`.

    Raises:
        InputError: the path is missing or unreadable; a file is empty, binary or not UTF-8; a split is
            missing, there twice, or empty; one file is too short to be split.
    """
    if str(spec) == PYTHON_DOCS:
        splits, source = python_docs()
        return make_corpus(PYTHON_DOCS, **splits, source={"kind": PYTHON_DOCS, **source})
    if not str(spec).strip():
        raise InputError(f"no corpus given; needed is a folder, a text file, or {PYTHON_DOCS!r}")
    path = Path(spec)
    try:
        present, folder = path.exists(), path.is_dir()
        name = path.resolve().stem if not folder else path.resolve().name
    except (OSError, RuntimeError) as error:  # a name too long, a folder one may not enter, a ring of links
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not present:
        hint = nearest(path.name, [*siblings(path), PYTHON_DOCS])
        raise InputError(
            f"there is no corpus {str(spec)!r}; needed is a folder with train, valid and test text, "
            f"a text file, or {PYTHON_DOCS!r}{hint}"
        )
    if not folder:
        how = "blocks: of each 20 pieces the 10th is valid, the 20th test"
        splits = cut_text(read_text(path), str(path))
        return make_corpus(name, **splits, source={"kind": "file", "path": str(spec), "split": how})
    files = find_splits(path)
    texts = {split: read_text(file) for split, file in files.items()}
    names = {split: file.name for split, file in files.items()}
    return make_corpus(name, **texts, source={"kind": "folder", "path": str(spec), **names})
