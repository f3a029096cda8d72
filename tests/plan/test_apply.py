from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from dopant.cost import FLOAT32, Storage
from dopant.errors import PlanError
from dopant.layers import convert, slots
from dopant.models import LanguageModel, LanguageModelConfig
from dopant.plan import METHODS, apply_plan, make_plan
from dopant.plan.table import plan_table
from dopant.structures import Dense, Doped, LowRank, LowRankWeight


def language_model(**changes: Any) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(LanguageModelConfig(**{"vocabulary": 60, "hidden": 32, "layers": 2, **changes}))


@pytest.mark.parametrize("start", ["new", "fit"])
@pytest.mark.parametrize("method", list(METHODS))
def test_the_model_becomes_what_the_plan_says(method: str, start: Any) -> None:
    model = language_model(joint=METHODS[method].joint)
    plan = make_plan(model, method=method, target="4x", scope="model", count="parameters")
    apply_plan(model, plan, start, torch.Generator().manual_seed(1))
    again = make_plan(model, method="dense", scope="re:.*", ignore=["re:.*_l1"])
    now = {weight.name: weight.structure for weight in again.weights if weight.method is None}
    assert now
    for weight in plan.weights:
        assert now.get(weight.name, weight.structure) == weight.structure
    logits, _ = model(torch.zeros(3, 2, dtype=torch.int64))
    assert logits.isfinite().all()


def test_new_weights_keep_the_models_own_range() -> None:
    for init in (0.02, 0.3):
        model = language_model(init=init, hidden=64)
        plan = make_plan(model, method="doped-lmf", target="4x", count="parameters")
        apply_plan(model, plan, "new", torch.Generator().manual_seed(0))
        weight = model.lstm.weight_l0
        assert isinstance(weight.structure, Doped)
        assert float(weight.to_dense().detach().std()) == pytest.approx(init / 3**0.5, rel=0.15)


def test_fitting_finds_a_matrix_of_the_planned_rank() -> None:
    model = language_model()
    low = LowRank(2).new((128, 64)).to_dense().detach()
    model.lstm.weight_l1 = Dense().fit(low)
    apply_plan(model, make_plan(model, method="lmf", structure={"rank": 2}), "fit")
    weight = model.lstm.weight_l1
    assert isinstance(weight, LowRankWeight)
    torch.testing.assert_close(weight.to_dense(), low, rtol=1e-4, atol=1e-5)


def test_the_generator_decides_and_what_is_left_alone_stays_the_same_object() -> None:
    results = []
    for seed in (1, 1, 2):
        model = language_model()
        decoder = model.decoder.weight
        apply_plan(model, make_plan(model, target="4x"), "new", torch.Generator().manual_seed(seed))
        assert model.decoder.weight is decoder
        results.append(model.lstm.weight_l0.to_dense())
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_applying_twice_changes_nothing_more() -> None:
    model = language_model()
    plan = make_plan(model, target="4x")
    apply_plan(model, plan)
    first = model.lstm.weight_l0
    apply_plan(model, plan)
    assert model.lstm.weight_l0 is first


def test_type_and_mode_follow_the_weight_that_was_there() -> None:
    model = language_model().to(torch.bfloat16).eval()
    for start in ("new", "fit"):
        changed = copy.deepcopy(model)
        apply_plan(changed, make_plan(model, target="4x"), start)  # type: ignore[arg-type]
        assert {p.dtype for p in changed.parameters()} == {torch.bfloat16}
        assert not changed.lstm.weight_l0.training


def test_tied_weights_stay_tied() -> None:
    model = language_model(tied=True)
    apply_plan(model, make_plan(model, method="lmf", target="2x", scope="model"))
    assert isinstance(model.embedding.weight.structure, LowRank)
    assert model.decoder.weight is model.embedding.weight


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"layers": 1}, r"'lstm.weight_l1' is planned, but the model has no such weight"),
        ({"layers": 3}, r"the model's 'lstm.weight_l2' is not in the plan"),
        ({"vocabulary": 61}, r"'embedding.weight' is 61×32 in the model and 60×32 in the plan"),
    ],
)
def test_a_plan_for_another_model_is_refused_and_nothing_changes(other: dict[str, Any], message: str) -> None:
    plan = make_plan(language_model(), target="4x")
    model = language_model(**other)
    with pytest.raises(PlanError, match=message):
        apply_plan(model, plan)
    assert all(weight.structure == Dense() for weight in make_plan(model, method="dense").weights)
    with pytest.raises(PlanError, match="choose new or fit"):
        apply_plan(language_model(), plan, "random")  # type: ignore[arg-type]


