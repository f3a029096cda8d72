from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from dopant.cost import Cost, Storage
from dopant.errors import PlanError
from dopant.models import LanguageModel, LanguageModelConfig
from dopant.plan import METHODS, Options, Place, Plan, Rule, Target, make_plan, places
from dopant.structures import Dense, Doped, Kronecker, LowRank, Sparse

MEDIUM = [
    Place("embedding.weight", (10_000, 650)),
    Place("lstm.weight_l0", (2600, 1300), 4, lstm=True, joint=True),
    Place("lstm.weight_l1", (2600, 1300), 4, lstm=True, joint=True),
    Place("decoder.weight", (10_000, 650)),
]


def apart(found: list[Place]) -> list[Place]:
    """The same LSTM with the input and recurrent matrices apart."""
    split: list[Place] = []
    for place in found:
        rows, columns = place.shape
        names = [place.name]
        if place.joint:
            columns //= 2
            names = [place.name.replace("weight", part) for part in ("weight_ih", "weight_hh")]
        split += [Place(name, (rows, columns), place.gates, place.lstm) for name in names]
    return split


@pytest.fixture
def model() -> LanguageModel:
    return LanguageModel(LanguageModelConfig(vocabulary=60, hidden=32, layers=2))


def test_a_plan_looks_and_changes_nothing(model: LanguageModel) -> None:
    before = copy.deepcopy(model.state_dict())
    plan = make_plan(model, target="5x")
    assert [weight.name for weight in plan.weights] == [place.name for place in places(model)]
    assert plan.method == "doped-kronecker"
    assert plan.target == Target(factor=5.0, count="bytes", scope="lstm")
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_weights_outside_the_scope_stay_as_they_are(model: LanguageModel) -> None:
    plan = make_plan(model, method="lmf", target=4)
    kept = {w.name: w for w in plan.weights if w.method is None}
    assert set(kept) == {"embedding.weight", "decoder.weight"}
    assert all(w.structure == Dense() and w.cost == w.dense for w in kept.values())
    assert plan.scope().weights == 2
    assert plan.total().weights == 4
    assert plan.scope().byte_factor >= 4 > plan.total().byte_factor > 1


@pytest.mark.parametrize("method", [name for name in METHODS if name != "dense"])
@pytest.mark.parametrize("count", ["parameters", "bytes"])
@pytest.mark.parametrize("scope", ["lstm", "model", "re:.*weight.*_l1"])
def test_every_method_meets_the_target_closely(method: str, count: Any, scope: str) -> None:
    found = MEDIUM if METHODS[method].joint else apart(MEDIUM)
    plan = make_plan(found, method=method, target="25x", count=count, scope=scope, storage=Storage("float16", "rice"))
    total = plan.scope()
    factor = total.parameter_factor if count == "parameters" else total.byte_factor
    assert factor >= 25
    assert factor < 27 or method == "kronecker"  # whose sizes are few
    assert {w.method for w in plan.weights} == ({method} if scope == "model" else {method, None})


def test_dense_ignores_the_target(model: LanguageModel) -> None:
    plan = make_plan(model, method="dense", target="25x")
    assert plan.target is None
    assert plan.scope().parameter_factor == 1.0


def test_a_target_in_bytes_is_for_the_scope_together() -> None:
    plan = make_plan(MEDIUM, method="pruning", target="1MB", storage=Storage("int8", "gaps"))
    assert 995_000 < plan.scope().cost.stored_bytes <= 1_000_000
    for given in ("1MB", 1_000_000):
        assert make_plan(MEDIUM, method="pruning", target_bytes=given, storage=Storage("int8", "gaps")) == plan
    whole = make_plan(MEDIUM, method="pruning", target_bytes="9MB", scope="model")
    assert whole.target == Target(bytes=9_000_000, scope="model")


def test_rules_mix_methods_and_the_total_still_meets_the_target() -> None:
    plan = make_plan(
        MEDIUM,
        method="doped-kronecker",
        target="10x",
        count="parameters",
        scope="model",
        structure={"shapes": [[52, 26], [50, 50]]},
        targets=[Rule("decoder.weight", "lmf"), "re:lstm.*", Rule("re:.*", structure={"kind": "low_rank", "rank": 8})],
    )
    by_name = {w.name: w for w in plan.weights}
    assert isinstance(by_name["decoder.weight"].structure, LowRank)
    assert by_name["decoder.weight"].method == "lmf"
    assert by_name["embedding.weight"].structure == LowRank(8)
    doped = by_name["lstm.weight_l0"].structure
    assert isinstance(doped, Doped)
    assert doped.base == Kronecker(((52, 26), (50, 50)))
    assert plan.scope().parameter_factor >= 10
    assert plan.matches == (("decoder.weight", 1), ("re:lstm.*", 2), ("re:.*", 1))


def test_ignored_weights_leave_the_scope() -> None:
    plan = make_plan(MEDIUM, target="25x", scope="model", ignore=["re:(embedding|decoder).*"])
    assert plan.scope().weights == 2
    assert plan.scope().byte_factor == pytest.approx(25, rel=1e-3)


