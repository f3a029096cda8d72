"""What the native library owns for us, and addresses of what we own for it."""

from __future__ import annotations

from ctypes import CDLL, addressof, c_char, c_void_p
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dopant.errors import DopantError, InputError

Floats = npt.NDArray[np.float32]

_memory_of = c_char.from_buffer  # bound once: at each step some tens of nanoseconds less


class Handle:
    """Something that the library made, freed with this object. It never changes, so a copy is the thing itself.

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


def address(array: Any) -> int:
    """Of a contiguous array's memory, for as long as the array is held; three times as fast as `array.ctypes.data`."""
    try:
        return addressof(_memory_of(array))
    except (TypeError, ValueError):  # an array that is read-only, or empty
        if not array.flags.c_contiguous:
            raise
        return int(array.ctypes.data)


def float_array(tensor: Tensor) -> Floats:
    """A tensor as a contiguous float32 array; hold on to it for as long as its address is in use."""
    return np.ascontiguousarray(tensor.detach().float().cpu().numpy())
