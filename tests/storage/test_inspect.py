from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dopant.cost import Storage
from dopant.layers import slots
from dopant.models.language_model import LanguageModel
from dopant.storage import inspect, read, save
from dopant.structures import Doped, Kronecker, Sparse


def test_it_tells_what_is_stored(
    tmp_path: Path, language_model: LanguageModel, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(tmp_path / "m", language_model, storage=storage, recipe="a: 1\n", extra={"x": 1})
    monkeypatch.setattr(read, "read_tensor", None)  # no tensor is read
    found = inspect(folder)
    assert (found.version, found.kind, found.extra) == (1, "lstm-language-model", {"x": 1})
    assert found.model["hidden"] == 8
    for weight, slot in zip(found.weights, slots(language_model), strict=True):
        cost = slot.weight.cost(storage)
        assert (weight.name, weight.shape, weight.storage) == (slot.name, slot.weight.shape, storage)
        assert weight.structure == slot.weight.structure
        assert (weight.parameters, weight.macs) == (cost.parameters, cost.macs)
        assert weight.stored_bytes == cost.stored_bytes == sum(tensor.bytes for tensor in weight.tensors)
    plain = {tensor.name: (tensor.dtype, tensor.shape, tensor.bytes) for tensor in found.plain}
    assert plain["decoder.bias"] == ("float32", (30,), 120)
    assert plain.keys() == {"decoder.bias", "lstm.bias_l0", "lstm.bias_l1"}
    assert found.parameters == sum(p.numel() for p in language_model.parameters())
    raw = (folder / "model.safetensors").read_bytes()
    assert found.stored_bytes == len(raw) - 8 - int.from_bytes(raw[:8], "little")
    assert found.file_bytes == {path.name: path.stat().st_size for path in folder.iterdir()}


def test_parts_are_named(tmp_path: Path, language_model: LanguageModel) -> None:
    found = inspect(save(tmp_path / "m", language_model, storage=Storage("int8")))
    doped = next(weight for weight in found.weights if weight.name == "lstm.weight_l0")
    assert doped.structure == Doped(Kronecker(((4, 4), (8, 4))), Sparse(20))
    assert {tensor.name.removeprefix("lstm.weight_l0."): tensor.shape for tensor in doped.tensors}.items() >= {
        "base.factor_0": (1, 4, 4),
        "base.factor_0.scale": (1, 4),
        "base.factor_1": (1, 8, 4),
        "overlay.values": (20,),
        "overlay.values.scale": (32,),
    }.items()


def test_it_is_plain_json(tmp_path: Path, language_model: LanguageModel) -> None:
    found = inspect(save(tmp_path / "m", language_model))
    data = json.loads(json.dumps(found.to_json()))
    assert data["stored_bytes"] == found.stored_bytes
    assert data["parameters"] == found.parameters
    assert [weight["structure"]["kind"] for weight in data["weights"]] == ["low_rank", "doped", "stacked", "sparse"]


def test_a_weight_whose_name_begins_another(tmp_path: Path) -> None:
    class Holder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = Sparse(2).new((3, 3))
            self.ab = Sparse(2).new((3, 3))
            self.register_buffer("a_x", torch.zeros(2))

    found = inspect(save(tmp_path / "m", Holder()))
    assert [len(weight.tensors) for weight in found.weights] == [2, 2]
    assert [tensor.name for tensor in found.plain] == ["a_x"]