def test_hmf_needs_the_matrices_apart(model: LanguageModel) -> None:
    with pytest.raises(PlanError, match=r"'lstm.weight_l0' is both in one; build the LSTM with joint=False"):
        make_plan(model, method="hmf", target="5x")
    split = LanguageModel(LanguageModelConfig(vocabulary=60, hidden=32, layers=2, joint=False))
    assert make_plan(split, method="hmf", target="5x").scope().weights == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "doped-kroneker", "target": 5}, "did you mean 'doped-kronecker'"),
        ({"method": "xyz", "target": 5}, "choose one of dense, pruning"),
        ({"method": "lmf"}, "needs a target"),
        ({"method": "lmf", "target": "10000x"}, r"closest possible target is 866.66x"),
        ({"method": "lmf", "target": "100B"}, "closest possible target is 31,200 bytes"),
        ({"method": "lmf", "target_bytes": 0}, "0 is less than one byte"),
        ({"method": "lmf", "target": 5, "target_bytes": 9}, "target 5 is given too; give one of target and target_by"),
        ({"method": "lmf", "target": 5, "scope": "re:gru.*"}, "'re:gru.*' matches no weight"),
        ({"method": "lmf", "target": 5, "targets": ["decoder.weight"]}, "outside the scope"),
        ({"method": "lmf", "target": 5, "structure": {"shapes": [[2, 2], [2, 2]]}}, "'lmf' has no use for 'shapes'"),
        ({"method": "lmf", "target": 5, "structure": {"rnk": 3}}, "did you mean 'rank'"),
        ({"method": "lmf", "target": 5, "structure": {"rank": 2000}}, r"lstm.weight_l0: .*2000"),
        ({"method": "hmd", "target": 5, "structure": {"rank": 700}}, r"lstm.weight_l0: .*700 is more than .*650×1300"),
        ({"method": "lmf", "target": 5, "structure": {"rank": 1000}}, "cannot be met"),
        ({"method": "lmf", "target": 5, "structure": {"kind": "lowrank"}}, "'lowrank' is unknown"),
        ({"method": "lmf", "target": 5, "structure": {"kind": "low_rank"}}, "needs rank"),
        ({"method": "lmf", "target": 5, "structure": 3}, "a structure is a mapping"),
        ({"target": 5, "structure": {"shapes": [[52, 26]]}}, "two or more pairs"),
        ({"target": 5, "structure": {"shapes": [[52, 26], [51, 50]]}}, r"lstm.weight_l0: .*2652×1300"),
        ({"target": 5, "structure": {"base_share": 1.0}}, "above 0 and below 1"),
        ({"target": 5, "structure": {"per_bank": 0}}, "per_bank is a whole number, 1 or more; got 0"),
        ({"target": 5, "structure": {"per_bank": 257}}, "per_bank is at most 256; got 257"),
        ({"target": 5, "targets": []}, "leave none over"),
        ({"target": 5, "ignore": ["re:lstm.*"]}, "leave none over"),
    ],
)
def test_what_cannot_be_planned(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        make_plan(MEDIUM, **arguments)


@pytest.mark.parametrize("pattern", ["decoder.weight", "re:decoder.*"])
def test_the_other_name_of_a_tied_weight_is_told(pattern: str) -> None:
    tied = LanguageModel(LanguageModelConfig(vocabulary=60, hidden=32, layers=2, tied=True))
    with pytest.raises(PlanError, match=r"'decoder.weight', which is tied to 'embedding.weight'; name that one"):
        make_plan(tied, method="lmf", target=5, scope="model", targets=[pattern])


def test_the_closest_possible_target_is_possible() -> None:
    for method in METHODS:
        if method == "dense":
            continue
        found = MEDIUM if METHODS[method].joint else apart(MEDIUM)
        with pytest.raises(PlanError, match="cannot be met") as error:
            make_plan(found, method=method, target="1000000x")
        make_plan(found, method=method, target=str(error.value).rpartition(" ")[2])


def test_models_without_weights_of_ours() -> None:
    with pytest.raises(PlanError, match=r"dopant.convert\(model\)"):
        make_plan(torch.nn.Linear(3, 3), target=5)
    with pytest.raises(PlanError, match="no LSTM weights; choose scope model"):
        make_plan([Place("w", (8, 8))], target=2)


def test_the_fingerprint_tells_plans_apart() -> None:
    plans = [make_plan(MEDIUM, method=m, target=t) for m in ("pruning", "lmf") for t in (10, 25)]
    plans.append(make_plan(MEDIUM, method="lmf", target=25, storage=Storage("float16")))
    assert len({plan.fingerprint for plan in plans}) == len(plans)
    whole, real = (make_plan(MEDIUM, target=Target(factor=factor)) for factor in (4, 4.0))
    assert whole.fingerprint == real.fingerprint
    assert all(len(plan.fingerprint) == 64 for plan in plans)


def test_a_record_has_numbers_and_words() -> None:
    record = make_plan(MEDIUM, target="25x", count="parameters").rows()[1]
    assert record["structure"] == "52×26 ⊗ 50×50 + 131,348 non-zeros (96.11 % zero)"
    assert (record["shape"], record["parameters"], record["dense_parameters"]) == ("2600×1300", 135_200, 3_380_000)
    assert record["macs"] == 131_348 + 132_600


def test_a_structure_without_a_target_is_only_priced() -> None:
    plan = make_plan(MEDIUM, method="lmf", structure=Options(rank=10))
    assert plan.target is None
    assert plan.scope().cost == Cost(78_000, 78_000, 312_000)
    plan = make_plan(MEDIUM, method="pruning", structure=Sparse(100))
    assert isinstance(plan, Plan)
    assert plan.scope().cost.parameters == 200


def test_dense_stays_dense() -> None:
    with pytest.raises(PlanError, match="'dense' keeps weights dense, and the structure given is low_rank"):
        make_plan(MEDIUM, method="dense", structure={"kind": "low_rank", "rank": 2})