def test_weights_remember_how_the_last_plan_wants_them_written() -> None:
    model = language_model()
    assert model.lstm.weight_l0.storage == FLOAT32
    for values in ("int8", "float16"):
        plan = make_plan(model, method="lmf", structure={"rank": 2}, storage=Storage(values))
        apply_plan(model, plan, "fit")
        for found in (model, copy.deepcopy(model)):
            assert {slot.name: slot.weight.storage for slot in slots(found)} == plan.storages()
    assert model.decoder.weight.storage == FLOAT32
    assert model.lstm.weight_l0.storage == Storage("float16")


def test_weights_that_a_plan_leaves_alone_are_written_and_priced_as_before() -> None:
    model = language_model()
    plan = make_plan(model, method="lmf", target="3x", storage=Storage("int8"))
    apply_plan(model, plan, "fit")
    later = make_plan(model, method="lmf", target="3x", targets=["decoder.weight"], scope="model")
    apply_plan(model, later, "fit")
    assert model.lstm.weight_l0.storage == Storage("int8")
    assert model.decoder.weight.storage == FLOAT32
    assert later.weights[1] == dataclasses.replace(plan.weights[1], method=None)


def test_weights_that_a_plan_leaves_alone_may_be_written_in_another_type() -> None:
    model = language_model()
    plan = make_plan(model, method="lmf", target="3x", storage=Storage("int4", "rice"), others="int8")
    apply_plan(model, plan, "fit")
    assert model.decoder.weight.storage == Storage("int8")
    assert model.lstm.weight_l0.storage == Storage("int4", "rice")
    decoder = plan.weights[-1]
    assert (decoder.method, decoder.cost) == (None, model.decoder.weight.cost(Storage("int8")))
    assert "stored as int4 values, rice indices, all else int8; target" in plan_table(plan)
    assert plan.to_dict()["storage"] == {"values": "int4", "indices": "rice", "others": "int8"}
    assert make_plan(model, method="dense", others="int8").storages() == {
        slot.name: FLOAT32 if "lstm" in slot.name else slot.weight.storage for slot in slots(model)
    }


@pytest.mark.parametrize("start", ["new", "fit"])
def test_what_was_frozen_stays_frozen(start: Any) -> None:
    model = language_model()
    model.embedding.requires_grad_(False)
    apply_plan(model, make_plan(model, target="4x", scope="model", count="parameters"), start)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith("embedding")}


class Tied(nn.Module):
    """An embedding tied to a layer that may be of a kind that conversion leaves alone."""

    def __init__(self, head: type[nn.Linear]) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(64, 32), head(32, 64, bias=False)
        self.head.weight = self.words.weight


class Head(nn.Linear):
    """Of somebody else's."""


@pytest.mark.parametrize(("head", "ignore"), [(nn.Linear, ["head"]), (Head, [])])
def test_a_matrix_that_is_tied_to_a_layer_left_alone_is_not_untied(head: type[nn.Linear], ignore: list[str]) -> None:
    model = convert(Tied(head), ignore=ignore)
    plan = make_plan(model, target="4x", scope="model", count="parameters")
    with pytest.raises(PlanError, match=r"'words.weight' shares its matrix with 'head.weight'.*ignore="):
        apply_plan(model, plan)
    assert model.words.weight.matrix is model.head.weight
    apply_plan(model, make_plan(model, method="dense", scope="model"))  # changes nothing


def test_a_model_without_numbers_is_refused() -> None:
    with torch.device("meta"):
        model = language_model()
    with pytest.raises(PlanError, match=r"'lstm.weight_l0' is on the meta device.*CPU"):
        apply_plan(model, make_plan(model, target="4x"))
