"""Writing a model folder, once all that goes into it is there."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dopant.ops.nibbles import decode_nibbles
from dopant.ops.quantise import INT4, INT8
from dopant.storage.config import CONFIG, FILES, METADATA, TENSORS, FolderConfig
from dopant.storage.pack import SCALE
from dopant.storage.replace import written_beside
from dopant.storage.tensors import write_tensors


def write_folder(
    folder: Path, config: FolderConfig, tensors: Mapping[str, Tensor], files: Mapping[str, bytes], *, force: bool
) -> None:
    """Write a folder; it appears whole or not at all. Whole numbers that are too small for their scales are warned of.

    Args:
        config: what it says, but for `files`.
        tensors: under their full names.
        files: tokenizer and recipe, by the names of their files.
        force: replace an old folder; `check_place` has been asked before.

    Raises:
        InputError: `config.extra` is no plain JSON.
        FileError: the disk is full, or the folder cannot be written.
    """
    _warn_of_small(tensors)
    with written_beside(folder, replace=force) as beside:
        with (beside / TENSORS).open("wb") as file:
            write_tensors(file, tensors, METADATA)
        for name, content in files.items():
            (beside / name).write_bytes(content)
        sums = {name: _sha256(beside / name) for name in FILES if (beside / name).exists()}
        (beside / CONFIG).write_bytes(replace(config, files=sums).to_bytes())


def _warn_of_small(tensors: Mapping[str, Tensor]) -> None:
    """Tell of whole numbers below what float16 scales reach; no error, for to some models such a matrix is noise."""
    for name, scales in tensors.items():
        numbers = tensors.get(name.removesuffix(SCALE))
        if not name.endswith(SCALE) or numbers is None or not numbers.numel():
            continue
        if numbers.dtype == torch.uint8:
            kind, last, levels = "int4", INT4.last, decode_nibbles(numbers, 2 * numbers.shape[-1])
        else:
            kind, last, levels = "int8", INT8.last, numbers
        largest = int(levels.abs().max())
        if 2 * largest < last and scales.max() > 0.0:  # else a row of the largest scale has the last level, or nearly
            what = f"{name.removesuffix(SCALE)} is so small that of {last} levels of {kind} it uses {largest}"
            warnings.warn(f"{what}; scales are float16: store its weight as float32 if it matters", stacklevel=4)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
