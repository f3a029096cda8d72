"""Folders made to do harm, with checksums that fit: each is refused with its own error and a text that helps."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dopant.cost import Storage
from dopant.errors import ChecksumError, FileError, KindError, TensorError, VersionError
from dopant.models.language_model import LanguageModel
from dopant.storage import inspect, load_model, save

Config = dict[str, Any]
CODED = Storage("huffman", "huffman")


def put(path: str, value: Any) -> Callable[[Config], Config]:
    """Set one place of a JSON value; `value` may be a function of what is there."""

    def alter(data: Config) -> Config:
        *parents, last = path.split("/")
        place = data
        for name in parents:
            place = place[name]
        place[last] = value(place.get(last)) if callable(value) else value
        return data

    return alter


def drop(path: str) -> Callable[[Config], Config]:
    def alter(data: Config) -> Config:
        *parents, last = path.split("/")
        place = data
        for name in parents:
            place = place[name]
        del place[last]
        return data

    return alter


def nested(kind: str, depth: int) -> Config:
    structure: Config = {"kind": "dense"}
    for _ in range(depth):
        if kind == "doped":
            structure = {"kind": "doped", "base": structure, "overlay": {"kind": "sparse", "nonzeros": 0}}
        else:
            structure = {"kind": "stacked", "parts": [structure], "rows": [32]}
    return structure


L0 = "weights/lstm.weight_l0"
EMBEDDING = "weights/embedding.weight"

CONFIGS: dict[str, tuple[Callable[[Config], Any], type[FileError], str]] = {
    "not an object": (lambda data: [data], FileError, "format"),
    "another format": (put("format", "pt"), FileError, "format"),
    "no version": (drop("version"), VersionError, "version"),
    "a later version": (put("version", 2), VersionError, "version 2"),
    "a version that is true": (put("version", True), VersionError, "version"),
    "a surplus key": (put("surplus", 1), FileError, "'surplus' is unknown"),
    "a missing key": (drop("extra"), FileError, "'extra' is missing"),
    "weights that are a list": (put("weights", []), FileError, "weights must be"),
    "extra that is a text": (put("extra", "x"), FileError, "extra must be"),
    "an unknown model": (put("model/kind", "os.system"), KindError, "os.system"),
    "a model that is a list": (put("model/kind", ["x"]), KindError, "model kind"),
    "an unknown structure": (put(L0 + "/structure", {"kind": "evil"}), KindError, "weight 'lstm.weight_l0'.*evil"),
    "a structure without a kind": (put(L0 + "/structure", 3), FileError, "kind"),
    "a negative rank": (put(EMBEDDING + "/structure/rank", -1), FileError, "rank"),
    "a rank of nonsense": (put(EMBEDDING + "/structure/rank", "3"), FileError, "embedding.weight"),
    "another rank": (put(EMBEDDING + "/structure/rank", 2), TensorError, r"embedding.weight.left.*\(30, 2\)"),
    "a rank beyond the matrix": (put(EMBEDDING + "/structure/rank", 10**12), FileError, "rank"),
    "other factors": (
        put(L0 + "/structure/base/shapes", [[8, 4], [4, 4]]),
        TensorError,
        r"factor_0.*\(1, 8, 4\)",
    ),
    "factors that do not make the matrix": (
        put(L0 + "/structure/base/shapes", [[4, 4], [8, 5]]),
        FileError,
        "factors 4×4 ⊗ 8×5",
    ),
    "factors without end": (put(L0 + "/structure/base/shapes", [[2**40, 4], [8, 2**40]]), FileError, "factors"),
    "more non-zeros": (put(L0 + "/structure/overlay/nonzeros", 21), TensorError, r"values.*\(21\)"),
    "impossible non-zeros": (put(L0 + "/structure/overlay/nonzeros", 10**9), FileError, "non-zeros"),
    "an overlay that is not sparse": (
        put(L0 + "/structure/overlay", {"kind": "dense"}),
        FileError,
        "overlay|Sparse|sparse",
    ),
    "rows that do not add up": (put("weights/lstm.weight_l1/structure/rows", [8, 8, 8]), FileError, "add up"),
    "parts without rows": (put("weights/lstm.weight_l1/structure/rows", []), FileError, "stack|rows"),
    "doped 1000 deep": (put(L0 + "/structure", nested("doped", 1000)), FileError, "deep"),
    "doped 100 deep": (put(L0 + "/structure", nested("doped", 100)), FileError, "deep"),
    "stacked 100 deep": (put(L0 + "/structure", nested("stacked", 100)), FileError, "deep"),
    "a shape of one side": (put(L0 + "/shape", [32]), FileError, "shape"),
    "a shape of zero": (put(L0 + "/shape", [0, 16]), FileError, "shape"),
    "a negative shape": (put(L0 + "/shape", [-32, 16]), FileError, "shape"),
    "a huge shape": (put(EMBEDDING + "/shape", [2**31, 8]), FileError, "shape"),
    "a large shape": (put(EMBEDDING + "/shape", [2**30, 8]), TensorError, "embedding.weight"),
    "the shape of another weight": (
        put("weights/decoder.weight/shape", [240, 1]),
        TensorError,
        "decoder.weight.*shape",
    ),
    "unknown values": (put(L0 + "/storage/values", "int2"), FileError, "int2"),
    "unknown indices": (put(L0 + "/storage/indices", "csr"), FileError, "csr"),
    "other values": (put(L0 + "/storage/values", "float16"), TensorError, "float16"),
    "no storage": (drop(L0 + "/storage"), FileError, "storage"),
    "a missing weight": (drop(L0), TensorError, "lstm.weight_l0.*missing"),
    "a surplus weight": (
        put(
            "weights/lstm.weight_l2",
            {"structure": {"kind": "dense"}, "shape": [1, 1], "storage": {"values": "float32", "indices": "gaps"}},
        ),
        TensorError,
        "lstm.weight_l2.*belongs",
    ),
    "a weight in the place of a bias": (
        put(
            "weights/decoder.bias",
            {"structure": {"kind": "dense"}, "shape": [1, 1], "storage": {"values": "float32", "indices": "gaps"}},
        ),
        TensorError,
        "decoder.bias.*belongs",
    ),
    "a tie to nothing": (put("tied", {"decoder.weight": "nothing"}), FileError, "tied"),
    "a tie to itself": (put("tied", {"x": "x"}), FileError, "tied"),
    "ties in a ring": (put("tied", {"x": "y", "y": "x"}), FileError, "tied"),
    "a tie that is a number": (put("tied", {"x": 1}), FileError, "tied"),
    "no tensor file": (drop("files/model.safetensors"), FileError, "files"),
    "a file elsewhere": (put("files/..~1secret", "0" * 64), FileError, "files"),
    "a checksum of nonsense": (put("files/model.safetensors", "abc"), FileError, "64"),
    "a tokenizer that is not there": (put("files/tokenizer.json", "0" * 64), FileError, "missing"),
    "no sizes": (put("model/config", {}), FileError, "model config"),
    "a surplus size": (put("model/config/heads", 8), FileError, "heads"),
    "sizes of nonsense": (put("model/config/hidden", "8"), FileError, "hidden"),
    "a hidden size that is true": (put("model/config/hidden", True), FileError, "hidden"),
    "another hidden size": (put("model/config/hidden", 9), TensorError, "shape"),
    "a huge hidden size": (put("model/config/hidden", 10**15), FileError, "larger"),
    "a huge vocabulary": (put("model/config/vocabulary", 10**15), FileError, "larger"),
    "a negative vocabulary": (put("model/config/vocabulary", -30), FileError, "vocabulary"),
    "a million layers": (put("model/config/layers", 10**6), FileError, "layers"),
    "another number of layers": (put("model/config/layers", 3), TensorError, "lstm.weight_l2.*missing"),
    "a spread beyond all floats": (put("model/config/init", 10**400), FileError, "init|built"),
    "an impossible dropout": (put("model/config/dropout", 2.0), FileError, "dropout"),
    "no joint matrix": (put("model/config/joint", False), TensorError, "weight_l"),
    "ties that are not the model's": (put("model/config/tied", True), FileError, "tied"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_hostile_configs(tmp_path: Path, language_model: LanguageModel, forge: Callable[..., None], name: str) -> None:
    alter, error, text = CONFIGS[name]
    folder = save(tmp_path / "m", language_model)
    forge(folder, config=alter)
    with pytest.raises(error, match=text) as caught:
        load_model(folder)
    assert type(caught.value) is error
    assert str(caught.value).startswith((f"{folder}: ", f"{folder} "))
    assert len(str(caught.value)) < 800


def told_of(folder: Path, text: str) -> str:
    """What a message about a folder looks like: it begins with the folder or with a file of it."""
    return f"^{re.escape(str(folder))}[ :/].*(?:{text})"


def keep(entries: Config) -> Config:
    return {name: entry for name, entry in entries.items() if name != "__metadata__"}


HEADERS: dict[str, tuple[Callable[[Config], Any], type[FileError], str]] = {
    "a renamed tensor": (
        lambda entries: {name.replace("left", "right2"): entry for name, entry in entries.items()},
        TensorError,
        "embedding.weight.left.*missing",
    ),
    "another shape": (put("lstm.bias_l0/shape", [4, 8]), TensorError, r"lstm.bias_l0.*\(4, 8\).*\(32\)"),
    "another type": (put("lstm.bias_l0/dtype", "I32"), TensorError, "int32"),
    "no metadata": (keep, FileError, "metadata"),
    "other metadata": (put("__metadata__/version", "2"), VersionError, "metadata"),
    "a tensor left out": (drop("lstm.bias_l0"), TensorError, "gap|overlaps"),
    "sizes beyond the file": (
        put("lstm.bias_l0", {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}),
        FileError,
        "tensor",
    ),
    "1000 deep": (lambda entries: b'{"x":' * 1000 + b"{}" + b"}" * 1000, FileError, "deep|must have"),
    "no JSON": (lambda entries: b"{", FileError, "JSON"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_hostile_headers(tmp_path: Path, language_model: LanguageModel, forge: Callable[..., None], name: str) -> None:
    alter, error, text = HEADERS[name]
    folder = save(tmp_path / "m", language_model)
    forge(folder, header=alter)
    with pytest.raises(error, match=told_of(folder, text)):
        load_model(folder)


@pytest.mark.parametrize(
    ("name", "functions"), [("surplus", [load_model]), ("lstm.weight_l0.x", [load_model, inspect])]
)
def test_a_surplus_tensor(
    tmp_path: Path,
    language_model: LanguageModel,
    forge: Callable[..., None],
    name: str,
    functions: list[Callable[[Path], Any]],
) -> None:
    folder = save(tmp_path / "m", language_model)

    def add(entries: Config) -> None:
        end = max(entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__")
        entries[name] = {"dtype": "U8", "shape": [4], "data_offsets": [end, end + 4]}

    forge(folder, header=add, data=lambda body: body + b"evil")
    for function in functions:
        with pytest.raises(TensorError, match=told_of(folder, f"'{name}' belongs to nothing")):
            function(folder)


@pytest.mark.parametrize(
    ("storage", "tensor", "raw", "text"),
    [
        (Storage(), "lstm.bias_l0", b"\x00\x00\xc0\x7f", "lstm.bias_l0.*not finite"),
        (Storage(), "lstm.weight_l0.base.factor_1", b"\x00\x00\x80\x7f", "lstm.weight_l0.*base.factor_1.*not finite"),
        (Storage("float16"), "embedding.weight.right", b"\x00\xfc", "embedding.weight.*right.*not finite"),
        (Storage("int8"), "embedding.weight.right", b"\x80", "-128"),
        (Storage("int4"), "embedding.weight.right", b"\x08", "-8; int4 values go from -7 to 7"),
        (Storage("int4"), "embedding.weight.right", b"\x80", "-8; int4 values go from -7 to 7"),
        (Storage("int4"), "embedding.weight.left", b"\x11\x11", "bits beyond the last"),
        (Storage("int8"), "embedding.weight.right.scale", b"\x00\x7e", "scales"),
        (Storage("int8"), "decoder.weight.values.scale", b"\x00\x80\x00\xbc", "scales"),
        (Storage(), "decoder.weight.positions", b"\xff\xff\xff", "positions where 40"),
        (Storage(), "decoder.weight.positions", b"\xfe\xfe", "240 places"),
        (Storage("int8", "rice"), "decoder.weight.positions", b"\xff", "Rice parameter"),
        (Storage("int8", "rice"), "decoder.weight.positions", b"\x00", "positions cannot be read"),
        (Storage("int8", "rice"), "lstm.weight_l0.overlay.positions", b"\x03\xff\xff", "overlay.positions"),
        (CODED, "embedding.weight.left", b"\xff", "left cannot be read: the Huffman codes are damaged"),
        (CODED, "embedding.weight.left", b"\x03\x00", "left cannot be read: .* go on after their end"),
        (
            CODED,
            "embedding.weight.right.step",
            b"\x00\x00\xc0\x7f",
            "right.step is a step that is negative or not finite",
        ),
        (
            CODED,
            "embedding.weight.right.step",
            b"\x00\x00\x80\xbf",
            "right.step is a step that is negative or not finite",
        ),
        (CODED, "embedding.weight.right.step", b"\xff\xff\x7f\x7f", "right holds values that are not finite"),
        (CODED, "decoder.weight.positions", b"\xff", "positions cannot be read: the Huffman codes are damaged"),
    ],
)
def test_hostile_numbers(
    tmp_path: Path,
    language_model: LanguageModel,
    forge: Callable[..., None],
    storage: Storage,
    tensor: str,
    raw: bytes,
    text: str,
) -> None:
    folder = save(tmp_path / "m", language_model, storage=storage)

    def overwrite(whole: bytes) -> bytes:
        length = int.from_bytes(whole[:8], "little")
        start = 8 + length + json.loads(whole[8 : 8 + length])[tensor]["data_offsets"][0]
        return whole[:start] + raw + whole[start + len(raw) :]

    forge(folder, whole=overwrite)
    with pytest.raises(TensorError, match=told_of(folder, text)):
        load_model(folder)


@pytest.mark.parametrize(
    ("name", "raw", "text"),
    [
        ("config.json", b"", "not valid JSON"),
        ("config.json", b"\xff\xfe", "not UTF-8"),
        ("config.json", b'{"a": 1, "a": 1}', "twice"),
        ("config.json", b"[" * 100_000, "deep|JSON"),
        ("config.json", b'{"a":' * 990 + b"1" + b"}" * 990, "deep|format"),
        ("config.json", b'{"format": "dopant", "version": 1e999}', "too large"),
        ("config.json", b'{"format": "dopant", "version": ' + b"9" * 5000 + b"}", "JSON"),
        ("config.json", b'{"format": "dopant", "version": 1, "x": NaN}', "NaN"),
        ("config.json", b'{"format": "dopant", "version": 1, "x": ' + b"[" * 900 + b"]" * 900 + b"}", "altered|deep"),
        ("config.json", b'{"format": "dopant", "version": 1, "\\ud800": 1}', "altered"),
        ("model.safetensors", b"", "truncated"),
        ("model.safetensors", b"PK\x03\x04" * 9, "truncated or not"),
    ],
)
def test_files_that_are_not_what_they_should_be(
    tmp_path: Path, language_model: LanguageModel, name: str, raw: bytes, text: str
) -> None:
    folder = save(tmp_path / "m", language_model)
    (folder / name).write_bytes(raw)
    for function in (load_model, inspect):
        with pytest.raises(FileError, match=told_of(folder, text)):
            function(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "recipe.yaml", "config.json"])
def test_altered_files(tmp_path: Path, language_model: LanguageModel, name: str) -> None:
    class Tokenizer:
        def to_json(self) -> Config:
            return {"words": ["a"]}

    folder = save(tmp_path / "m", language_model, tokenizer=Tokenizer(), recipe="seed: 1")
    raw = (folder / name).read_bytes()
    altered = raw.replace(b'"init": 0.1', b'"init": 0.2') if name == "config.json" else raw[:-1] + b"\x01"
    assert altered != raw
    (folder / name).write_bytes(altered)
    with pytest.raises(ChecksumError, match=told_of(folder, f"{name} was altered")):
        load_model(folder)


@pytest.mark.parametrize(
    ("name", "raw", "text"),
    [
        ("tokenizer.json", b"[1]", "object"),
        ("tokenizer.json", b"\xff", "UTF-8"),
        ("recipe.yaml", b"\xff", "UTF-8"),
    ],
)
def test_texts_of_nonsense_with_a_fitting_checksum(
    tmp_path: Path, language_model: LanguageModel, forge: Callable[..., None], name: str, raw: bytes, text: str
) -> None:
    folder = save(tmp_path / "m", language_model)
    (folder / name).write_bytes(raw)
    forge(folder, config=lambda data: None)
    load_model(folder)  # a file that is not listed is not read

    forge(folder, config=put(f"files/{name}", hashlib.sha256(raw).hexdigest()))
    with pytest.raises(FileError, match=told_of(folder, text)):
        load_model(folder)


def test_a_pipe_is_not_waited_for(tmp_path: Path, language_model: LanguageModel) -> None:
    folder = save(tmp_path / "m", language_model)
    for name in ("config.json", "model.safetensors"):
        kept = (folder / name).read_bytes()
        (folder / name).unlink()
        os.mkfifo(folder / name)
        with pytest.raises(FileError, match="not a regular file"):
            load_model(folder)
        (folder / name).unlink()
        (folder / name).write_bytes(kept)


def test_sizes_are_checked_before_anything_is_allocated(
    tmp_path: Path, language_model: LanguageModel, forge: Callable[..., None]
) -> None:
    folder = save(tmp_path / "m", language_model)
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(50 * 2**30)  # 50 GB of nothing, which takes no room on the disk
    tracemalloc.start()
    try:
        for function in (load_model, inspect):
            with pytest.raises(FileError, match="something was added"):
                function(folder)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


def test_inspect_refuses_a_header_that_contradicts_the_config(
    tmp_path: Path, language_model: LanguageModel, forge: Callable[..., None]
) -> None:
    for alter in (
        {"config": put(L0 + "/structure/overlay/nonzeros", 21)},
        {"header": put("embedding.weight.left/shape", [3, 30])},
        {"header": lambda entries: {n.replace(".left", ".middle"): e for n, e in entries.items()}},
    ):
        folder = save(tmp_path / "m", language_model, force=True)
        forge(folder, **alter)
        with pytest.raises(TensorError, match=told_of(folder, r"lstm\.weight_l0|embedding\.weight")):
            inspect(folder)
