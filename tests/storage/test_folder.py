from __future__ import annotations

import errno
import json
import os
import resource
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from torch import nn

from dopant.cost import FLOAT32, Storage
from dopant.errors import FileError, InputError, KindError
from dopant.layers import Linear, slots
from dopant.models.language_model import LanguageModel, LanguageModelConfig
from dopant.storage import inspect, load_model, read, save
from dopant.storage import write as write_module
from dopant.structures import Dense, Doped, LowRank, LowRankWeight, MaskedWeight, Sparse, SparseWeight

TOKENS = torch.tensor([[1, 2], [3, 4], [29, 0]])


class Tokenizer:
    def to_json(self) -> dict[str, Any]:
        return {"kind": "word", "words": ["ä", "<unk>", "日本"]}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_float32_gives_the_same_outputs(tmp_path: Path, language_model: LanguageModel) -> None:
    save(tmp_path / "m", language_model)
    loaded = load_model(tmp_path / "m").model
    assert torch.equal(loaded(TOKENS)[0], language_model(TOKENS)[0])
    assert loaded.config == language_model.config
    assert not loaded.training


def test_other_values_give_nearly_the_same(tmp_path: Path, language_model: LanguageModel, storage: Storage) -> None:
    save(tmp_path / "m", language_model, storage=storage)
    error = (load_model(tmp_path / "m").model(TOKENS)[0] - language_model(TOKENS)[0]).abs().max()
    assert error <= {"float32": 0.0, "float16": 1e-3, "int8": 2e-2, "int4": 0.4, "huffman": 0.4}[storage.values]
    assert storage.values == "float32" or error > 0


def test_tensor_bytes_are_those_of_the_cost(tmp_path: Path, language_model: LanguageModel, storage: Storage) -> None:
    save(tmp_path / "m", language_model, storage=storage)
    weights = sum(slot.weight.cost(storage).stored_bytes for slot in slots(language_model))
    biases = 4 * (30 + 2 * 32)
    raw = (tmp_path / "m" / "model.safetensors").read_bytes()
    header = int.from_bytes(raw[:8], "little")
    assert len(raw) == 8 + header + weights + biases
    save(tmp_path / "again", load_model(tmp_path / "m").model)
    assert (tmp_path / "again" / "model.safetensors").stat().st_size == len(raw)


def test_everything_else_comes_back(tmp_path: Path, language_model: LanguageModel) -> None:
    extra = {"note": "π", "numbers": [1, 2.5, None, True], "deep": {"a": {}}}
    save(tmp_path / "m", language_model, tokenizer=Tokenizer(), recipe="seed: 1 # ü\n", extra=extra)
    loaded = load_model(tmp_path / "m")
    assert loaded.tokenizer == Tokenizer().to_json()
    assert loaded.recipe == "seed: 1 # ü\n"
    assert loaded.config.extra == extra
    bare = load_model(save(tmp_path / "bare", language_model))
    assert (bare.tokenizer, bare.recipe, bare.config.extra) == (None, None, {})
    assert sorted(files(tmp_path / "bare")) == ["config.json", "model.safetensors"]


def test_saving_twice_makes_the_same_bytes(tmp_path: Path, language_model: LanguageModel) -> None:
    options: dict[str, Any] = {"tokenizer": Tokenizer(), "recipe": "a", "storage": Storage("int8", "rice")}
    save(tmp_path / "1", language_model, **options)
    save(tmp_path / "2", language_model, **options)
    assert files(tmp_path / "1") == files(tmp_path / "2")
    save(tmp_path / "3", load_model(tmp_path / "1").model, tokenizer=Tokenizer(), recipe="a")
    save(tmp_path / "4", load_model(tmp_path / "3").model, tokenizer=Tokenizer(), recipe="a")
    assert files(tmp_path / "3") == files(tmp_path / "4")


def test_storage_can_be_given_by_weight(tmp_path: Path, language_model: LanguageModel) -> None:
    save(tmp_path / "m", language_model, storage={"lstm.weight_l0": Storage("int8", "rice")})
    stored = {weight.name: weight.storage for weight in inspect(tmp_path / "m").weights}
    assert stored.pop("lstm.weight_l0") == Storage("int8", "rice")
    assert set(stored.values()) == {FLOAT32}
    assert torch.isfinite(load_model(tmp_path / "m").model(TOKENS)[0]).all()
    with pytest.raises(InputError, match=r"no weight 'lstm.weight_l9'.*did you mean 'lstm.weight_l"):
        save(tmp_path / "n", language_model, storage={"lstm.weight_l9": FLOAT32})


