"""A thousand and more mutated folders: each is refused with our error, or loads to a sound model."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dopant.cost import Storage
from dopant.errors import DopantError
from dopant.models.language_model import LanguageModel
from dopant.storage import inspect, load_model, save

ROUNDS = 180  # for each of the tests and storages below: 1,080 mutated folders


@pytest.fixture(params=[Storage(), Storage("float16"), Storage("int8", "rice"), Storage("huffman", "huffman")], ids=str)
def folder(request: pytest.FixtureRequest, tmp_path: Path, language_model: LanguageModel) -> Path:
    class Tokenizer:
        def to_json(self) -> dict[str, Any]:
            return {"kind": "word", "words": ["a", "b"]}

    return save(tmp_path / "m", language_model, storage=request.param, tokenizer=Tokenizer(), recipe="seed: 1\n")


def mutated(raw: bytes, chance: random.Random) -> bytes:
    """Bits flipped, bytes overwritten, cut, doubled, moved or put in."""
    out = bytearray(raw)
    for _ in range(chance.choice((1, 1, 2, 5))):
        place, length = chance.randrange(len(out) + 1), chance.choice((1, 2, 8, 64))
        match chance.randrange(6):
            case 0 if place < len(out):
                out[place] ^= 1 << chance.randrange(8)
            case 1:
                out[place : place + length] = chance.randbytes(min(length, len(out) - place))
            case 2:
                del out[place : place + length]
            case 3:
                out[place:place] = out[place : place + length]
            case 4:
                source = chance.randrange(len(out) + 1)
                out[place : place + length] = out[source : source + length]
            case _:
                del out[place : len(out) if chance.random() < 0.3 else place + 1]
    return bytes(out)


def edited(data: Any, chance: random.Random) -> Any:
    """One place of a JSON value replaced, dropped or doubled."""
    data = copy.deepcopy(data)
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        for key in keys:
            places.append((value, key))
            walk(value[key])

    walk(data)
    container, key = chance.choice(places)
    old = container[key]
    action = chance.randrange(8)
    if action == 0:
        del container[key]
    elif action == 1 and isinstance(container, list):
        container.append(old)
    elif action == 2 and isinstance(container, dict):
        container[f"{key}x"] = container.pop(key)
    elif action == 3:
        container[key] = copy.deepcopy(chance.choice(places)[0])
    elif type(old) is int:
        container[key] = chance.choice((old + 1, old - 1, -old, 0, 2 * old, old + 2**32, 2**63, 10**30, old / 2))
    elif isinstance(old, str):
        container[key] = chance.choice((old + "x", "", "F16", "I8", "sparse", "int8", "rice", "gaps", "float16"))
    else:
        container[key] = chance.choice((None, True, [], {}, "x", 0, -1, [old], 1e300))
    return data


def numbers(model: LanguageModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def read(folder: Path) -> LanguageModel | None:
    """What both readers make of a folder; any error but ours fails the test."""
    found: list[Any] = []
    errors: list[str] = []
    for function in (inspect, load_model):
        try:
            found.append(function(folder))
        except DopantError as error:
            found.append(None)
            errors.append(str(error))
    assert all(0 < len(text) < 1000 for text in errors)
    return None if found[1] is None else found[1].model


def test_without_the_checksums_nothing_but_the_same_model_loads(folder: Path) -> None:
    chance = random.Random(0)
    names = sorted(path.name for path in folder.iterdir())
    whole = {name: (folder / name).read_bytes() for name in names}
    original = numbers(load_model(folder).model)
    refused = 0
    for _ in range(ROUNDS):
        name = chance.choice((*names, "config.json", "model.safetensors"))
        if chance.random() < 0.2 and name == "config.json":
            data = edited(json.loads(whole[name]), chance)
            (folder / name).write_text(json.dumps(data, indent=2))
        else:
            (folder / name).write_bytes(mutated(whole[name], chance))
        model = read(folder)
        refused += model is None
        assert model is None or same(numbers(model), original)
        (folder / name).write_bytes(whole[name])
    assert refused > 0.9 * ROUNDS
    assert same(numbers(load_model(folder).model), original)


def test_with_fitting_checksums_nothing_but_a_sound_model_loads(folder: Path, forge: Callable[..., None]) -> None:
    chance = random.Random(1)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    shapes = {name: tensor.shape for name, tensor in numbers(load_model(folder).model).items()}
    refused = 0

    def last_bytes_altered(body: bytes) -> bytes:
        return (body[:-60] + mutated(body[-60:], chance))[: len(body)].ljust(len(body))

    for _ in range(ROUNDS):
        match chance.randrange(5):
            case 0:
                forge(folder, config=lambda data: edited(data, chance))
            case 1:
                forge(folder, header=lambda entries: edited(entries, chance))
            case 2:
                forge(folder, data=lambda body: mutated(body, chance))
            case 3:
                forge(folder, whole=lambda raw: mutated(raw, chance))
            case _:  # numbers only: these reach the decoders
                forge(folder, data=last_bytes_altered)
        model = read(folder)
        refused += model is None
        if model is not None:
            for name, tensor in numbers(model).items():
                assert torch.isfinite(tensor).all()
                assert name.endswith((".values", ".positions")) or tensor.shape == shapes[name]
            logits, _ = model(torch.tensor([[0, 29]]))
            assert logits.shape == (1, 2, 30)
        for name, raw in whole.items():
            if (folder / name).read_bytes() != raw:
                (folder / name).write_bytes(raw)
    assert 0.3 * ROUNDS < refused < ROUNDS
