"""The packages of the extra `onnx`, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from dopant.errors import InputError


def extra(package: str) -> Any:
    """`onnx` or `onnxruntime`, or a module of theirs.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        name = package.partition(".")[0]
        raise InputError(f"{name} is not installed; get it with: pip install 'dopant[onnx]'") from error
