"""Putting what was read into a model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dopant.errors import InputError, TensorError
from dopant.layers.convert import CONVERTED, convert
from dopant.storage.config import FolderConfig
from dopant.storage.contents import Contents
from dopant.storage.pack import Layout, TensorType
from dopant.storage.read import Headers, check_finite
from dopant.structures.base import StructuredWeight
from dopant.structures.dense import DenseWeight


def converted(model: nn.Module, config: FolderConfig) -> nn.Module:
    """A copy of a module in which those of torch's layers are ours that were ours when the folder was written."""
    names = {*config.weights, *config.tied}
    layers = {name for name, module in model.named_modules() if type(module) in CONVERTED}
    stored = layers & {name.rpartition(".")[0] for name in names}
    split = {name.rpartition(".")[0] for name in names if name.rpartition(".")[2].startswith("weight_ih_")} & layers
    if split:
        model = convert(model, joint=False, ignore=layers - split)
    return convert(model, joint=True, ignore=layers - stored)


def plain_layout(headers: Headers, parts: Contents, *, exact: bool) -> Layout:
    """The tensors other than weights that a model needs.

    Args:
        headers: of the folder.
        parts: of the model.
        exact: float types must be the model's own, else any float type will do.

    Raises:
        TensorError: the folder's weights or tied places are not those of the model.
    """
    config = headers.config
    _check_places(parts, config)
    types: Layout = {}
    for name, tensor in parts.plain.items():
        found = headers.tensors.tensors.get(config.tied.get(name, name))
        floats = found is not None and found.dtype.is_floating_point and tensor.is_floating_point()
        dtype = found.dtype if found is not None and floats and not exact else tensor.dtype
        want = TensorType(dtype, tuple(tensor.shape))
        if name not in config.tied:
            types[name] = want
        elif found is None or not want.fits(found.dtype, found.shape):
            raise TensorError(f"tensor {name!r} shares {config.tied[name]!r}, which must be {want}")
    return types


def fill(
    model: nn.Module,
    parts: Contents,
    config: FolderConfig,
    weights: Mapping[str, StructuredWeight],
    tensors: Mapping[str, Tensor],
) -> None:
    """Put weights and tensors, all of them checked before, into a model in place.

    Raises:
        TensorError: a parameter that is not finite; the model is then unchanged.
        InputError: the model has a tensor on the meta device that no file holds.
    """
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name, tensor in tensors.items():
        if name in parameters:
            check_finite(name, tensor)
    ties: dict[int, Tensor] = {}  # matrices that layers of torch's may be tied to
    for name, (module, attribute) in parts.places.items():
        old = getattr(module, attribute)
        key = config.tied.get(name, name)
        new = _like(old, weights[key])
        new.storage = config.weights[key].storage
        if isinstance(old, DenseWeight) and isinstance(new, DenseWeight):
            ties[id(old.matrix)] = new.matrix
        setattr(module, attribute, new)
    _make_room(model, parts, ties)
    model.load_state_dict({name: tensors[config.tied.get(name, name)] for name in parts.plain}, strict=False)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise InputError(
                f"{name!r} is on the meta device and in no file, for it is no part of the model's state; "
                "build the model on the CPU, or register the buffer as persistent and save again"
            )


def _make_room(model: nn.Module, parts: Contents, made: dict[int, Tensor]) -> None:
    """Memory on the CPU for plain tensors on the meta device, of their type; shared ones stay shared.

    Args:
        model: is changed.
        parts: of the model as it was.
        made: what has taken the place of tensors already, by their id.
    """
    for tensor in parts.plain.values():
        if tensor.is_meta and id(tensor) not in made:
            room = torch.empty_like(tensor, device="cpu")
            made[id(tensor)] = nn.Parameter(room, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else room
    for module in model.modules():
        for name, held in (*module._parameters.items(), *module._buffers.items()):
            if id(held) in made:
                setattr(module, name, made[id(held)])


def _check_places(parts: Contents, config: FolderConfig) -> None:
    places = parts.places
    known = {*places, *parts.plain, *parts.tied}
    for name in [*(set(config.weights) - set(places)), *(set(config.tied) - known)]:
        raise TensorError(f"weight {name[:80]!r} belongs to nothing in this model")
    for name, (module, attribute) in places.items():
        entry = config.weights.get(config.tied.get(name, name))
        if entry is None:
            raise TensorError(f"weight {name!r} is missing")
        weight = getattr(module, attribute)
        if entry.shape != weight.shape:
            raise TensorError(f"weight {name!r} is of shape {entry.shape} where {weight.shape} is needed")


def _like(old: nn.Module, new: StructuredWeight) -> StructuredWeight:
    """The new weight on the device and in the float type of the old one, frozen where that was."""
    tensor = next(old.parameters())
    new.requires_grad_(any(parameter.requires_grad for parameter in old.parameters()))
    return new.to(device=None if tensor.is_meta else tensor.device, dtype=tensor.dtype)
