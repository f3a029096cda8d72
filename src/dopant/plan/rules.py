"""Which weights are meant: exact names and `re:` patterns, first match wins, no pattern without a match."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dopant.errors import PlanError, did_you_mean

PREFIX = "re:"


@dataclass(frozen=True)
class Matches:
    """What patterns found among the names of a model's weights.

    Args:
        chosen: name -> position in `targets` of the pattern that won it, in the order of the names; with no
            `targets` every name that is not ignored, at position -1.
        counts: (pattern, how many names it decided), targets before ignores.
    """

    chosen: dict[str, int]
    counts: tuple[tuple[str, int], ...]


def check_pattern(pattern: str) -> None:
    """Raise PlanError if `pattern` is empty or its regular expression is not one."""
    _compile(pattern)


def matches(pattern: str, name: str) -> bool:
    """Whether `pattern` means `name`: the exact name, or `re:` and an expression for the whole of it."""
    expression = _compile(pattern)
    return pattern == name if expression is None else expression.fullmatch(name) is not None


def match(
    names: Sequence[str],
    targets: Sequence[str] | None = None,
    ignore: Sequence[str] = (),
    *,
    outside: Sequence[str] = (),
    tied: Mapping[str, str] | None = None,
) -> Matches:
    """Divide `names` among the patterns of `targets`, less those that `ignore` means.

    A pattern is an exact name, or `re:` followed by a regular expression that has to match the whole name
    (`re:lstm` does not mean `lstm.weight_l0`; `re:lstm.*` does). Of several targets the first that matches wins;
    `ignore` goes before all of them.

    Args:
        names: the names on offer, in the order of the model.
        targets: None for every name.
        ignore: patterns of names to leave alone.
        outside: names the model has but that are not on offer; they only make messages better.
        tied: further names of weights -> the name that counts; likewise.

    Raises:
        PlanError: a pattern is malformed, or decides nothing: it matches no name, or others took all it matches.
    """
    ignored: dict[str, int] = {}
    chosen: dict[str, int] = {}
    for name in names:
        dropped = _first(ignore, name)
        if dropped is not None:
            ignored[name] = dropped
            continue
        won = -1 if targets is None else _first(targets, name)
        if won is not None:
            chosen[name] = won
    counts: list[tuple[str, int]] = []
    for patterns, decided in ((targets or (), chosen), (ignore, ignored)):
        for position, pattern in enumerate(patterns):
            count = sum(won == position for won in decided.values())
            if count == 0:
                raise PlanError(_no_match(pattern, names, outside, tied or {}))
            counts.append((pattern, count))
    return Matches(chosen, tuple(counts))


def _first(patterns: Sequence[str], name: str) -> int | None:
    return next((i for i, pattern in enumerate(patterns) if matches(pattern, name)), None)


def _compile(pattern: str) -> re.Pattern[str] | None:
    """The expression of a `re:` pattern, None for an exact name."""
    if not isinstance(pattern, str) or pattern in ("", PREFIX):
        raise PlanError(f"a pattern is a weight's name or 're:' and a regular expression; got {pattern!r}")
    if not pattern.startswith(PREFIX):
        return None
    try:
        return re.compile(pattern.removeprefix(PREFIX))
    except (re.error, RecursionError, OverflowError) as error:
        raise PlanError(f"pattern {pattern!r} is no regular expression: {error}") from None


def _no_match(pattern: str, names: Sequence[str], outside: Sequence[str], tied: Mapping[str, str]) -> str:
    taken = [name for name in names if matches(pattern, name)]
    if taken:
        return (
            f"pattern {pattern!r} decides nothing: {_listed(taken)} went to an earlier pattern or to ignore; "
            f"move it up or take it out"
        )
    elsewhere = [name for name in outside if matches(pattern, name)]
    if elsewhere:
        return f"pattern {pattern!r} matches only {_listed(elsewhere)}, outside the scope; widen the scope"
    alias = next((alias for alias in tied if matches(pattern, alias)), None)
    if alias is not None:
        return f"pattern {pattern!r} matches {alias!r}, which is tied to {tied[alias]!r}; name that one, it means both"
    text = f"pattern {pattern!r} matches no weight"
    expression = _compile(pattern)
    if expression is not None:
        near = [name for name in names if expression.search(name)]
        if near:
            part = pattern.removeprefix(PREFIX)
            return f"{text}: an expression has to match the whole name; 're:.*{part}.*' would mean {_listed(near)}"
    else:
        inside = any(pattern in name for name in names)
        wider = f"did you mean {f're:.*{re.escape(pattern)}.*'!r}?" if inside else ""
        if way_out := did_you_mean(pattern, [*names, *outside], wider, cutoff=0.5):
            return f"{text}; {way_out}"
    return f"{text}; the weights are {_listed(names)}" if names else f"{text}; there are no weights to match"


def _listed(names: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
