from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dopant
from dopant.errors import InputError, PlanError, ResumeError, TrainingError
from dopant.layers import slots
from dopant.models import LanguageModel
from dopant.plan import METHODS
from dopant.plan.plan import Plan, Rule, make_plan
from dopant.structures import Doped, DopedWeight, SparseWeight
from dopant.training.loop import Run, train
from dopant.training.overlay import close_overlays, open_overlays
from dopant.training.recovery import Recovery
from dopant.training.settings import TrainSettings

UNROLL, BATCH, STEPS = 5, 4, 32
Make = Callable[..., LanguageModel]


def plan_of(model: nn.Module, method: str = "doped-kronecker", **more: Any) -> Plan:
    how: dict[str, Any] = {"target": "3x", "count": "parameters", "scope": "model", **more}
    return make_plan(model, method=method, **how)


class Loop:
    """Somebody's own: torch's SGD over windows of a text, the state carried from one to the next."""

    def __init__(self, model: nn.Module, recovery: Recovery, columns: Tensor, lr: float = 0.3) -> None:
        self.model, self.recovery, self.columns = model, recovery, columns
        self.optimizer = torch.optim.SGD(recovery.parameter_groups(lr))
        self.windows, self.state, self.step = (len(columns) - 1) // UNROLL, None, 0

    def run(self, steps: int) -> None:
        for _ in range(steps):
            at = self.step % self.windows * UNROLL
            logits, state = self.model(self.columns[at : at + UNROLL], self.state if at else None)
            self.state = tuple(part.detach() for part in state)
            targets = self.columns[at + 1 : at + 1 + UNROLL]
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") / BATCH
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.recovery.step()
            self.step += 1


def sparse_parts(model: nn.Module) -> list[SparseWeight]:
    return [part for slot in slots(model) for part in slot.weight.modules() if isinstance(part, SparseWeight)]


def planned_nonzeros(plan: Plan) -> int:
    return sum(w.structure.overlay.nonzeros for w in plan.weights if isinstance(w.structure, Doped))


