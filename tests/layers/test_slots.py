from __future__ import annotations

import pytest
import torch
from torch import nn

from dopant.errors import InputError
from dopant.layers import LSTM, Embedding, Linear
from dopant.layers.slots import slots
from dopant.structures import Doped, LowRank, Sparse, Stacked


class Model(nn.Module):
    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.embedding = Embedding(10, 6)
        self.lstm = LSTM(6, 6, 2, proj_size=2)
        self.between = nn.Linear(2, 6)
        self.decoder = Linear(6, 10, weight=self.embedding.weight if tied else None)


def test_slots_in_the_order_of_the_model() -> None:
    assert [(s.name, s.weight.shape, s.gates, s.lstm) for s in slots(Model())] == [
        ("embedding.weight", (10, 6), 1, False),
        ("lstm.weight_l0", (24, 8), 4, True),
        ("lstm.weight_hr_l0", (2, 6), 1, True),
        ("lstm.weight_l1", (24, 4), 4, True),
        ("lstm.weight_hr_l1", (2, 6), 1, True),
        ("decoder.weight", (10, 6), 1, False),
    ]


def test_a_single_layer_and_a_model_without_any() -> None:
    assert [s.name for s in slots(Linear(2, 3))] == ["weight"]
    assert slots(nn.Linear(2, 3)) == []


def test_a_tied_weight_counts_once_and_is_set_everywhere() -> None:
    model = Model(tied=True)
    first = slots(model)[0]
    assert (first.name, first.aliases) == ("embedding.weight", ("decoder.weight",))
    assert [s.name for s in slots(model)][-1] == "lstm.weight_hr_l1"
    weight = LowRank(2).new((10, 6))
    first.set(weight)
    assert model.embedding.weight is model.decoder.weight is weight
    assert first.weight is weight


def test_only_the_outermost_weight_counts() -> None:
    model = Model()
    slot = slots(model)[1]
    slot.set(Doped(Stacked((LowRank(2), LowRank(1)), (20, 4)), Sparse(3)).new((24, 8)))
    assert [s.name for s in slots(model)] == [s.name for s in slots(Model())]
    assert slots(model)[1].weight is model.lstm.weight_l0


def test_a_layer_used_twice_has_one_slot() -> None:
    layer = Linear(3, 3)
    found = slots(nn.Sequential(layer, layer))
    assert [s.name for s in found] == ["0.weight"]
    found[0].set(LowRank(1).new((3, 3)))
    assert isinstance(layer.weight.structure, LowRank)


def test_a_weight_of_another_shape_is_refused() -> None:
    slot = slots(Model())[0]
    with pytest.raises(InputError, match=r"embedding.weight is of shape \(10, 6\), got a weight of shape \(6, 10\)"):
        slot.set(LowRank(2).new((6, 10)))


def test_a_place_taken_by_something_else() -> None:
    model = Model()
    slot = slots(model)[0]
    model.embedding.weight = nn.Identity()
    with pytest.raises(InputError, match=r"embedding.weight no longer holds a structured weight but Identity"):
        _ = slot.weight


def test_the_parameters_of_a_set_weight_are_the_models() -> None:
    model = Model()
    slots(model)[5].set(LowRank(2).new((10, 6)))
    assert {"decoder.weight.left", "decoder.weight.right", "decoder.bias"} <= set(dict(model.named_parameters()))
    assert torch.is_tensor(model.state_dict()["decoder.weight.left"])
