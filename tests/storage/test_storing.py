from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dopant
from dopant.cost import Storage
from dopant.errors import ChecksumError, FileError, InputError, PlanError, TensorError
from dopant.layers import Linear, slots
from dopant.models.language_model import LanguageModel, LanguageModelConfig
from dopant.storage import inspect, load_model, save, store
from dopant.structures import Dense, Doped, Kronecker, LowRank, Sparse


class Tokenizer:
    def to_json(self) -> dict[str, Any]:
        return {"kind": "word", "words": ["<unk>", "ü"]}


def test_it_is_the_folder_that_the_same_storage_saves(
    tmp_path: Path, language_model: LanguageModel, storage: Storage
) -> None:
    """Of values that lose nothing, from every storage to every other."""
    told: dict[str, Any] = {"tokenizer": Tokenizer(), "recipe": "seed: 1\n", "extra": {"method": "x"}}
    save(tmp_path / "m", language_model, storage=storage, **told)
    kept = load_model(tmp_path / "m").model
    weights = {weight.name: weight for weight in inspect(tmp_path / "m").weights}
    for values in ("float32", storage.values):
        for indices in ("gaps", "rice", "huffman"):
            other = Storage(values, indices)  # type: ignore[arg-type]
            if other == storage:
                continue
            changes = store(tmp_path / "m", tmp_path / "new", values=values, indices=indices, force=True)  # type: ignore[arg-type]
            kinds = {name: Storage(values, indices if w.positions else storage.indices) for name, w in weights.items()}  # type: ignore[arg-type]
            save(tmp_path / "same", kept, storage=kinds, **told, force=True)
            for file in ("config.json", "model.safetensors", "tokenizer.json", "recipe.yaml"):
                assert (tmp_path / "new" / file).read_bytes() == (tmp_path / "same" / file).read_bytes()
            found = {weight.name: weight for weight in inspect(tmp_path / "new").weights}
            assert [(c.name, c.bytes_after, c.after, c.positions) for c in changes] == [
                (name, weight.stored_bytes, kinds[name], weight.positions) for name, weight in found.items()
            ]
            assert [(c.bytes_before, c.before) for c in changes] == [
                (weight.stored_bytes, storage) for weight in inspect(tmp_path / "m").weights
            ]


def mixed(dense: Storage = Storage()) -> tuple[LanguageModel, dict[str, Storage]]:
    torch.manual_seed(0)
    model = LanguageModel(LanguageModelConfig(30, 8))
    found = {slot.name: slot for slot in slots(model)}
    found["lstm.weight_l0"].set(Doped(Kronecker(((4, 4), (8, 4))), Sparse(20)).new((32, 16)))
    found["lstm.weight_l1"].set(LowRank(2).new((32, 16)))
    return model, {name: Storage("int8") if "lstm" in name else dense for name in found}


def test_dense_weights_stay_unless_they_are_named(tmp_path: Path) -> None:
    model, storages = mixed()
    save(tmp_path / "m", model, storage=storages)
    store(tmp_path / "m", tmp_path / "a", values="int4", indices="rice")
    kept = {weight.name: weight.storage for weight in inspect(tmp_path / "a").weights}
    changed = Storage("int4", "rice")
    assert list(kept.values()) == [Storage(), changed, Storage("int4"), Storage()]
    before, after = load_model(tmp_path / "m").model, load_model(tmp_path / "a").model
    assert torch.equal(before.decoder.weight.to_dense(), after.decoder.weight.to_dense())
    store(tmp_path / "a", tmp_path / "b", values="float16", weights=["decoder.weight", "re:.*_l1"])
    kept = {weight.name: weight.storage for weight in inspect(tmp_path / "b").weights}
    assert list(kept.values()) == [Storage(), changed, Storage("float16"), Storage("float16")]