@pytest.mark.parametrize("average_from", [0.5, 1.0])
@pytest.mark.parametrize("allocation", ["each", "global"])
@pytest.mark.parametrize("method", ["doped-kronecker", "pruning", "lmf"])
def test_an_own_loop_does_what_ours_does(
    method: str, allocation: Any, average_from: float, make_model: Make, columns: Tensor
) -> None:
    ours, own = make_model(), make_model()
    plan = plan_of(ours, method)
    originals = {slot.name: slot.weight.to_dense().detach().clone() for slot in slots(ours)}
    dopant.apply_plan(ours, plan, "fit")
    overlays = open_overlays(ours, originals, start="dense", overlay_start=1.0)
    settings = TrainSettings.model_validate(
        {
            "epochs": STEPS // ((len(columns) - 1) // UNROLL),
            "batch": BATCH,
            "unroll": UNROLL,
            "learning_rate": 0.3,
            "decay": 1.0,
            "clip": 0.0,
            "average_from": average_from,
            "sparsify": {"end": 0.4, "every": 1, "allocation": allocation},  # (0.4 - 0.1) of 32 in tenths, rounded
        }
    )
    train(ours, settings, Run(columns, lambda model: 1.0), overlays)
    close_overlays(ours)

    recovery = Recovery(own, plan, STEPS, allocation=allocation, average_from=average_from)
    Loop(own.train(), recovery, columns).run(STEPS)
    recovery.close()
    expected = ours.state_dict()
    assert own.state_dict().keys() == expected.keys()
    for name, tensor in own.state_dict().items():
        torch.testing.assert_close(
            tensor, expected[name], rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("method", [name for name in METHODS if name != "dense"])
def test_every_method_ends_as_planned(method: str, make_model: Make, columns: Tensor, tmp_path: Path) -> None:
    model = make_model(joint=METHODS[method].joint)
    plan = plan_of(model, method, target="2x", storage=dopant.Storage("int8"))
    recovery = Recovery(model, plan, 10, allocation="each")
    Loop(model, recovery, columns).run(10)
    recovery.close()
    structures = {weight.name: weight.structure for weight in plan.weights}
    assert {slot.name: slot.weight.structure for slot in slots(model)} == structures
    assert {slot.weight.storage for slot in slots(model)} == {dopant.Storage("int8")}
    dopant.save_pretrained(model, tmp_path / "m")
    assert dopant.inspect(tmp_path / "m").stored_bytes == pytest.approx(plan.whole().cost.stored_bytes, rel=0.1)


def test_overlays_are_dense_at_first_and_then_sparse(make_model: Make, columns: Tensor) -> None:
    model = make_model()
    before = {slot.name: slot.weight.to_dense().detach().clone() for slot in slots(model)}
    plan = plan_of(model)
    recovery = Recovery(model, plan, 100)  # from a tenth of the steps to four
    for slot in slots(model):  # nothing is lost yet
        torch.testing.assert_close(slot.weight.to_dense(), before[slot.name], rtol=1e-5, atol=1e-6)
    loop = Loop(model, recovery, columns)
    alive = []
    for _ in range(50):
        loop.run(1)
        alive.append(sum(int(slot.weight.overlay.mask.sum()) for slot in slots(model)))
    assert alive[9] == sum(map(torch.numel, before.values()))
    assert alive[9] > alive[19] > alive[39] == alive[49] == planned_nonzeros(plan)
    assert alive == sorted(alive, reverse=True)


def test_what_is_kept_is_the_mean_of_the_second_half(make_model: Make, columns: Tensor) -> None:
    model = make_model()
    recovery = Recovery(model, plan_of(model), 40)
    loop = Loop(model, recovery, columns)
    taken = []
    for step in range(1, 41):
        loop.run(1)
        if step > 20 and step % 5 == 0:
            taken.append(model.lstm.bias_l0.detach().clone())
    last = taken[-1]
    mean = torch.stack(taken).mean(0)
    with recovery.averaged():
        torch.testing.assert_close(model.lstm.bias_l0, mean)
    assert torch.equal(model.lstm.bias_l0, last)
    recovery.close()
    torch.testing.assert_close(model.lstm.bias_l0.detach(), mean)
    assert not torch.allclose(mean, last)


@pytest.mark.parametrize("stopped", [3, 13, 27, 38])
def test_a_recovery_goes_on_from_a_checkpoint(stopped: int, make_model: Make, columns: Tensor, tmp_path: Path) -> None:
    whole = make_model()
    plan = plan_of(whole)
    recovery = Recovery(whole, plan, 40)
    Loop(whole, recovery, columns).run(40)
    recovery.close()

    first = make_model()
    recovery = Recovery(first, plan, 40)
    loop = Loop(first, recovery, columns)
    loop.run(stopped)
    torch.save([first.state_dict(), recovery.state_dict(), loop.state, loop.step], tmp_path / "checkpoint.pt")
    loop.run(1)  # what comes later is not in the checkpoint
    again = make_model(seed=5)
    recovery = Recovery(again, plan, 40)
    loop = Loop(again, recovery, columns)
    weights, state, loop.state, loop.step = torch.load(tmp_path / "checkpoint.pt")
    again.load_state_dict(weights)
    recovery.load_state_dict(state)
    loop.run(40 - stopped)
    recovery.close()
    expected = whole.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.state_dict().items())


