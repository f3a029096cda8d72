"""`config.json`: what a model folder says of itself."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from dopant.cost import Storage
from dopant.errors import ChecksumError, FileError, InputError, KindError, VersionError
from dopant.storage.strict_json import canonical_sha256, parse
from dopant.structures.base import Shape, Structure
from dopant.structures.description import describe, structure_from

FORMAT = "dopant"
VERSION = 1
CONFIG, TENSORS, TOKENIZER, RECIPE = "config.json", "model.safetensors", "tokenizer.json", "recipe.yaml"
FILES = (CONFIG, TENSORS, TOKENIZER, RECIPE)
LANGUAGE_MODEL, MODULE = "lstm-language-model", "module"
METADATA = {"format": FORMAT, "version": str(VERSION)}
_MAX_SIDE = 2**31


@dataclass(frozen=True)
class WeightEntry:
    """A weight as the file describes it: structure, (out, in), and how its numbers are written."""

    structure: Structure
    shape: Shape
    storage: Storage


@dataclass(frozen=True)
class FolderConfig:
    """The contents of `config.json`.

    Args:
        kind: `lstm-language-model` or `module`.
        model: the sizes of a language model; empty for a module.
        weights: each structured weight by its name in the model.
        tied: name of a place -> name of the weight or tensor that it shares.
        files: SHA-256 in hex of each other file.
        extra: whatever the writer wanted to keep with the model.
    """

    kind: str
    model: dict[str, Any]
    weights: dict[str, WeightEntry]
    tied: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The file, with its own checksum; the same contents always make the same bytes.

        Raises:
            InputError: `extra` holds what JSON cannot.
        """
        data = {
            "format": FORMAT,
            "version": VERSION,
            "model": {"kind": self.kind, "config": self.model},
            "weights": {
                name: {
                    "structure": describe(entry.structure),
                    "shape": list(entry.shape),
                    "storage": asdict(entry.storage),
                }
                for name, entry in self.weights.items()
            },
            "tied": self.tied,
            "files": self.files,
            "extra": self.extra,
        }
        try:
            written = json.dumps(data, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"what is stored with a model must be plain JSON: {error}") from error
        data = parse(written.encode(), CONFIG)  # tuples have become lists, as a reader will see them
        data["sha256"] = canonical_sha256(data)
        return (json.dumps(data, indent=2, allow_nan=False) + "\n").encode("ascii")

    @classmethod
    def from_bytes(cls, raw: bytes) -> FolderConfig:
        """Read and check the file.

        Raises:
            FileError: not JSON, or not the JSON of a model folder.
            VersionError: written by another version of the format.
            ChecksumError: altered after it was written.
            KindError: a structure or model of a kind that nobody has registered.
        """
        data = parse(raw, CONFIG)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise FileError(f"{CONFIG} is not that of a {FORMAT} model folder: it lacks format {FORMAT!r}")
        version = data.get("version")
        if type(version) is not int or version != VERSION:
            raise VersionError(
                f"the model folder has format version {str(version)[:40]}, this release reads {VERSION}; "
                "update dopant, or write the folder again"
            )
        stated = data.pop("sha256", None)
        try:
            actual = canonical_sha256(data)
        except RecursionError as error:
            raise FileError(f"{CONFIG} is nested too deep to be one of ours") from error
        if stated != actual:
            raise ChecksumError(f"{CONFIG} was altered: its contents do not match the sha256 in it")
        _keys(data, ("format", "version", "model", "weights", "tied", "files", "extra"), CONFIG)
        model = _keys(data["model"], ("kind", "config"), "model")
        if model["kind"] not in (LANGUAGE_MODEL, MODULE):
            raise KindError(f"model kind {str(model['kind'])[:40]!r} is unknown; known are {LANGUAGE_MODEL}, {MODULE}")
        tied, files = _texts(data["tied"], "tied"), _texts(data["files"], "files")
        weights = {name: _weight(name, entry) for name, entry in _object(data["weights"], "weights").items()}
        _check_files(files)
        for alias, name in tied.items():
            if alias in weights or alias == name or name in tied:
                raise FileError(f"{alias[:80]!r} cannot be tied to {name[:80]!r}")
        return cls(
            kind=model["kind"],
            model=_object(model["config"], "model config"),
            weights=weights,
            tied=tied,
            files=files,
            extra=_object(data["extra"], "extra"),
        )


def _weight(name: str, data: Any) -> WeightEntry:
    what = f"weight {name[:80]!r}"
    _keys(data, ("structure", "shape", "storage"), what)
    shape = data["shape"]
    if (
        not isinstance(shape, list)
        or len(shape) != 2
        or not all(type(side) is int and 1 <= side < _MAX_SIDE for side in shape)
    ):
        raise FileError(f"{what} must have a shape [out, in] of whole numbers from 1 to 2^31 - 1")
    storage = _texts(_keys(data["storage"], ("values", "indices"), what), f"the storage of {what}")
    try:
        entry = WeightEntry(structure_from(data["structure"]), (shape[0], shape[1]), Storage(**storage))  # type: ignore[arg-type]
        entry.structure.check(entry.shape)
    except (KindError, FileError) as error:
        raise type(error)(f"{what}: {error}") from error
    except ValueError as error:
        raise FileError(f"{what}: {error}") from error
    return entry


def _check_files(files: dict[str, str]) -> None:
    if TENSORS not in files or not set(files) <= {TENSORS, TOKENIZER, RECIPE}:
        raise FileError(f"files must list {TENSORS}, and may list {TOKENIZER} and {RECIPE}, got {sorted(files)!s:.200}")
    for name, digest in files.items():
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise FileError(f"the checksum of {name} must be 64 hexadecimal digits")


def _object(data: Any, what: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise FileError(f"{what} must be a JSON object, got {type(data).__name__}")
    return data


def _keys(data: Any, names: tuple[str, ...], what: str) -> dict[str, Any]:
    found = _object(data, what)
    if set(found) != set(names):
        odd = sorted(set(found) ^ set(names))
        state = "is missing" if odd[0] in names else "is unknown"
        raise FileError(f"{what} must hold {', '.join(names)}; {odd[0][:80]!r} {state}")
    return found


def _texts(data: Any, what: str) -> dict[str, str]:
    found = _object(data, what)
    if not all(isinstance(value, str) for value in found.values()):
        raise FileError(f"{what} must hold text by name")
    return found