def test_a_tied_weight_is_stored_once_and_tied_again(tmp_path: Path) -> None:
    model = LanguageModel(LanguageModelConfig(vocabulary=30, hidden=8, tied=True)).eval()
    slots(model)[0].set(LowRank(2).new((30, 8)))
    save(tmp_path / "m", model)
    loaded = load_model(tmp_path / "m").model
    assert loaded.embedding.weight is loaded.decoder.weight
    assert torch.equal(loaded(TOKENS)[0], model(TOKENS)[0])
    assert inspect(tmp_path / "m").weights[0].tied == ("decoder.weight",)


def test_two_matrices_a_layer(tmp_path: Path) -> None:
    model = LanguageModel(LanguageModelConfig(vocabulary=30, hidden=8, joint=False)).eval()
    assert torch.equal(load_model(save(tmp_path / "m", model)).model(TOKENS)[0], model(TOKENS)[0])


def test_a_training_form_is_loaded_as_the_stored_form(tmp_path: Path, language_model: LanguageModel) -> None:
    slot = slots(language_model)[1]
    assert isinstance(slot.weight.overlay, SparseWeight)
    slot.weight.overlay = MaskedWeight.from_sparse(slot.weight.overlay)
    loaded = load_model(save(tmp_path / "m", language_model)).model
    assert isinstance(slots(loaded)[1].weight.overlay, SparseWeight)
    torch.testing.assert_close(loaded(TOKENS)[0], language_model(TOKENS)[0], rtol=1e-5, atol=1e-6)


def test_a_loaded_model_can_be_trained(tmp_path: Path, language_model: LanguageModel) -> None:
    model = load_model(save(tmp_path / "m", language_model)).model.train()
    model(TOKENS)[0].logsumexp(-1).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_no_dense_matrix_is_formed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language_model: LanguageModel
) -> None:
    def forbidden(self: object) -> None:
        raise AssertionError("a dense matrix was formed")

    for slot in slots(language_model):
        monkeypatch.setattr(type(slot.weight), "to_dense", forbidden)
    load_model(save(tmp_path / "m", language_model, storage=Storage("int8", "rice")))
    inspect(tmp_path / "m")


def test_a_model_of_gigabytes_loads_in_its_compact_size(tmp_path: Path) -> None:
    config = LanguageModelConfig(vocabulary=1_000_000, hidden=1024, layers=1)
    with torch.device("meta"):
        model = LanguageModel(config)
    for slot in slots(model):
        rows, columns = slot.weight.shape
        slot.set(LowRankWeight(torch.ones(rows, 1), torch.ones(1, columns)))
    model.lstm.bias_l0 = torch.nn.Parameter(torch.zeros(4096))
    model.decoder.bias = torch.nn.Parameter(torch.zeros(1_000_000))
    save(tmp_path / "m", model)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loaded = load_model(tmp_path / "m").model  # dense, embedding and decoder would take 8 GB
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 100e6
    assert loaded.embedding.weight.shape == (1_000_000, 1024)


def test_an_old_folder_needs_force(tmp_path: Path, language_model: LanguageModel) -> None:
    save(tmp_path / "m", language_model)
    old = files(tmp_path / "m")
    with pytest.raises(InputError, match="exists already"):
        save(tmp_path / "m", language_model, recipe="new")
    assert files(tmp_path / "m") == old
    save(tmp_path / "m", language_model, recipe="new", force=True)
    assert load_model(tmp_path / "m").recipe == "new"
    assert os.listdir(tmp_path) == ["m"]


@pytest.mark.parametrize("times", [1, 100])
def test_a_folder_that_is_replaced_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language_model: LanguageModel, times: int
) -> None:
    save(tmp_path / "m", language_model)
    header, left = read.read_header, iter(range(times))

    def replacing(*arguments: Any) -> Any:
        if next(left, None) is not None:
            with torch.no_grad():
                next(language_model.parameters()).add_(1.0)
            save(tmp_path / "m", language_model, force=True)
        return header(*arguments)

    monkeypatch.setattr(read, "read_header", replacing)
    if times == 1:
        assert torch.equal(load_model(tmp_path / "m").model(TOKENS)[0], language_model(TOKENS)[0])
    else:
        with pytest.raises(FileError, match="replaced again and again while it was read"):
            load_model(tmp_path / "m")


