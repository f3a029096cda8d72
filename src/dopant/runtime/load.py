"""From a folder to a runtime."""

from __future__ import annotations

from pathlib import Path

from dopant.data.tokenizers import tokenizer_from
from dopant.runtime.packed import Precision, check_precision
from dopant.runtime.runtime import Runtime
from dopant.storage.folder import load_model


def load(folder: str | Path, *, precision: Precision = "exact") -> Runtime:
    """Read a language model's folder and pack it to run. For the torch module use `dopant.load_model`.

    Raises:
        InputError: an unknown precision.
        FileError: the folder cannot be read, or holds a module of the user's own.
    """
    check_precision(precision)
    loaded = load_model(folder)
    tokenizer = None if loaded.tokenizer is None else tokenizer_from(loaded.tokenizer)
    return Runtime(loaded.model, tokenizer, precision=precision)
