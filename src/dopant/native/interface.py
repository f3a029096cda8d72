"""The C interface: each function of `native/library.cpp` with its result and its arguments, as ctypes wants them."""

from __future__ import annotations

from ctypes import CDLL, Structure, c_char_p, c_double, c_int, c_int64, c_void_p
from typing import Any, ClassVar

VERSION = 5
"""What `dopant_version` answers where it speaks this interface."""

_ARRAY = _HANDLE = c_void_p  # of arrays the address, as in `array.ctypes.data`


class StepCall(Structure):
    """`DopantStep`: all that a step is called with."""

    _fields_: ClassVar[list[tuple[str, Any]]] = [
        ("lstm", _HANDLE),
        ("x", _ARRAY),
        ("before", _ARRAY),
        ("after", _ARRAY),
        ("y", _ARRAY),
        ("batch", c_int),
    ]


FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "dopant_version": (c_int, ()),
    "dopant_error": (c_char_p, ()),
    "dopant_best_level": (c_char_p, ()),
    "dopant_dense": (_HANDLE, (c_int, c_int, _ARRAY)),
    "dopant_dense_int8": (_HANDLE, (c_int, c_int, _ARRAY, _ARRAY, c_int)),
    "dopant_sparse": (_HANDLE, (c_int, c_int, c_int, _ARRAY, _ARRAY, _ARRAY)),
    "dopant_sparse_int8": (_HANDLE, (c_int, c_int, c_int, _ARRAY, _ARRAY, _ARRAY, _ARRAY, c_int)),
    "dopant_kronecker": (_HANDLE, (c_int, c_int, _ARRAY, _ARRAY, c_int)),
    "dopant_sum": (_HANDLE, (_ARRAY, c_int)),
    "dopant_stack": (_HANDLE, (_ARRAY, c_int)),
    "dopant_product": (_HANDLE, (_HANDLE, _HANDLE)),
    "dopant_free_weight": (None, (_HANDLE,)),
    "dopant_weight_bytes": (c_int64, (_HANDLE,)),
    "dopant_set_threads": (None, (c_int,)),
    "dopant_linear": (c_int, (_HANDLE, _ARRAY, _ARRAY, c_int, _ARRAY)),
    "dopant_rows": (c_int, (_HANDLE, _ARRAY, c_int64, _ARRAY)),
    "dopant_lstm": (_HANDLE, (c_int, c_int, _ARRAY, _ARRAY, _ARRAY, _ARRAY, _ARRAY, _ARRAY, c_int)),
    "dopant_free_lstm": (None, (_HANDLE,)),
    "dopant_lstm_bytes": (c_int64, (_HANDLE,)),
    "dopant_state_size": (c_int64, (_HANDLE, c_int)),
    "dopant_lstm_run": (c_int, (_HANDLE, _ARRAY, c_int, c_int, _ARRAY, _ARRAY, _ARRAY)),
    "dopant_lstm_step": (c_int, (_ARRAY,)),
    "dopant_state_from": (None, (_HANDLE, _ARRAY, _ARRAY, c_int, _ARRAY)),
    "dopant_state_to": (None, (_HANDLE, _ARRAY, c_int, _ARRAY, _ARRAY)),
    "dopant_log_softmax": (None, (_ARRAY, c_int, c_int)),
    "dopant_read_bandwidth": (c_double, (c_int64,)),
    "dopant_multiply_add_peak": (c_double, ()),
}


def declare(library: CDLL) -> None:
    """Tell ctypes the results and arguments of all functions."""
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
