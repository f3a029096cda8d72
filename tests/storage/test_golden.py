"""Folders of every released version of the format load for ever, as they were written."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from dopant.layers import slots
from dopant.storage import from_pretrained, inspect, load_model, save

GOLDEN = Path(__file__).parent / "golden"
MODULES = sorted(folder for folder in GOLDEN.glob("v*/*-*") if folder.is_dir() and folder.name != "language-model")
MODELS = sorted(GOLDEN.glob("v*/language-model"))


def name_of(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make", GOLDEN / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_they_are_there() -> None:
    assert len(MODULES) == 9
    assert len(MODELS) == 1


@pytest.mark.parametrize("folder", MODULES, ids=name_of)
def test_every_structure_in_every_storage(folder: Path, make: ModuleType) -> None:
    loaded = from_pretrained(make.holder(99), folder)
    expected = np.load(folder.with_name(folder.name + ".npz"), allow_pickle=False)
    assert set(expected) == set(make.STRUCTURES) == {slot.name for slot in slots(loaded)}
    for slot in slots(loaded):
        found = slot.weight.to_dense().detach().numpy()
        np.testing.assert_allclose(found, expected[slot.name], rtol=1e-6, atol=1e-8, err_msg=slot.name)
        assert slot.weight.structure == make.STRUCTURES[slot.name][0]
    assert loaded.again is loaded.doped_stacked
    assert loaded.count == 7
    assert [f"{w.storage.values}-{w.storage.indices}" for w in inspect(folder).weights] == [folder.name] * 9


@pytest.mark.parametrize("folder", MODELS, ids=name_of)
def test_a_language_model(folder: Path, make: ModuleType) -> None:
    loaded = load_model(folder)
    expected = np.load(folder.with_name(folder.name + ".npz"), allow_pickle=False)["logits"]
    logits = loaded.model(torch.arange(12).view(6, 2))[0].detach().numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    assert loaded.tokenizer == make.Tokenizer().to_json()
    assert loaded.recipe == "seed: 1\n"
    assert loaded.config.extra == {"note": "golden"}
    assert loaded.model.embedding.weight is loaded.model.decoder.weight


@pytest.mark.parametrize("indices", ["gaps", "rice"])
def test_what_is_written_today_is_still_version_1(tmp_path: Path, make: ModuleType, indices: str) -> None:
    folder = GOLDEN / "v1" / f"float32-{indices}"
    model = from_pretrained(make.holder(99), folder)
    save(tmp_path / "m", model, storage=inspect(folder).weights[0].storage)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "m" / name).read_bytes() == (folder / name).read_bytes()