def test_what_is_no_state_of_this_recovery_is_refused(make_model: Make, columns: Tensor) -> None:
    model = make_model()
    recovery = Recovery(model, plan_of(model), 10, average_from=0.0)
    Loop(model, recovery, columns).run(10)
    state = recovery.state_dict()

    other = make_model()
    longer = Recovery(other, plan_of(other), 20, average_from=0.0)
    with pytest.raises(ResumeError, match=r"of a recovery of \{'steps': 10.*this one is of \{'steps': 20"):
        longer.load_state_dict(state)
    with pytest.warns(UserWarning, match="not as sparse"):
        longer.close()
    with pytest.raises(TrainingError, match="this recovery is closed"):
        longer.load_state_dict(state)

    other = make_model()
    other.embedding.requires_grad_(False)
    frozen = Recovery(other, plan_of(other), 10, average_from=0.0)
    with pytest.raises(ResumeError, match=r"embedding\.weight\S* is not in both of one shape"):
        frozen.load_state_dict(state)
    with pytest.raises(ResumeError, match="freeze the same and plan the same"):
        recovery.load_state_dict({**state, "means": {**state["means"], "lstm.bias_l0": torch.zeros(3)}})
    for nothing in ({}, None, model.state_dict()):
        with pytest.raises(ResumeError, match=r"no state of a recovery; load what its state_dict\(\) returned"):
            recovery.load_state_dict(nothing)


def test_a_state_that_was_loaded_does_not_change_with_training(make_model: Make, columns: Tensor) -> None:
    model = make_model()
    recovery = Recovery(model, plan_of(model), 20, average_from=0.0)
    loop = Loop(model, recovery, columns)
    loop.run(10)
    state = recovery.state_dict()
    kept = state["means"]["lstm.bias_l0"].clone()
    recovery.load_state_dict(state)
    loop.run(10)
    assert torch.equal(state["means"]["lstm.bias_l0"], kept)


def test_closed_early_it_is_as_sparse_as_planned_and_says_what_is_wrong(make_model: Make, columns: Tensor) -> None:
    model = make_model()
    plan = plan_of(model)
    recovery = Recovery(model, plan, 100)
    Loop(model, recovery, columns).run(20)
    with pytest.warns(UserWarning, match="was to take 100 steps and is closed after 20, when overlays are not as"):
        recovery.close()
    assert sum(part.values.numel() for part in sparse_parts(model)) == planned_nonzeros(plan)
    for call in (recovery.close, recovery.step):
        with pytest.raises(TrainingError, match="this recovery is closed"):
            call()


def test_steps_that_are_not_those_announced_are_told_of(make_model: Make, columns: Tensor) -> None:
    model = make_model()
    recovery = Recovery(model, plan_of(model), 50)
    Loop(model, recovery, columns).run(22)
    with pytest.warns(UserWarning, match="closed after 22, when there is no mean of weights yet: the last ones are"):
        recovery.close()
    model = make_model()
    recovery = Recovery(model, plan_of(model), 10)
    loop = Loop(model, recovery, columns)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loop.run(10)
    with pytest.warns(UserWarning, match="was to take 10 steps, and this is one more") as told:
        loop.run(10)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recovery.close()


def test_nothing_goes_on_while_the_mean_is_in_place(make_model: Make, columns: Tensor) -> None:
    model = make_model()
    recovery = Recovery(model, plan_of(model), 10)
    Loop(model, recovery, columns).run(10)
    with recovery.averaged():
        for call in (
            recovery.step,
            recovery.close,
            lambda: recovery.load_state_dict({}),
            recovery.averaged().__enter__,
        ):
            with pytest.raises(TrainingError, match="the model has the mean for its weights; leave"):
                call()
    recovery.close()
    with pytest.raises(TrainingError, match="this recovery is closed"), recovery.averaged():
        pass


def test_a_model_in_a_recovery_does_not_begin_another(make_model: Make) -> None:
    model = make_model()
    plan = plan_of(model)
    recovery = Recovery(model, plan, 10)
    with pytest.raises(InputError, match=r"embedding\.weight is in a recovery already; close that first"):
        Recovery(model, plan, 10)
    with pytest.warns(UserWarning, match="not as sparse"):
        recovery.close()
    Recovery(model, plan, 10)  # trains on with the same non-zeros to choose from


