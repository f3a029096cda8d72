from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dopant.errors import FileError, KindError
from dopant.structures import Dense, Doped, Kronecker, LowRank, Sparse, Stacked, Structure, describe, structure_from

whole = st.integers(1, 2**40)
leaves: st.SearchStrategy[Structure] = st.one_of(
    st.just(Dense()),
    st.builds(Sparse, st.integers(0, 2**40), st.integers(0, 9)),
    st.builds(LowRank, whole),
    st.builds(Kronecker, st.lists(st.tuples(whole, whole), min_size=2, max_size=4).map(tuple), whole),
)


def compositions(inner: st.SearchStrategy[Structure]) -> st.SearchStrategy[Structure]:
    stacked = st.lists(st.tuples(inner, whole), min_size=1, max_size=3).map(
        lambda parts: Stacked(tuple(p for p, _ in parts), tuple(r for _, r in parts))
    )
    return st.one_of(stacked, st.builds(Doped, inner, st.builds(Sparse, st.integers(0, 99))))


structures = st.recursive(leaves, compositions, max_leaves=6)


@settings(max_examples=150, deadline=None)
@given(structures)
def test_every_structure_survives_json(structure: Structure) -> None:
    assert structure_from(json.loads(json.dumps(describe(structure)))) == structure


def test_the_words_of_the_file() -> None:
    structure = Doped(Kronecker(((52, 26), (50, 50))), Sparse(7))
    assert describe(structure) == {
        "kind": "doped",
        "base": {"kind": "kronecker", "shapes": [[52, 26], [50, 50]], "terms": 1},
        "overlay": {"kind": "sparse", "nonzeros": 7},
    }
    assert describe(Sparse(7, per_bank=4)) == {"kind": "sparse", "nonzeros": 7, "per_bank": 4}


def test_an_unknown_kind_says_which_are_known() -> None:
    with pytest.raises(KindError, match=r"structure kind 'butterfly' is unknown; known are .*dense.*low_rank"):
        structure_from({"kind": "butterfly"})
    with pytest.raises(KindError):
        structure_from({"kind": "doped", "base": {"kind": "os.system"}, "overlay": {"kind": "sparse", "nonzeros": 1}})


def deep(levels: int) -> dict[str, Any]:
    data: dict[str, Any] = {"kind": "dense"}
    for _ in range(levels):
        data = {"kind": "stacked", "parts": [data], "rows": [1]}
    return data


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "dense",
        {},
        {"kind": 3},
        {"kind": ["dense"]},
        {"kind": "low_rank"},
        {"kind": "low_rank", "rank": 3, "extra": 1},
        {"kind": "low_rank", "rank": 0},
        {"kind": "low_rank", "rank": -1},
        {"kind": "low_rank", "rank": 2.0},
        {"kind": "low_rank", "rank": "2"},
        {"kind": "low_rank", "rank": True},
        {"kind": "low_rank", "rank": None},
        {"kind": "low_rank", "rank": [2]},
        {"kind": "low_rank", "rank": {"kind": "dense"}},
        {"kind": "low_rank", "rank": 2**60},
        {"kind": "sparse", "nonzeros": -1},
        {"kind": "kronecker", "shapes": [[2, 2]]},
        {"kind": "kronecker", "shapes": [[2, 2], [2]]},
        {"kind": "kronecker", "shapes": [[2, 2], 2]},
        {"kind": "kronecker", "shapes": 5},
        {"kind": "kronecker", "shapes": [[2, 2], [2, 0]]},
        {"kind": "kronecker", "shapes": [[2, 2], [2, 2]], "terms": 0},
        {"kind": "kronecker", "shapes": {"kind": "dense"}},
        {"kind": "stacked", "parts": [], "rows": []},
        {"kind": "stacked", "parts": [{"kind": "dense"}], "rows": [1, 2]},
        {"kind": "stacked", "parts": [3], "rows": [1]},
        {"kind": "stacked", "parts": {"kind": "dense"}, "rows": [1]},
        {"kind": "stacked", "parts": [{"kind": "dense"}], "rows": 1},
        {"kind": "stacked", "parts": [{"kind": "dense"}], "rows": [[1]]},
        {"kind": "doped", "base": {"kind": "dense"}, "overlay": {"kind": "dense"}},
        {"kind": "doped", "base": 1, "overlay": {"kind": "sparse", "nonzeros": 1}},
        deep(100),
        {"kind": "kronecker", "shapes": json.loads("[" * 100 + "]" * 100)},
    ],
)
def test_nonsense_is_refused(data: Any) -> None:
    with pytest.raises(FileError):
        structure_from(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.sampled_from(["dense", "sparse", "kind", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["kind", "rank", "nonzeros", "parts", "rows", "base"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(json_values, st.sampled_from(["dense", "sparse", "low_rank", "kronecker", "stacked", "doped"]))
def test_anything_else_is_a_structure_or_our_error(data: Any, kind: str) -> None:
    for candidate in (data, {**data, "kind": kind} if isinstance(data, dict) else data):
        try:
            structure = structure_from(candidate)
        except FileError:
            continue
        assert structure_from(describe(structure)) == structure
