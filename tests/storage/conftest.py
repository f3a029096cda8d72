from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dopant.cost import Storage
from dopant.layers import slots
from dopant.models.language_model import LanguageModel, LanguageModelConfig
from dopant.structures import (
    Dense,
    Doped,
    Kronecker,
    LowRank,
    Sparse,
    Stacked,
    Structure,
    StructuredWeight,
)

STORAGES = [
    *(Storage(values, indices) for values in ("float32", "float16", "int8", "int4") for indices in ("gaps", "rice")),
    Storage("huffman", "huffman"),
    Storage("huffman", "gaps"),
    Storage("int8", "huffman"),
]
STRUCTURES: dict[str, tuple[Structure, tuple[int, int]]] = {
    "dense": (Dense(), (6, 5)),
    "low_rank": (LowRank(2), (6, 5)),
    "kronecker": (Kronecker(((2, 3), (3, 2))), (6, 6)),
    "kronecker_sum": (Kronecker(((2, 3), (3, 1), (2, 2)), terms=2), (12, 6)),
    "sparse": (Sparse(11), (6, 300)),
    "sparse_empty": (Sparse(0), (6, 5)),
    "stacked": (Stacked((Dense(), LowRank(1)), (2, 4)), (6, 5)),
    "doped": (Doped(Kronecker(((2, 3), (3, 2))), Sparse(4)), (6, 6)),
    "doped_stacked": (Doped(Stacked((Dense(), Sparse(3)), (1, 5)), Sparse(4)), (6, 7)),
}


@pytest.fixture(params=STORAGES, ids=str)
def storage(request: pytest.FixtureRequest) -> Storage:
    return request.param


@pytest.fixture(params=STRUCTURES)
def weight(request: pytest.FixtureRequest) -> StructuredWeight:
    structure, shape = STRUCTURES[request.param]
    return structure.new(shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def language_model() -> LanguageModel:
    """Small, with another structure in each place."""
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    model = LanguageModel(LanguageModelConfig(vocabulary=30, hidden=8)).eval()
    structures = {
        "embedding.weight": LowRank(3),
        "lstm.weight_l0": Doped(Kronecker(((4, 4), (8, 4))), Sparse(20)),
        "lstm.weight_l1": Stacked((Dense(), Sparse(9), Kronecker(((4, 2), (4, 8)))), (8, 8, 16)),
        "decoder.weight": Sparse(40),
    }
    for slot in slots(model):
        slot.set(structures[slot.name].new(slot.weight.shape, generator=generator))
    return model


Config = dict[str, Any]
Forge = Callable[..., None]


def dumped(data: Any) -> str:
    """Canonical JSON, however deep it is nested."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        return json.dumps(data, sort_keys=True, separators=(",", ":"))
    finally:
        sys.setrecursionlimit(limit)


def canonical(data: Config) -> str:
    text = dumped(data)
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def forge() -> Forge:
    """Alter a folder as an attacker would, who knows how to make the checksums fit."""

    def alter(
        folder: Path,
        *,
        config: Callable[[Config], Any] | None = None,
        header: Callable[[Config], Any] | None = None,
        data: Callable[[bytes], bytes] | None = None,
        whole: Callable[[bytes], bytes] | None = None,
    ) -> None:
        tensors = folder / "model.safetensors"
        raw = tensors.read_bytes()
        if header is not None or data is not None:
            length = int.from_bytes(raw[:8], "little")
            entries, body = json.loads(raw[8 : 8 + length]), raw[8 + length :]
            if header is not None:
                entries = header(entries) or entries
            if data is not None:
                body = data(body)
            head = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
            raw = len(head).to_bytes(8, "little") + head + body
        if whole is not None:
            raw = whole(raw)
        if (header, data, whole) != (None, None, None):
            tensors.write_bytes(raw)
        described = json.loads((folder / "config.json").read_text())
        described.pop("sha256")
        for name in described["files"]:
            described["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if config is not None:
            described = config(described) or described
        if isinstance(described, dict):
            described["sha256"] = canonical(described)
        (folder / "config.json").write_text(dumped(described))

    return alter
