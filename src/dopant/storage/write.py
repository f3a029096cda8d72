"""Writing a model folder, once all that goes into it is there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from dopant.storage.config import CONFIG, FILES, METADATA, TENSORS, FolderConfig
from dopant.storage.replace import written_beside
from dopant.storage.tensors import write_tensors


def write_folder(
    folder: Path, config: FolderConfig, tensors: Mapping[str, Tensor], others: Mapping[str, bytes], *, force: bool
) -> None:
    """Write a folder; it appears whole or not at all.

    Args:
        config: what it says, but for `files`.
        tensors: under their full names.
        others: tokenizer and recipe, by the names of their files.
        force: replace an old folder; `check_place` has been asked before.

    Raises:
        InputError: `config.extra` is no plain JSON.
        FileError: the disk is full, or the folder cannot be written.
    """
    with written_beside(folder, replace=force) as beside:
        with (beside / TENSORS).open("wb") as file:
            write_tensors(file, tensors, METADATA)
        for name, content in others.items():
            (beside / name).write_bytes(content)
        files = {name: _sha256(beside / name) for name in FILES if (beside / name).exists()}
        (beside / CONFIG).write_bytes(replace(config, files=files).to_bytes())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
