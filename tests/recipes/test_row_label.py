from __future__ import annotations

from typing import Any

import pytest

from dopant.recipes.read import recipe_from
from dopant.recipes.row_label import Usual, label
from dopant.recipes.schema import StorageSettings


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"method": "kronecker"}, "Kronecker alone"),
        ({"method": "kronecker", "joint": False}, "Kronecker alone, x and h apart"),
        (
            {"method": "kronecker", "joint": False, "structure": {"per_gate": True}},
            "Kronecker alone, x and h apart, gate by gate",
        ),
        ({"structure": {"per_bank": 4}}, "Doped Kronecker, 4 non-zeros in a bank"),
        ({"structure": {"terms": 2, "base_share": 0.3}}, "Doped Kronecker, 2 terms, 30% for the structure"),
        ({"method": "doped-hmd", "structure": {"rank": 2}}, "Doped hybrid, rank 2"),
        ({"method": "doped-hmd", "structure": {"dense_rows": 9}}, "Doped hybrid, 9 dense rows a gate"),
        ({"structure": {"shapes": [[64, 4], [8, 32]]}}, "Doped Kronecker, 64×4 ⊗ 8×32"),
        ({"method": "hmf"}, "Hybrid, x and h apart (HMF)"),
        ({"method": "hmd", "structure": {"per_gate": False}}, "Hybrid (HMD), all gates as one"),
        ({"method": "hmf", "joint": True}, "Hybrid, x and h apart (HMF), x and h together"),
        (
            {"method": "doped-kronecker", "training": {"co_matrix_dropout": {"rate": 0.1, "begin": 0.05, "end": 0.2}}},
            "Doped Kronecker, co-matrix dropout 0.1 from 5% to 20%",
        ),
        ({"start": "dense", "target": "2x"}, "Doped Kronecker, fit to dense"),
        ({"method": "dense", "start": "dense"}, "Dense, trained on"),
        (
            {"method": "lmf", "training": {"distillation": {"weight": 0.25, "temperature": 2.0}}},
            "Low rank (LMF), distilled 0.25 at temperature 2",
        ),
        ({"training": {"distillation": {"weight": 1.0}}}, "Doped Kronecker, distilled 1"),
        ({"training": {"sparsify": {"allocation": "global"}}}, "Doped Kronecker, pruned globally"),
        ({"method": "lmf", "training": {"sparsify": {"allocation": "global"}}}, "Low rank (LMF)"),
        ({"model": {"size": "medium"}}, "Doped Kronecker"),
        ({"training": {"average_from": 0.4}, "start": "dense"}, "Doped Kronecker, averaged, fit to dense"),
        ({"method": "dense", "training": {"co_matrix_dropout": {"rate": 0.1}}}, "Dense"),
        ({"method": "lmf", "training": {"co_matrix_dropout": {"rate": 0.1}}}, "Low rank (LMF), row dropout 0.1"),
        ({"method": "lmf", "training": {"co_matrix_dropout": {"rate": 0.1, "path": "whole"}}}, "Low rank (LMF)"),
        (
            {"training": {"co_matrix_dropout": {"rate": 0.1, "path": "overlay"}}},
            "Doped Kronecker, co-matrix dropout 0.1 of overlay",
        ),
        (
            {"method": "pruning", "structure": {"kind": "low_rank", "rank": 2}},
            "Magnitude pruning as given: low_rank",
        ),
        (
            {
                "structure": {
                    "kind": "doped",
                    "base": {"kind": "low_rank", "rank": 2},
                    "overlay": {"kind": "sparse", "nonzeros": 9},
                }
            },
            "Doped Kronecker as given: doped (low_rank, sparse)",
        ),
        ({"model": {"size": "medium", "dropout": 0.35}}, "Doped Kronecker, dropout 0.35"),
    ],
)
def test_a_label_tells_rows_of_one_method_apart(changes: dict[str, Any], expected: str) -> None:
    model = {"joint": changes.pop("joint", None), **changes.pop("model", {})}
    assert label(recipe_from({**changes, "model": model})) == expected


@pytest.mark.parametrize(("method", "tells"), [("doped-lmf", True), ("pruning", True), ("lmf", False)])
def test_a_label_tells_of_an_unusual_end_of_pruning(method: str, tells: bool) -> None:
    recipe = recipe_from({"method": method, "training": {"sparsify": {"end": 0.6}}})
    assert label(recipe) == label(recipe, Usual(end=0.6))
    assert label(recipe, Usual(end=0.5)) == label(recipe) + ", pruned until 60%" * tells
    globally = recipe_from({"method": method, "training": {"sparsify": {"end": 0.6, "allocation": "global"}}})
    assert label(globally, Usual(end=0.5)) == label(recipe) + ", pruned globally until 60%" * tells


@pytest.mark.parametrize(("method", "told"), [("lmf", ", as int8"), ("pruning", ", as int8 and gaps"), ("dense", "")])
def test_a_label_tells_of_an_unusual_storage(method: str, told: str) -> None:
    usual = Usual(storage=StorageSettings())
    recipe = recipe_from({"method": method, "storage": {"values": "int8", "indices": "gaps"}})
    assert label(recipe) == label(recipe, Usual(storage=recipe.storage))
    assert label(recipe, usual) == label(recipe) + told
    others = StorageSettings(values="int8", indices="gaps", others="int4")
    assert label(recipe, Usual(storage=others)) == label(recipe) + ", all else as it was" * bool(told)
    for scope, more in (("lstm", ", all else as int4"), ("model", "")):
        recipe = recipe_from({"method": method, "scope": scope, "storage": others.model_dump()})
        assert label(recipe, usual) == label(recipe) + told + more * bool(told)
