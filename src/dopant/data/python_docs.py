"""The docstrings of the running Python's standard library as a word-level corpus that needs no download."""

from __future__ import annotations

import ast
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from dopant.data.text_files import SPLITS
from dopant.errors import InputError

SKIPPED_FOLDERS = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "lib-dynload", "__pycache__"}
)
"""Folders that are no part of the library's documentation."""

SKIPPED_FILES = frozenset({"sitecustomize.py", "usercustomize.py"})
"""Files that belong to a machine and not to Python."""

SHARES = {"train": 0.90, "valid": 0.05, "test": 0.05}
"""The share of the words each split is given."""

DOCTEST = ">>>"

# In this order: a verb before its n't, n't, other endings after an apostrophe, words, numbers, a sign repeated.
_WORDS = re.compile(
    r"[^\W\d]\w*?(?=n't\b)|(?<=\w)n't\b|(?<=\w)'(?:s|re|ve|ll|d|m)\b(?!')|[^\W\d]\w*"
    r"|(?P<number>\d\w*(?:[.,]\d\w*)*)|(?P<sign>[^\w\s])(?P=sign)*"
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'`(])")
_PARAGRAPH_END = re.compile(r"\n\s*\n")


def python_docs() -> tuple[dict[str, str], dict[str, str]]:
    """The text of the splits, and where it comes from.

    Source files are parsed, in the order of their paths, and never imported. A docstring that has come before
    is dropped, so that no two splits share one, and whole modules go to one split: each in turn to the one that
    lags most behind its share. Lines are sentences (in doctests, lines) in Penn Treebank's manner: lower case,
    words and signs set apart, `does n't`, `N` for numbers; a sign repeated is cut to three. Rare words are left
    to the tokenizer.

    Returns:
        ({"train": ..., "valid": ..., "test": ...}, {"python": version, "implementation": ..., "modules": ...,
        "docstrings": ...}).

    Raises:
        InputError: this Python has no source files of its standard library.
    """
    root = Path(sysconfig.get_path("stdlib"))
    modules: dict[str, list[str]] = {}
    seen: set[str] = set()
    for name in library_files(root):
        lines: list[str] = []
        for docstring in docstrings((root / name).read_bytes()):
            if docstring not in seen:
                seen.add(docstring)
                lines.extend(sentences(docstring))
        if lines:
            modules[name] = lines
    if len(modules) < len(SPLITS):
        raise InputError(
            f"python-docs needs the source files of Python's standard library, and {root} holds none; "
            "use a Python installed with its library's source, or give a folder or a text file as corpus"
        )
    source = {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "modules": str(len(modules)),
        "docstrings": str(len(seen)),
    }
    return share_out(modules), source


def library_files(root: Path) -> list[str]:
    """The paths, relative to `root` and sorted, of the library's own source files."""
    found: list[str] = []
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).parts
        # _sysconfigdata and config-* are written when a Python is built
        generated = parts[0].startswith(("config-", "_sysconfigdata"))
        if not generated and SKIPPED_FOLDERS.isdisjoint(parts) and path.name not in SKIPPED_FILES:
            found.append("/".join(parts))
    return sorted(found)


def docstrings(source: bytes) -> list[str]:
    """The docstrings of a source file in the order of the file; none where it does not parse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of invalid escapes: not ours to mend
        try:
            return list(_docstrings(ast.parse(source)))
        except (SyntaxError, ValueError, RecursionError):
            return []


def _docstrings(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        docstring = ast.get_docstring(node)
        if docstring:
            yield docstring
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.ExceptHandler):  # expressions hold no docstrings
            yield from _docstrings(child)


def sentences(docstring: str) -> Iterator[str]:
    """The lines a docstring makes, spaces between words and signs; those without a word are left out."""
    for paragraph in _PARAGRAPH_END.split(docstring):
        lines = paragraph.split("\n")
        if not any(line.lstrip().startswith(DOCTEST) for line in lines):
            lines = _SENTENCE_END.split(" ".join(lines))
        for line in lines:
            words = split_words(line)
            if any(word[0].isalpha() for word in words):
                yield " ".join(words)


def split_words(line: str) -> list[str]:
    """Words, `N` for numbers, and signs (of a repeated one at most three), in lower case.

    >>> split_words("It doesn't take 3.5 MB -----")
    ['it', 'does', "n't", 'take', 'N', 'mb', '---']
    """
    words = []
    for match in _WORDS.finditer(line.lower()):
        word = match.group()
        words.append("N" if match["number"] else word[:3] if match["sign"] else word)
    return words


def share_out(modules: dict[str, list[str]]) -> dict[str, str]:
    """Whole modules to splits, in their order, each to the one that lags most behind its share of words.

    Since nearly all of a large module would be train's share, only small ones are held out: many voices, not one.
    """
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    held = dict.fromkeys(SPLITS, 0)
    passed = 0
    for lines in modules.values():
        size = sum(line.count(" ") + 2 for line in lines)  # words, and the end of the line
        passed += size
        lags = {split: SHARES[split] * passed - held[split] for split in SPLITS}
        split = max(SPLITS, key=lags.__getitem__)
        splits[split].extend(lines)
        held[split] += size
    return {split: "".join(f"{line}\n" for line in lines) for split, lines in splits.items()}
