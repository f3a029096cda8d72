"""Model folders: written at once or not at all, read with every size checked first. See docs/file_format.md."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dopant.cost import FLOAT32, Storage
from dopant.errors import FileError, InputError, KindError, did_you_mean
from dopant.models.language_model import LanguageModel, LanguageModelConfig
from dopant.storage.config import (
    CONFIG,
    FILES,
    FORMAT,
    LANGUAGE_MODEL,
    MODULE,
    RECIPE,
    TOKENIZER,
    FolderConfig,
    WeightEntry,
)
from dopant.storage.contents import Contents, contents
from dopant.storage.fill import converted, fill, plain_layout
from dopant.storage.pack import pack
from dopant.storage.read import Headers, naming, read_numbers, read_optional, read_whole, unpack_weights
from dopant.storage.strict_json import parse
from dopant.storage.write import write_folder


class HasJson(Protocol):
    """A tokenizer, as far as a file cares."""

    def to_json(self) -> dict[str, Any]:
        """Plain data from which it can be made again."""


@dataclass(frozen=True)
class LoadedModel:
    """What a folder of a language model holds.

    Args:
        model: with its weights in compact form, float32, in evaluation mode.
        tokenizer: what its `to_json` gave, or None.
        recipe: the text of the recipe, or None.
        config: the contents of `config.json`; `config.extra` is what the writer kept with the model.
    """

    model: LanguageModel
    tokenizer: dict[str, Any] | None
    recipe: str | None
    config: FolderConfig


def save(
    folder: str | Path,
    model: nn.Module,
    *,
    storage: Storage | Mapping[str, Storage] | None = None,
    tokenizer: HasJson | None = None,
    recipe: str | None = None,
    extra: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Path:
    """Write a model as a folder. Saving the same model twice makes the same bytes.

    Args:
        folder: where to; it appears whole or not at all.
        model: a `LanguageModel`, or any module that holds structured weights. Weights in training form are
            written in their stored form. Tensors other than weights keep their type, in a language model float32.
        storage: how the weights are written: one for all, or by a weight's name, float32 for those not named. None:
            as each remembers it, see `StructuredWeight`: as its last plan said, or the file that it comes from.
        tokenizer: goes into `tokenizer.json`.
        recipe: the text of the resolved recipe, goes into `recipe.yaml`.
        extra: plain JSON to keep with the model.
        force: replace an old model folder.

    Returns:
        The folder.

    Raises:
        InputError: the folder exists (without `force`) or is no model folder (with it); the model holds no
            structured weight, or numbers that the storage cannot hold.
        FileError: the disk is full, or the folder cannot be written.
    """
    folder = Path(folder)
    check_place(folder, force=force)
    parts = contents(model)
    if not parts.slots:
        raise InputError("the model holds no structured weight; make one with dopant.convert(model)")
    storages = _storages(storage, parts)
    tensors = _tensors(model, parts, storages)
    texts = {TOKENIZER: None if tokenizer is None else _json(tokenizer.to_json()), RECIPE: recipe}
    files = {name: _encode(name, text) for name, text in texts.items() if text is not None}
    language = isinstance(model, LanguageModel)
    config = FolderConfig(
        kind=LANGUAGE_MODEL if language else MODULE,
        model=asdict(model.config) if isinstance(model, LanguageModel) else {},
        weights={
            slot.name: WeightEntry(slot.weight.structure, slot.weight.shape, storages[slot.name])
            for slot in parts.slots
        },
        tied=parts.tied,
        extra=dict(extra or {}),
    )
    write_folder(folder, config, tensors, files, force=force)
    return folder


def load_model(folder: str | Path) -> LoadedModel:
    """Read a language model in compact form; no dense matrix is formed, no code run.

    Raises:
        FileError: (or a subclass) no model folder, a damaged or hostile one, or that of another kind of model.
    """
    return read_whole(folder, partial(_load, folder))


def _load(folder: str | Path, headers: Headers) -> LoadedModel:
    if headers.config.kind != LANGUAGE_MODEL:
        raise KindError(
            f"{folder} holds the weights of a module of your own; build it and call "
            "dopant.from_pretrained(module, folder)"
        )
    with naming(folder):
        model = _skeleton(headers)
        parts = contents(model)
        if parts.tied != headers.config.tied:
            raise FileError(f"tied places {str(headers.config.tied)[:80]} contradict the model's config")
        headers.check(headers.weight_layout() | plain_layout(headers, parts, exact=True))
        tensors = read_numbers(headers)
        fill(model, parts, headers.config, unpack_weights(headers, tensors), tensors)
        recipe, tokenizer = read_optional(headers, RECIPE), read_optional(headers, TOKENIZER)
        return LoadedModel(
            model=model.eval(),
            tokenizer=None if tokenizer is None else _tokenizer(tokenizer),
            recipe=None if recipe is None else _text(recipe),
            config=headers.config,
        )


def save_pretrained(
    model: nn.Module,
    folder: str | Path,
    *,
    storage: Storage | Mapping[str, Storage] | None = None,
    force: bool = False,
) -> Path:
    """Write a module of the user's own that holds structured weights; see `save`.

    After `apply_plan` the file has the bytes that the plan told, and a model that was loaded is written as it was;
    `storage` is only to have others.
    """
    return save(folder, model, storage=storage, force=force)


def from_pretrained(model: nn.Module, folder: str | Path) -> nn.Module:
    """A copy of a module with the weights of a folder, in evaluation mode.

    Args:
        model: an instance with the sizes of the one that was saved, with torch's layers or with ours, on any
            device and of any float type; its own weights do not matter and it is not changed. What is frozen in it
            comes out frozen, what is on the meta device on the CPU.
        folder: as `save_pretrained` wrote it.

    Raises:
        FileError: (or a subclass) no model folder, or a damaged or hostile one.
        TensorError: the folder's tensors are not those of this module.
        InputError: the module has a tensor on the meta device that is no part of its state.
    """
    return read_whole(folder, partial(_filled, model, folder))


def _filled(model: nn.Module, folder: str | Path, headers: Headers) -> nn.Module:
    model = converted(model, headers.config)
    parts = contents(model)
    with naming(folder):
        headers.check(headers.weight_layout() | plain_layout(headers, parts, exact=False))
        tensors = read_numbers(headers)
        fill(model, parts, headers.config, unpack_weights(headers, tensors), tensors)
    return model.eval()


def _skeleton(headers: Headers) -> LanguageModel:
    """The language model of the config on the meta device, where sizes take no memory."""
    given = headers.config.model
    known = {field.name: field for field in fields(LanguageModelConfig)}
    odd = [name for name in given if name not in known]
    missing = [name for name, field in known.items() if name not in given]
    if odd or missing:
        raise FileError(f"the model config must hold {', '.join(known)}; got {', '.join(sorted(given))[:200]}")
    for name, value in given.items():
        allowed = {"int": (int,), "bool": (bool,), "float": (int, float)}[str(known[name].type)]
        if type(value) not in allowed:
            raise FileError(f"{name} of the model config must be of type {known[name].type}, got {value!s:.40}")
    # Each layer has a weight and each side of a matrix a tensor at least as long: no more is ever built.
    if given["layers"] > len(headers.config.weights):
        raise FileError(f"the model config says {given['layers']!s:.40} layers, more than there are weights")
    size = headers.tensors.size + sum(entry.bytes for entry in headers.tensors.tensors.values())
    if max(given["vocabulary"], given["hidden"]) > size:
        raise FileError("the model config has sizes larger than the whole tensor file")
    try:
        with torch.device("meta"):
            return LanguageModel(LanguageModelConfig(**given))
    except (InputError, RuntimeError, OverflowError) as error:
        raise FileError(f"the model config cannot be built: {error!s:.300}") from error


def _storages(storage: Storage | Mapping[str, Storage] | None, parts: Contents) -> dict[str, Storage]:
    names = [slot.name for slot in parts.slots]
    if storage is None:
        return {slot.name: slot.weight.storage for slot in parts.slots}
    if isinstance(storage, Storage):
        return dict.fromkeys(names, storage)
    for name in storage:
        if name not in names:
            way_out = did_you_mean(name, names, f"there are {', '.join(names)[:300]}")
            raise InputError(f"the model has no weight {name!r} to store; {way_out}")
    return {name: storage.get(name, FLOAT32) for name in names}


def _tensors(model: nn.Module, parts: Contents, storages: Mapping[str, Storage]) -> dict[str, Tensor]:
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name, held in model.state_dict().items():
        if isinstance(held, Tensor) and held.is_meta:
            raise InputError(f"{name} is on the meta device and has no numbers to store; build the model on the CPU")
    tensors: dict[str, Tensor] = {}
    for slot in parts.slots:
        try:
            packed = pack(slot.weight, storages[slot.name])
        except InputError as error:
            raise InputError(f"{slot.name}.{error}") from error
        tensors |= {f"{slot.name}.{key}": tensor for key, tensor in packed.items()}
    for name, tensor in parts.plain.items():
        tensor = tensor.detach().cpu()
        if name in parameters and not torch.isfinite(tensor).all():
            raise InputError(f"{name} holds values that are not finite; such a model cannot be stored")
        tensors[name] = tensor.float() if isinstance(model, LanguageModel) else tensor
    return tensors


def check_place(folder: Path, *, force: bool) -> None:
    """See that a model may be saved there; with `force`, only a model folder of ours with nothing else in it gives way.

    Raises:
        InputError: it may not; a mistyped path then costs nothing.
    """
    if "\0" in str(folder):
        raise InputError(f"{str(folder)!r} cannot be the name of a folder: it holds a null byte")
    if not os.path.lexists(folder):
        return
    if not force:
        raise InputError(f"{folder} exists already; choose another place, or replace it with force")
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; a model is written as a folder, choose another place")
    strangers = sorted(entry.name for entry in folder.iterdir() if entry.name not in FILES)
    if strangers:
        raise InputError(
            f"{folder} holds more than a model: {', '.join(strangers[:5])}; force would delete it, "
            "move it away or choose another place"
        )
    if _is_strange(folder / CONFIG):
        raise InputError(
            f"{folder} holds a model that is not ours: {CONFIG} lacks format {FORMAT!r}; force would delete it, "
            "move it away or choose another place"
        )


def _is_strange(config: Path) -> bool:
    """Whether there is a config of somebody else's; what is no JSON may be a damaged one of ours."""
    try:
        data = json.loads(config.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return not isinstance(data, dict) or data.get("format") != FORMAT


def _encode(name: str, text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{name} would hold {text[error.start]!r}, which UTF-8 text cannot") from error


def _json(data: Any) -> str:
    try:
        return json.dumps(data, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the tokenizer's to_json must give plain JSON: {error}") from error


def _tokenizer(raw: bytes) -> dict[str, Any]:
    data = parse(raw, TOKENIZER)
    if not isinstance(data, dict):
        raise FileError(f"{TOKENIZER} must be a JSON object, got {type(data).__name__}")
    return data


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileError(f"{RECIPE} is not UTF-8 text: byte {error.start} cannot be read") from error