def test_a_module_whose_code_is_not_here(tmp_path: Path) -> None:
    """Tensors of types that a language model has not, and a tied weight."""
    model = nn.ModuleDict({"one": Linear(6, 4, weight=LowRank(2).new((4, 6))), "norm": nn.BatchNorm1d(3)})
    model["two"] = Linear(6, 4, weight=model["one"].weight)
    save(tmp_path / "m", model, storage=Storage("int8"))
    store(tmp_path / "m", tmp_path / "m", values="int4", force=True)
    found = inspect(tmp_path / "m")
    assert [(weight.name, weight.tied, weight.storage.values) for weight in found.weights] == [
        ("one.weight", ("two.weight",), "int4")
    ]
    loaded = dopant.from_pretrained(model, tmp_path / "m")
    assert loaded["two"].weight is loaded["one"].weight
    assert loaded["norm"].num_batches_tracked == 0


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ({}, InputError, "nothing is to be stored otherwise"),
        ({"values": "int2"}, InputError, "'int2' is not known"),
        (
            {"values": "int8", "indices": "gaps"},
            InputError,
            r"nothing would change: .*m keeps lstm.weight_l0, .* so",
        ),
        ({"indices": "rice", "weights": ["decoder.weight"]}, InputError, "nothing would change"),
        ({"values": "int4", "weights": []}, InputError, "keeps no weight so already"),
        ({"indices": "csr"}, InputError, "'csr' is not known"),
        ({"values": "int4", "weights": ["lstm"]}, PlanError, "matches no weight"),
        ({"values": "int4", "out": "taken"}, InputError, "exists already"),
        ({"values": "int4", "out": "mine", "force": True}, InputError, "notes.txt"),
        ({"values": "float16", "weights": ["decoder.weight"]}, InputError, r"decoder\.weight\.matrix holds 1e\+05"),
        ({"values": "int4", "folder": "dense"}, InputError, "all weights are dense; .*--weight"),
        ({"values": "int4", "folder": "nowhere"}, FileError, "no model folder"),
    ],
)
def test_what_cannot_be_stored_leaves_nothing(
    tmp_path: Path, how: dict[str, Any], error: type[Exception], text: str
) -> None:
    model, storages = mixed()
    with torch.no_grad():
        model.decoder.weight.matrix[0, 0] = 1e5  # type: ignore[union-attr,operator]
    save(tmp_path / "m", model, storage=storages)
    save(tmp_path / "dense", LanguageModel(LanguageModelConfig(30, 8)))
    (tmp_path / "taken").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    before = sorted(tmp_path.rglob("*"))
    options = {"folder": "m", "out": "new"} | how
    with pytest.raises(error, match=text):
        store(tmp_path / options.pop("folder"), tmp_path / options.pop("out"), **options)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_damaged_is_not_stored_as_if_it_were_not(tmp_path: Path, forge: Callable[..., None]) -> None:
    model, storages = mixed()
    for name in ("altered", "hostile"):
        save(tmp_path / name, model, storage=storages)
    raw = (tmp_path / "altered" / "model.safetensors").read_bytes()
    (tmp_path / "altered" / "model.safetensors").write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))

    def of_a_weight(header: dict[str, Any]) -> None:
        header["lstm.weight_l0.more"] = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}

    forge(tmp_path / "hostile", header=of_a_weight)
    for name, error in (("altered", ChecksumError), ("hostile", TensorError)):
        with pytest.raises(error, match=name):
            store(tmp_path / name, tmp_path / "new", values="int4")
    assert not (tmp_path / "new").exists()


def test_a_dense_matrix_by_name(tmp_path: Path) -> None:
    save(tmp_path / "m", nn.Sequential(Linear(9, 5, weight=Dense().new((5, 9)))))
    (change,) = store(tmp_path / "m", tmp_path / "new", values="int4", weights=["re:.*"])
    assert (change.bytes_before, change.bytes_after) == (4 * 45, 5 * 5 + 2 * 5)


def test_what_is_too_small_for_its_scales_is_told(tmp_path: Path) -> None:
    save(tmp_path / "m", nn.Sequential(Linear(9, 5, weight=Dense().fit(1e-9 * torch.randn(5, 9)))))
    with pytest.warns(UserWarning, match="so small that of 7 levels of int4 it uses 0"):
        store(tmp_path / "m", tmp_path / "new", values="int4", weights=["re:.*"])
