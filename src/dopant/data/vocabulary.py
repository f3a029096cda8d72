"""What the tokenizers share: a vocabulary by frequency, its strict reading from JSON, and text in blocks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from dopant.errors import FileError, InputError

IdArray = np.ndarray[tuple[int], np.dtype[np.int64]]
"""Token ids, (tokens,) int64."""

UNKNOWN = "<unk>"
BLOCK = 1 << 20
"""Characters encoded at a time: a list of all the words of a large corpus would not fit into memory."""

LARGEST_VOCABULARY = 1 << 24

_WORD_END = re.compile(r"(?<=\S)\s")


def ranked_vocabulary(
    counts: Mapping[str, int], special: tuple[str, ...], size: int | None, minimum: int
) -> tuple[str, ...]:
    """The entries kept, most frequent first, ties by alphabet; always with `special`.

    Args:
        counts: occurrences in the training text.
        special: entries kept at any count; UNKNOWN is one of them and counts for all that are left out.
        size: the most entries in all, `special` included; None for no limit.
        minimum: the least count of an entry.

    Raises:
        InputError: size leaves no room for an entry beside the special ones, or minimum is below 1.
    """
    if minimum < 1:
        raise InputError(f"minimum count is {minimum}; at least 1 is needed")
    if size is not None and size <= len(special):
        raise InputError(
            f"vocabulary size is {size}; at least {len(special) + 1} are needed: {', '.join(special)} and one more"
        )
    ordinary = [entry for entry, count in counts.items() if count >= minimum and entry not in special]
    ordinary.sort(key=lambda entry: (-counts[entry], entry))
    if size is not None:
        del ordinary[size - len(special) :]
    kept = {entry: counts.get(entry, 0) for entry in (*ordinary, *special)}
    kept[UNKNOWN] += sum(counts.values()) - sum(kept.values())
    return tuple(sorted(kept, key=lambda entry: (-kept[entry], entry)))


def read_vocabulary(data: Mapping[str, Any], kind: str, special: tuple[str, ...]) -> tuple[str, ...]:
    """The vocabulary of `{"kind": kind, "vocabulary": [...]}`.

    Raises:
        FileError: a missing or surplus key, entries not text, empty or there twice, a `special` one missing.
    """
    check_keys(data, kind, {"kind", "vocabulary"})
    entries = data["vocabulary"]
    if not isinstance(entries, list) or not entries:
        raise FileError(f"{kind} tokenizer: its vocabulary must be a list of words, not {brief(entries)}")
    if len(entries) > LARGEST_VOCABULARY:
        raise FileError(f"{kind} tokenizer: {len(entries)} entries; at most {LARGEST_VOCABULARY} are read")
    seen: dict[str, int] = {}
    for index, entry in enumerate(entries):
        if not isinstance(entry, str) or not entry:
            raise FileError(f"{kind} tokenizer: entry {index} must be a text, not {brief(entry)}")
        if any("\ud800" <= character <= "\udfff" for character in entry):
            raise FileError(f"{kind} tokenizer: entry {index}, {brief(entry)}, is not valid Unicode")
        if entry in seen:
            raise FileError(f"{kind} tokenizer: {brief(entry)} is entry {seen[entry]} and again entry {index}")
        seen[entry] = index
    for entry in special:
        if entry not in seen:
            raise FileError(f"{kind} tokenizer: its vocabulary has no {entry}")
    return tuple(entries)


def check_keys(data: Mapping[str, Any], kind: str, needed: set[str]) -> None:
    """Raise FileError unless the keys are exactly those needed."""
    missing, surplus = needed - set(data), set(data) - needed
    if missing or surplus:
        said = [f"lacks {', '.join(sorted(missing))}"] if missing else []
        said += [f"has the unknown {', '.join(sorted(map(str, surplus)))}"] if surplus else []
        raise FileError(f"{kind} tokenizer {' and '.join(said)}; it needs exactly {', '.join(sorted(needed))}")


def brief(value: object) -> str:
    """A value for a message, cut to one short line."""
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def blocks(text: str, characters: int = BLOCK) -> Iterator[str]:
    """The text in pieces of about so many characters, cut where a word ends; together they are the text."""
    start = 0
    while start < len(text):
        end = _WORD_END.search(text, start + characters)
        stop = end.start() if end else len(text)
        yield text[start:stop]
        start = stop


def checked_ids(ids: Iterable[int], size: int) -> list[int]:
    """Ids as a list, each known to lie within the vocabulary.

    Raises:
        InputError: an id below 0 or from `size` on.
    """
    checked = [int(i) for i in ids]
    for position, i in enumerate(checked):
        if not 0 <= i < size:
            raise InputError(f"id {i} at position {position} is not in the vocabulary; ids go from 0 to {size - 1}")
    return checked
