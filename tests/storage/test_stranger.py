"""A reader written from docs/file_format.md alone: json, hashlib, zlib, safetensors and numpy, nothing of ours."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import torch
from torch import Tensor, nn

from dopant.cost import Storage
from dopant.layers import slots
from dopant.models.language_model import LanguageModel
from dopant.storage import from_pretrained, load_model, save
from dopant.structures import SparseWeight, StructuredWeight

Tensors = dict[str, np.ndarray]


# The stranger's part


def read_folder(folder: Path) -> tuple[dict[str, np.ndarray], Tensors]:
    """Every W in float64 by the weight's name, and the plain tensors."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    stated = config.pop("sha256")
    canonical = json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    assert hashlib.sha256(canonical.encode()).hexdigest() == stated
    assert (config["format"], config["version"]) == ("dopant", 1)
    for name, digest in config["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    with safetensors.safe_open(folder / "model.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "dopant", "version": "1"}
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    weights = {}
    for name, weight in config["weights"].items():
        mine = {key[len(name) + 1 :]: tensors.pop(key) for key in list(tensors) if key.startswith(name + ".")}
        weights[name] = read_weight(weight["structure"], tuple(weight["shape"]), mine, weight["storage"])
        assert mine == {}
    for place, name in config["tied"].items():
        (weights if name in weights else tensors)[place] = weights.get(name, tensors.get(name))
    return weights, tensors


