"""What a model folder holds, from its config and the header of its tensors alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from dopant.cost import Storage
from dopant.storage.config import CONFIG, VERSION
from dopant.storage.pack import POSITIONS, layout
from dopant.storage.read import Headers, naming, read_whole
from dopant.structures.base import Shape, Structure
from dopant.structures.description import describe


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of the file: its full name, type of numbers, sizes and bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True)
class StoredWeight:
    """A structured weight of the file.

    Args:
        name: in the model; `tied` are the other places that share it.
        structure, shape, storage: what it is, (out, in), and how its numbers are written.
        parameters, macs: as `Cost` counts them.
        stored_bytes: of its tensors.
        tensors: these tensors.
    """

    name: str
    tied: tuple[str, ...]
    structure: Structure
    shape: Shape
    storage: Storage
    parameters: int
    macs: int
    stored_bytes: int
    tensors: tuple[StoredTensor, ...]

    @property
    def positions(self) -> bool:
        """Whether it keeps positions of non-zeros: the code of indices means nothing for any other."""
        return any(tensor.name.endswith(POSITIONS) for tensor in self.tensors)


@dataclass(frozen=True)
class Inspection:
    """What a folder holds.

    Args:
        folder, version, kind: where, in which version of the format, and what for a model.
        model: the sizes of a language model; empty for a module.
        weights: the structured weights.
        plain: all other tensors.
        file_bytes: size of each file of the folder by name.
        extra: what the writer kept with the model.
    """

    folder: str
    version: int
    kind: str
    model: dict[str, Any]
    weights: tuple[StoredWeight, ...]
    plain: tuple[StoredTensor, ...]
    file_bytes: dict[str, int]
    extra: dict[str, Any]

    @property
    def parameters(self) -> int:
        """Numbers in the file: those of the weights and of all other tensors."""
        plain = sum(prod(tensor.shape) for tensor in self.plain)
        return plain + sum(weight.parameters for weight in self.weights)

    @property
    def stored_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(part.stored_bytes for part in self.weights) + sum(tensor.bytes for tensor in self.plain)

    def to_json(self) -> dict[str, Any]:
        """As plain data, with the totals."""
        return {
            "folder": self.folder,
            "version": self.version,
            "kind": self.kind,
            "model": self.model,
            "parameters": self.parameters,
            "stored_bytes": self.stored_bytes,
            "file_bytes": self.file_bytes,
            "weights": [
                {
                    "name": weight.name,
                    "tied": list(weight.tied),
                    "structure": describe(weight.structure),
                    "shape": list(weight.shape),
                    "storage": asdict(weight.storage),
                    "parameters": weight.parameters,
                    "macs": weight.macs,
                    "stored_bytes": weight.stored_bytes,
                    "tensors": [_tensor_json(tensor) for tensor in weight.tensors],
                }
                for weight in self.weights
            ],
            "plain": [_tensor_json(tensor) for tensor in self.plain],
            "extra": self.extra,
        }


def inspect(folder: str | Path) -> Inspection:
    """Tell what a folder holds without reading a tensor.

    Raises:
        FileError: (or a subclass) no model folder, or one whose config and header contradict each other.
    """
    return read_whole(folder, partial(_inspection, folder))


def _inspection(folder: str | Path, headers: Headers) -> Inspection:
    config = headers.config
    stored = {
        name: StoredTensor(name, str(entry.dtype).removeprefix("torch."), entry.shape, entry.bytes)
        for name, entry in headers.tensors.tensors.items()
    }
    with naming(folder):
        expected = headers.check_weights()
    weights = []
    for name, entry in config.weights.items():
        cost = entry.structure.cost(entry.shape, entry.storage)
        tensors = tuple(stored[f"{name}.{key}"] for key in layout(entry.structure, entry.shape, entry.storage))
        weights.append(
            StoredWeight(
                name=name,
                tied=tuple(alias for alias, target in config.tied.items() if target == name),
                structure=entry.structure,
                shape=entry.shape,
                storage=entry.storage,
                parameters=cost.parameters,
                macs=cost.macs,
                stored_bytes=sum(tensor.bytes for tensor in tensors),
                tensors=tensors,
            )
        )
    return Inspection(
        folder=str(folder),
        version=VERSION,
        kind=config.kind,
        model=config.model,
        weights=tuple(weights),
        plain=tuple(tensor for name, tensor in stored.items() if name not in expected),
        file_bytes=_file_bytes(headers),
        extra=config.extra,
    )


def _file_bytes(headers: Headers) -> dict[str, int]:
    paths = [headers.folder / name for name in (CONFIG, *headers.config.files)]
    return {path.name: path.stat().st_size for path in paths if path.is_file()}


def _tensor_json(tensor: StoredTensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
        "bytes": tensor.bytes,
    }