def test_in_16_bits_the_mean_is_exact() -> None:
    model = dopant.convert(nn.Sequential(nn.Linear(8, 8))).to(torch.bfloat16)
    recovery = Recovery(model, plan_of(model, "lmf", target="1.5x"), 10_000, average_from=0.0)
    (left, *_) = model.parameters()
    first = left.detach().clone()
    for step in range(10_000):
        with torch.no_grad():
            left.copy_(first * (0.5 + step / 10_000))
        recovery.step()
    recovery.close()
    torch.testing.assert_close(left.detach().float(), first.float(), rtol=0.01, atol=0.0)


def test_globally_the_largest_of_all_stay_by_default(make_model: Make) -> None:
    model = make_model()
    plan = plan_of(model, "pruning", ignore=["decoder.weight"])
    left = model.decoder.weight
    recovery = Recovery(model, plan, 10, begin=0.0, end=0.0)  # at once
    lstm, embedding = model.lstm.weight_l0, model.embedding.weight
    assert sum(int(slot.weight.mask.sum()) for slot in slots(model) if slot.weight is not left) == sum(
        weight.structure.nonzeros for weight in plan.weights if weight.method is not None
    )
    least = min(float(weight.to_dense().detach().abs()[weight.mask].min()) for weight in (lstm, embedding))
    most = max(float(weight.matrix.detach().abs()[~weight.mask].max()) for weight in (lstm, embedding))
    assert least >= most
    assert model.decoder.weight is left
    for _ in range(10):
        recovery.step()
    recovery.close()
    assert model.decoder.weight is left


def test_a_target_in_bytes_is_met_by_the_non_zeros_as_they_lie() -> None:
    """All of them at the end, behind a row of escapes that no plan reckons with."""
    model = dopant.convert(nn.Sequential(nn.Linear(64, 64)))
    plan = plan_of(model, "pruning", target="20x", count="bytes", storage=dopant.Storage("int8"))
    (slot,) = slots(model)
    slot.weight.requires_grad_(False)
    recovery = Recovery(model, plan, 10)
    with torch.no_grad():
        slot.weight.matrix[:32] *= 1e-6
    for _ in range(10):
        recovery.step()
    recovery.close()
    assert 780 < slot.weight.cost(plan.storage).stored_bytes <= 4 * 64 * 64 // 20
    assert slot.weight.values.numel() < plan.weights[0].structure.nonzeros
    assert not slot.weight.values.requires_grad


def test_frozen_weights_stay_as_they_are_where_nothing_is_pruned(make_model: Make, columns: Tensor) -> None:
    model = make_model()
    model.embedding.requires_grad_(False)
    recovery = Recovery(model, plan_of(model), 40)
    loop = Loop(model, recovery, columns)
    now = [parameter.clone() for parameter in model.embedding.parameters()]
    assert not any(parameter.requires_grad for parameter in model.embedding.parameters())
    loop.run(40)
    for before, parameter in zip(now, model.embedding.parameters(), strict=True):
        assert torch.equal(before, parameter)
    recovery.close()
    assert isinstance(model.embedding.weight, DopedWeight)
    assert not any(parameter.requires_grad for parameter in model.embedding.parameters())
    assert all(parameter.requires_grad for parameter in model.decoder.parameters())


