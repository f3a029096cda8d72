"""What the native library owns for us, and pointers to what we own for it."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import CDLL, byref, c_char, c_void_p
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dopant.errors import DopantError, InputError

Floats = npt.NDArray[np.float32]

memory_of: Callable[[Any], c_char] = c_char.from_buffer
"""A writable, contiguous array's memory, which `byref` points into; it holds on to it."""


_RUN = {"weight": "dopant_linear", "lstm": "dopant_lstm_run"}


class Handle:
    """Something that the library made, freed with this object. It never changes, so a copy is the thing itself.

    `run` is the function that it is there for. It takes arguments as they are, this handle, pointers of ctypes, ints:
    to check and convert them would take 0.3 µs a call, and a step of one sequence takes ten.

    Args:
        library: the native library.
        kind: `weight` or `lstm`; the library has a function `dopant_free_<kind>`.
        made: what the constructor returned.

    Raises:
        DopantError: that was null; the message is the library's.
    """

    def __init__(self, library: CDLL, kind: str, made: int | None) -> None:
        self.library = library
        self._as_parameter_ = c_void_p(made)  # ctypes passes this object as it
        self.run: Any = library[_RUN[kind]]  # indexing makes another function object, without types
        self._free: Any = getattr(library, f"dopant_free_{kind}") if made else None
        if not made:
            raise DopantError(f"the native library could not pack: {library.dopant_error().decode()}")

    def __copy__(self) -> Handle:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Handle:
        return self

    def __reduce__(self) -> NoReturn:
        raise InputError("packed weights cannot be pickled; save the model's folder and load that")

    def __del__(self) -> None:
        if getattr(self, "_free", None) is not None:
            self._free(self)


def check(library: CDLL, result: int) -> None:
    """Raise DopantError if a native call failed (it ran out of memory)."""
    if result != 0:
        raise DopantError(f"the native library failed: {library.dopant_error().decode()}")


def pointer(array: Any) -> Any:
    """To a contiguous array's memory, as an argument for ctypes; several times as fast as `array.ctypes.data`."""
    try:
        return byref(memory_of(array))
    except (TypeError, ValueError):  # an array that is read-only, or empty
        if not array.flags.c_contiguous:
            raise
        return c_void_p(array.ctypes.data)


def float_array(tensor: Tensor) -> Floats:
    """A tensor as a contiguous float32 array; hold on to it for as long as its address is in use."""
    return np.ascontiguousarray(tensor.detach().float().cpu().numpy())
