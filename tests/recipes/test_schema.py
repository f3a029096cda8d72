from __future__ import annotations

import pytest

from dopant.cost import Storage
from dopant.errors import RecipeError
from dopant.models import SIZES, LanguageModel, LanguageModelConfig
from dopant.plan import Target, make_plan
from dopant.recipes.read import recipe_from
from dopant.structures import Doped, Kronecker, LowRank


@pytest.mark.parametrize("size", list(SIZES))
def test_a_size_brings_its_model_and_schedule_and_what_is_given_stands_above(size: str) -> None:
    recipe = recipe_from({"model": size})
    for section, fields in ((recipe.model, SIZES[size].model), (recipe.training, SIZES[size].training)):
        assert {name: getattr(section, name) for name in fields} == fields
    changed = recipe_from({"model": {"size": size, "hidden": 7}, "training": {"epochs": 2}})
    assert changed.model.hidden == 7
    assert changed.model.layers == recipe.model.layers
    assert changed.training.epochs == 2
    assert changed.training.decay == recipe.training.decay


@pytest.mark.parametrize(
    ("data", "target"),
    [
        ({}, Target(25.0)),
        ({"target": 10, "count": "parameters", "scope": "model"}, Target(10.0, count="parameters", scope="model")),
        ({"target": "1.2MB", "scope": "re:.*"}, Target(bytes=1_200_000, scope="re:.*")),
        ({"target_bytes": "800kB"}, Target(bytes=800_000)),
        ({"target_bytes": 5}, Target(bytes=5)),
    ],
)
def test_targets(data: dict[str, object], target: Target) -> None:
    assert recipe_from(data).plan_target() == target


@pytest.mark.parametrize(
    "where",
    [
        {"structure": {"per_bank": 4}},
        {"targets": [{"pattern": "re:.*", "structure": {"per_bank": 4}}]},
        {
            "structure": {
                "kind": "doped",
                "base": {"kind": "low_rank", "rank": 2},
                "overlay": {"kind": "sparse", "nonzeros": 9, "per_bank": 4},
            }
        },
    ],
)
def test_banks_have_their_numbers_from_the_plan(where: dict[str, object]) -> None:
    recipe_from(where)
    with pytest.raises(RecipeError, match="per_bank spreads as many"):
        recipe_from({**where, "training": {"sparsify": {"allocation": "global"}}})


def test_the_layout_of_the_lstm_follows_the_methods_unless_given() -> None:
    assert recipe_from({"method": "lmf"}).joint
    assert not recipe_from({"method": "hmf"}).joint
    assert not recipe_from({"targets": [{"pattern": "re:.*l1", "method": "hmf"}, "re:.*"]}).joint
    assert not recipe_from({"model": {"joint": False}}).joint
    assert recipe_from({"method": "hmf"}).config(50) == LanguageModelConfig(50, joint=False)


def test_a_recipe_says_all_that_a_plan_needs() -> None:
    recipe = recipe_from(
        {
            "model": {"hidden": 16},
            "target": "3x",
            "count": "parameters",
            "scope": "model",
            "storage": {"values": "int8", "indices": "rice"},
            "structure": {"shapes": [[8, 4], [8, 8]]},
            "targets": ["re:lstm.*", {"pattern": "decoder.weight", "structure": {"kind": "low_rank", "rank": 3}}],
        }
    )
    plan = make_plan(LanguageModel(recipe.config(40)), **recipe.plan_arguments())
    structures = {weight.name: weight.structure for weight in plan.weights if weight.method}
    assert structures.keys() == {"lstm.weight_l0", "lstm.weight_l1", "decoder.weight"}
    assert structures["decoder.weight"] == LowRank(3)
    doped = structures["lstm.weight_l0"]
    assert isinstance(doped, Doped)
    assert doped.base == Kronecker(((8, 4), (8, 8)))
    assert plan.storage == Storage("int8", "rice")
    assert plan.scope().parameter_factor >= 3