def test_force_deletes_nothing_but_a_model(tmp_path: Path, language_model: LanguageModel) -> None:
    save(tmp_path / "m", language_model)
    (tmp_path / "m" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "gpt2"}')
    for place, text in (("m", r"thesis\.tex"), ("file", "is a file"), ("other", "that is not ours: config.json lacks")):
        with pytest.raises(InputError, match=text):
            save(tmp_path / place, language_model, force=True)
    with pytest.raises(InputError, match="cannot be the name"):
        save("nul\0", language_model)
    assert (tmp_path / "m" / "thesis.tex").exists()
    (tmp_path / "other" / "config.json").write_text('{"format": "dop')  # a damaged one gives way
    load_model(save(tmp_path / "other", language_model, force=True))


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language_model: LanguageModel) -> None:
    def full(file: BinaryIO, *_: object) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(write_module, "write_tensors", full)
    with pytest.raises(FileError, match="disk is full"):
        save(tmp_path / "m", language_model)
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_stored_is_refused_and_leaves_nothing(tmp_path: Path, language_model: LanguageModel) -> None:
    class Surrogate:
        def to_json(self) -> dict[str, Any]:
            return {"word": "\ud800"}

    class NoJson:
        def to_json(self) -> dict[str, Any]:
            return {"word": object()}

    attempts: list[tuple[dict[str, Any], str]] = [
        ({"extra": {"x": float("nan")}}, "plain JSON"),
        ({"extra": {"x": object()}}, "plain JSON"),
        ({"tokenizer": Surrogate()}, "UTF-8"),
        ({"tokenizer": NoJson()}, "plain JSON"),
        ({"recipe": "\udfff"}, "UTF-8"),
    ]
    for options, text in attempts:
        with pytest.raises(InputError, match=text):
            save(tmp_path / "m", language_model, **options)
    with torch.no_grad():
        language_model.lstm.bias_l0[3] = torch.nan
    with pytest.raises(InputError, match=r"lstm\.bias_l0 .*not finite"):
        save(tmp_path / "m", language_model)
    language_model.lstm.weight_l0 = Doped(Dense(), Sparse(2)).fit(torch.full((32, 16), 1e5))
    with pytest.raises(InputError, match=r"lstm\.weight_l0\.base\.matrix .*float16"):
        save(tmp_path / "m", language_model, storage=Storage("float16"))
    with pytest.raises(InputError, match=r"dopant\.convert"):
        save(tmp_path / "m", torch.nn.Linear(2, 2))
    assert os.listdir(tmp_path) == []


def test_a_place_without_a_model(tmp_path: Path, language_model: LanguageModel) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for place, text in (
        (tmp_path / "none", "no model folder"),
        (tmp_path / "file", "no model folder"),
        (tmp_path / "empty", r"config\.json is missing"),
        ("nul\0", "no model folder"),
        ("x" * 5000, "no model folder"),
    ):
        for function in (load_model, inspect):
            with pytest.raises(FileError, match=text):
                function(place)


def test_each_file_of_a_folder_is_needed(tmp_path: Path, language_model: LanguageModel) -> None:
    save(tmp_path / "m", language_model, tokenizer=Tokenizer(), recipe="a")
    whole = files(tmp_path / "m")
    for name, contents in whole.items():
        (tmp_path / "m" / name).unlink()
        with pytest.raises(FileError, match=rf"{name} is missing"):
            load_model(tmp_path / "m")
        (tmp_path / "m" / name).mkdir()
        with pytest.raises(FileError, match="not a regular file"):
            load_model(tmp_path / "m")
        (tmp_path / "m" / name).rmdir()
        (tmp_path / "m" / name).write_bytes(contents)
    (tmp_path / "m" / "README.md").touch()
    load_model(tmp_path / "m")


def test_a_module_is_not_loaded_as_a_language_model(tmp_path: Path, language_model: LanguageModel) -> None:
    save(tmp_path / "m", torch.nn.Sequential(language_model))
    assert json.loads((tmp_path / "m" / "config.json").read_text())["model"] == {"kind": "module", "config": {}}
    with pytest.raises(KindError, match="from_pretrained"):
        load_model(tmp_path / "m")


@pytest.mark.parametrize(("values", "last"), [("int8", 127), ("int4", 7)])
def test_what_is_too_small_for_its_scales_is_told(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, values: Any, last: int
) -> None:
    def saved(name: str, matrix: torch.Tensor) -> list[str]:
        save(tmp_path / name, nn.Sequential(Linear(8, 6, weight=Dense().fit(matrix))), storage=Storage(values))
        told = [str(warning.message) for warning in recwarn.list]
        recwarn.clear()
        return told

    matrix = torch.randn(6, 8)
    few = matrix.clone()
    few[1:3] *= torch.tensor([0.0, 1e-12])[:, None]  # rows that are next to nothing are nothing to lose
    assert not any(saved(f"m{size:.0e}", few * size) for size in (0.0, 1e-5, 1.0, 1e4))
    (told,) = saved("small", matrix * 1e-8)
    assert f"0.weight.matrix is so small that of {last} levels of {values} it uses 0; scales are float16" in told
    assert "store its weight as float32" in told