@pytest.mark.parametrize(("method", "rate"), [("doped-kronecker", 0.1), ("lmf", 0.3)])
def test_factors_learn_at_a_rate_of_their_own(method: str, rate: float, make_model: Make) -> None:
    model = make_model()
    recovery = Recovery(model, plan_of(model, method, scope="lstm"), 10)
    rates = {id(p): group["lr"] for group in recovery.parameter_groups(2.0) for p in group["params"]}
    assert rates.keys() == {id(parameter) for parameter in model.parameters()}
    factors = [
        parameter
        for slot in slots(model)
        if slot.lstm
        for parameter in (slot.weight.base if method == "doped-kronecker" else slot.weight).parameters()
    ]
    assert {rates.pop(id(factor)) for factor in factors} == {2.0 * rate}
    assert set(rates.values()) == {2.0}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"steps": 0}, "the steps of a recovery must be a whole number of 1 or more, got 0"),
        ({"steps": 2.5}, "the steps of a recovery must be a whole number of 1 or more, got 2.5"),
        ({"steps": "10"}, "the steps of a recovery must be a whole number of 1 or more, got '10'"),
        ({"steps": math.nan}, "the steps of a recovery must be a whole number"),
        ({"steps": True}, "the steps of a recovery must be a whole number"),
        ({"begin": 0.5}, "begin comes before end; got 0.5, 0.4 and 0.5"),
        ({"end": 1.5}, "fractions of all steps"),
        ({"average_from": -0.1}, "fractions of all steps"),
        ({"average_from": math.nan}, "fractions of all steps"),
        ({"begin": None}, "fractions of all steps"),
        ({"end": "0.4"}, "fractions of all steps"),
        ({"allocation": "all"}, "allocation is one of each, global, got 'all'"),
        ({"allocation": ""}, "allocation is one of each, global, got ''"),
        ({"structure": {"per_bank": 4}, "allocation": "global"}, "non-zeros in banks, as many in each as were planned"),
        ({"model": None}, "the model of a recovery is a torch module, got NoneType"),
        ({"model": nn.Linear(3, 3)}, "the model has no structured weights; make them with dopant.convert"),
        ({"plan": {}}, "the plan of a recovery is what make_plan returns, got dict"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(
    how: dict[str, Any], message: str, make_model: Make
) -> None:
    model = make_model()
    weights = [slot.weight for slot in slots(model)]
    plan = plan_of(model, **{key: how[key] for key in how if key == "structure"})
    given = {"model": model, "plan": plan, "steps": 10}
    with pytest.raises(InputError, match=message):
        Recovery(**given | {key: value for key, value in how.items() if key != "structure"})
    assert [slot.weight for slot in slots(model)] == weights


@pytest.mark.parametrize("lr", [0.0, -1.0, math.nan, math.inf, "0.1", None, True])
def test_a_rate_that_is_none_is_refused(lr: Any, make_model: Make) -> None:
    model = make_model()
    with pytest.raises(InputError, match="a learning rate is a positive number, got"):
        Recovery(model, plan_of(model), 10).parameter_groups(lr)


@pytest.mark.gpu
def test_a_recovery_on_a_gpu(make_model: Make, columns: Tensor) -> None:
    model = make_model().cuda()
    plan = plan_of(model, count="bytes", storage=dopant.Storage("int8"), target="4x")
    recovery = Recovery(model, plan, 40)
    Loop(model, recovery, columns.cuda()).run(40)
    recovery.close()
    assert {parameter.device.type for parameter in model.parameters()} == {"cuda"}
    assert sum(slot.weight.cost(plan.storage).stored_bytes for slot in slots(model)) <= plan.total().cost.stored_bytes


def test_banks_are_filled_as_planned(make_model: Make, columns: Tensor) -> None:
    model = make_model()
    plan = plan_of(model, structure={"per_bank": 1}, scope="lstm")
    recovery = Recovery(model, plan, 10)
    Loop(model, recovery, columns).run(10)
    recovery.close()
    structures = {weight.name: weight.structure for weight in plan.weights}
    assert {slot.name: slot.weight.structure for slot in slots(model)} == structures


def test_a_plan_of_another_model_is_refused(make_model: Make) -> None:
    model, other = make_model(), dopant.convert(nn.Sequential(nn.Linear(8, 8)))
    with pytest.raises(PlanError, match="the plan was made for another model"):
        Recovery(model, plan_of(other, "lmf"), 10)


def test_a_sparse_part_within_a_structure_is_refused(make_model: Make) -> None:
    model = make_model()
    rows = model.embedding.weight.shape[0]
    inside = {"kind": "stacked", "rows": [1, rows - 1], "parts": [{"kind": "dense"}, {"kind": "sparse", "nonzeros": 9}]}
    plan = make_plan(model, target="2x", targets=[Rule("embedding.weight", structure=inside)], scope="model")
    with pytest.raises(InputError, match="training anneals overlays of whole weights"):
        Recovery(model, plan, 10)
