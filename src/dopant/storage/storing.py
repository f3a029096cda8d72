"""A folder written once more with its numbers kept otherwise: no training, and no code of the model, is needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from dopant.cost import Indices, Storage, Values
from dopant.errors import InputError
from dopant.plan.rules import match
from dopant.storage.config import RECIPE, TOKENIZER, FolderConfig
from dopant.storage.folder import check_place
from dopant.storage.pack import POSITIONS, layout, pack
from dopant.storage.read import Headers, naming, read_numbers, read_optional, read_whole, unpack_weight
from dopant.storage.write import write_folder
from dopant.structures import Dense, StructuredWeight


@dataclass(frozen=True)
class Rewritten:
    """How a weight was kept and how it is now, with the bytes of its tensors; and whether it keeps any positions."""

    name: str
    positions: bool
    before: Storage
    after: Storage
    bytes_before: int
    bytes_after: int


def store(
    folder: str | Path,
    out: str | Path,
    *,
    values: Values | None = None,
    indices: Indices | None = None,
    weights: Sequence[str] | None = None,
    force: bool = False,
) -> tuple[Rewritten, ...]:
    """Write a copy of a model folder whose weights are kept in another type of values or code of positions.

    All else is copied as it is: other weights and tensors to the byte, the tokenizer, and the recipe, which goes on
    telling how the model was made. What rounding costs, `evaluate` tells.

    Args:
        folder: of any model.
        out: the new folder; it appears whole or not at all.
        values, indices: as `Storage` knows them; None leaves them as they are.
        weights: names, or `re:` patterns of whole names; None for all weights that are not dense.
        force: replace an old model folder, be it `folder` itself.

    Returns:
        every weight of the folder in its order, also those that stay as they were.

    Raises:
        InputError: nothing would change; a type or code that is not known; a place that is taken; numbers that the type
            cannot hold.
        PlanError: (of `weights`) a pattern that means no weight.
        FileError: (or a subclass) no model folder, a damaged one, or `out` cannot be written.
    """
    if values is None and indices is None:
        raise InputError("nothing is to be stored otherwise; say values or indices, or both")
    wanted = {key: value for key, value in (("values", values), ("indices", indices)) if value is not None}
    Storage(**wanted)  # type: ignore[arg-type]
    place = Path(out)
    check_place(place, force=force)
    config, tensors, files, changes = read_whole(folder, partial(_rewritten, folder, wanted, weights))
    write_folder(place, config, tensors, files, force=force)
    return changes


def _rewritten(
    folder: str | Path, wanted: dict[str, Any], weights: Sequence[str] | None, headers: Headers
) -> tuple[FolderConfig, dict[str, Tensor], dict[str, bytes], tuple[Rewritten, ...]]:
    entries = headers.config.weights
    with naming(folder):
        headers.check_weights()
        tensors = read_numbers(headers)
        files = {name: found for name in (TOKENIZER, RECIPE) if (found := read_optional(headers, name)) is not None}
        chosen = _chosen(headers.config, weights)
        changes = []
        for name, entry in entries.items():
            keys = [f"{name}.{key}" for key in layout(entry.structure, entry.shape, entry.storage)]
            positions = any(key.endswith(POSITIONS) for key in keys)
            told = {key: value for key, value in wanted.items() if positions or key != "indices"}
            after = dataclasses.replace(entry.storage, **told) if name in chosen else entry.storage
            bytes_before = bytes_after = _bytes(tensors[key] for key in keys)
            if after != entry.storage:
                packed = _packed(name, unpack_weight(name, entry, tensors), after)
                bytes_after = _bytes(packed.values())
                tensors |= packed
            changes.append(Rewritten(name, positions, entry.storage, after, bytes_before, bytes_after))
    if all(change.after == change.before for change in changes):
        raise InputError(f"nothing would change: {folder} keeps {', '.join(chosen) or 'no weight'} so already")
    kept = {change.name: dataclasses.replace(entries[change.name], storage=change.after) for change in changes}
    return dataclasses.replace(headers.config, weights=kept), tensors, files, tuple(changes)


def _chosen(config: FolderConfig, weights: Sequence[str] | None) -> Collection[str]:
    if weights is not None:
        return match(list(config.weights), weights, tied=config.tied).chosen
    compressed = [name for name, entry in config.weights.items() if not isinstance(entry.structure, Dense)]
    if not compressed:
        raise InputError("all weights are dense; name those that are meant, by weights or --weight: 're:.*' for all")
    return compressed


def _packed(name: str, weight: StructuredWeight, storage: Storage) -> dict[str, Tensor]:
    try:
        return {f"{name}.{key}": tensor for key, tensor in pack(weight, storage).items()}
    except InputError as error:
        raise InputError(f"{name}.{error}") from error


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
