"""Putting what was read into a model."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from dopant.errors import TensorError
from dopant.layers.convert import convert
from dopant.storage.config import FolderConfig
from dopant.storage.contents import Contents
from dopant.storage.pack import Layout, TensorType
from dopant.storage.read import Headers, check_finite
from dopant.structures.base import StructuredWeight

_TORCH_LAYERS = (nn.Linear, nn.Embedding, nn.LSTM)


def converted(model: nn.Module, config: FolderConfig) -> nn.Module:
    """A copy of a module in which those of torch's layers are ours that were ours when the folder was written."""
    names = {*config.weights, *config.tied}
    layers = {name for name, module in model.named_modules() if type(module) in _TORCH_LAYERS}
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
    """
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name, tensor in tensors.items():
        if name in parameters:
            check_finite(name, tensor)
    for name, (module, attribute) in parts.places.items():
        setattr(module, attribute, _like(getattr(module, attribute), weights[config.tied.get(name, name)]))
    state = {name: tensors[config.tied.get(name, name)] for name in parts.plain}
    if any(tensor.is_meta for tensor in parts.plain.values()):
        model.load_state_dict(state, strict=False, assign=True)
    else:
        model.load_state_dict(state, strict=False)


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
    """The new weight on the device and in the float type of the old one."""
    tensor = next(old.parameters())
    return new.to(device=None if tensor.is_meta else tensor.device, dtype=tensor.dtype)