def read_weight(
    structure: dict[str, Any], shape: tuple[int, int], tensors: Tensors, storage: dict[str, str]
) -> np.ndarray:
    match structure["kind"]:
        case "dense":
            return read_matrix("matrix", tensors, shape, storage)
        case "low_rank":
            left = read_matrix("left", tensors, (shape[0], structure["rank"]), storage)
            return left @ read_matrix("right", tensors, (structure["rank"], shape[1]), storage)
        case "kronecker":
            factors = [
                read_matrix(f"factor_{i}", tensors, (structure["terms"], *size), storage)
                for i, size in enumerate(structure["shapes"])
            ]
            dense = np.zeros(shape)
            for term in range(structure["terms"]):
                product = np.ones((1, 1))
                for factor in factors:
                    product = np.kron(product, factor[term])
                dense += product
            return dense
        case "sparse":
            n = structure["nonzeros"]
            codes = tensors.pop("positions")
            if storage["indices"] == "huffman":
                codes = inflate(codes)
            positions = read_rice(codes, n) if storage["indices"] == "rice" else read_gaps(codes)
            assert len(positions) == n
            flat = np.zeros(shape[0] * shape[1])
            values = read_numbers("values", tensors, (n,), storage)
            if "values.scale" in tensors:
                scales = tensors.pop("values.scale").astype(np.float32)
                values = np.array(
                    [v * scales[p // shape[1]] for v, p in zip(values, positions, strict=True)], np.float32
                )
            for position, value in zip(positions, values, strict=True):
                flat[position] = value
            return flat.reshape(shape)
        case "stacked":
            return np.concatenate(
                [
                    read_weight(part, (rows, shape[1]), under(f"parts.{i}", tensors), storage)
                    for i, (part, rows) in enumerate(zip(structure["parts"], structure["rows"], strict=True))
                ]
            )
        case "doped":
            base = read_weight(structure["base"], shape, under("base", tensors), storage)
            return base + read_weight(structure["overlay"], shape, under("overlay", tensors), storage)
    raise ValueError(structure["kind"])


def under(part: str, tensors: Tensors) -> Tensors:
    return {key[len(part) + 1 :]: tensors.pop(key) for key in list(tensors) if key.startswith(part + ".")}


def inflate(codes: np.ndarray) -> np.ndarray:
    return np.frombuffer(zlib.decompress(codes.tobytes(), wbits=-15) if codes.size else b"", np.uint8)


def read_numbers(name: str, tensors: Tensors, size: tuple[int, ...], storage: dict[str, str]) -> np.ndarray:
    stored, count = tensors.pop(name), size[-1]
    if storage["values"] == "huffman":
        step = tensors.pop(name + ".step")
        return inflate(stored).view(np.int8).reshape(size).astype(np.float32) * step
    if storage["values"] == "int4":
        nibbles = np.stack([stored & 15, stored >> 4], -1).reshape(*stored.shape[:-1], 2 * stored.shape[-1])
        assert not nibbles[..., count:].any()
        stored = (nibbles[..., :count].astype(np.int8) ^ 8) - 8
    return stored.astype(np.float32)


def read_matrix(name: str, tensors: Tensors, size: tuple[int, ...], storage: dict[str, str]) -> np.ndarray:
    values = read_numbers(name, tensors, size, storage)
    if name + ".scale" in tensors:
        values = values * tensors.pop(name + ".scale").astype(np.float32)[..., None]
    return values.astype(np.float64)


def read_gaps(codes: np.ndarray) -> list[int]:
    positions, place = [], 0
    for code in codes.tolist():
        place += code
        if code < 255:
            positions.append(place)
            place += 1
    return positions


def read_rice(codes: np.ndarray, n: int) -> list[int]:
    if n == 0:
        return []
    k, start = int(codes[0]), len(codes) - math.ceil(n * int(codes[0]) / 8)
    unary = "".join(f"{byte:08b}" for byte in codes[1:start].tolist())
    remainders = "".join(f"{byte:08b}" for byte in codes[start:].tolist())
    positions, place = [], 0
    for i, zeros in enumerate(unary.split("1")[:n]):
        place += (len(zeros) << k) + int("0" + remainders[i * k : i * k + k], 2)
        positions.append(place)
        place += 1
    return positions


# What it is held against


def in_whole_steps(weight: StructuredWeight, last: int) -> StructuredWeight:
    """Give a weight values that are kept exactly: whole multiples of a row's scale, up to the last."""
    generator = torch.Generator().manual_seed(5)

    def draw(like: Tensor) -> Tensor:
        return torch.randint(1 - last, last, like.shape, generator=generator).float()

    for part in weight.modules():
        for name, parameter in part.named_parameters(recurse=False):
            values = draw(parameter)
            if isinstance(part, SparseWeight):
                rows = part.row_index
                values[torch.diff(rows, prepend=torch.tensor([-1])) > 0] = last
                values *= 2.0 ** -(rows % 3)
            elif name != "bias":
                values[..., 0] = last
                values *= 2.0 ** -(torch.arange(values.shape[-2]) % 3).unsqueeze(-1)
            parameter.data.copy_(values)
    return weight


class Holder(nn.Module):
    def __init__(self, weight: StructuredWeight) -> None:
        super().__init__()
        self.kept = weight
        self.again = weight
        self.bias = nn.Parameter(torch.arange(3.0))


def test_a_stranger_rebuilds_every_matrix_exactly(tmp_path: Path, weight: StructuredWeight, storage: Storage) -> None:
    model = Holder(in_whole_steps(weight, {"int4": 7, "huffman": 31}.get(storage.values, 127)))
    save(tmp_path / "m", model, storage=storage)
    weights, plain = read_folder(tmp_path / "m")
    truth = weight.double().to_dense().detach().numpy()
    assert np.array_equal(weights["kept"], truth)
    assert np.array_equal(weights["again"], truth)
    assert np.array_equal(plain["bias"], [0.0, 1.0, 2.0])
    loaded = from_pretrained(Holder(weight), tmp_path / "m")
    assert np.array_equal(loaded.kept.double().to_dense().detach().numpy(), truth)


def test_a_stranger_reads_what_we_read(tmp_path: Path, language_model: LanguageModel, storage: Storage) -> None:
    class Tokenizer:
        def to_json(self) -> dict[str, Any]:
            return {"words": ["ü"]}

    folder = save(tmp_path / "m", language_model, storage=storage, tokenizer=Tokenizer(), extra={"ü": 1e-7})
    weights, plain = read_folder(folder)
    loaded = load_model(folder).model
    assert weights.keys() == {slot.name for slot in slots(loaded)}
    for slot in slots(loaded):
        ours = slot.weight.double().to_dense().detach().numpy()
        assert np.allclose(weights[slot.name], ours, rtol=1e-13, atol=1e-15)
    assert plain.keys() == {"lstm.bias_l0", "lstm.bias_l1", "decoder.bias"}
    assert np.array_equal(plain["decoder.bias"], loaded.decoder.bias.detach().numpy())


@pytest.mark.parametrize("indices", ["gaps", "rice", "huffman"])
def test_a_stranger_reads_long_gaps(tmp_path: Path, indices: str) -> None:
    positions = torch.tensor([0, 255, 511, 1022, 5000, 99_999])
    weight = SparseWeight((100, 1000), torch.arange(1.0, 7.0), positions)
    save(tmp_path / "m", Holder(weight), storage=Storage("float32", indices))  # type: ignore[arg-type]
    weights, _ = read_folder(tmp_path / "m")
    assert np.array_equal(weights["kept"], weight.to_dense().detach().numpy())
