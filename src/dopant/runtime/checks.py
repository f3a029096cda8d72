"""What both paths, native and torch, ask of their inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from dopant.errors import InputError
from dopant.runtime.handle import Floats

Shapes = Callable[[int], tuple[tuple[int, int, int], tuple[int, int, int]]]
"""The shapes of h and c for a batch."""

FLOAT32 = np.dtype(np.float32)
_MOST = 2**30


def as_array(name: str, values: Any, dtype: Any = None) -> npt.NDArray[Any]:
    """Values as a contiguous array, of the dtype if one is given.

    Raises:
        InputError: they cannot be: rows differ in length, it is text, or a tensor elsewhere or with gradients.
    """
    try:
        return np.ascontiguousarray(values, dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must be an array of numbers, got a {type(values).__name__}: {error}") from None


def check_batch(batch: object) -> None:
    """Raise InputError unless it is a whole number of 1 or more that the kernels can count to."""
    if not isinstance(batch, (int, np.integer)) or isinstance(batch, bool) or batch < 1:
        raise InputError(f"batch must be 1 or more, got {batch!r}")
    check_count(int(batch))


def check_count(count: int) -> None:
    """Raise InputError if it is more than a call takes: the kernels count in 32 bits, and ctypes cuts off the rest."""
    if count > _MOST:
        raise InputError(f"a call takes {_MOST} rows, sequences or steps at most, got {count}; make several calls")


def check_input(x: Any, dimensions: int, inputs: int) -> Floats:
    """The inputs of an LSTM as a contiguous array.

    Raises:
        InputError: they are not float32 of (batch, inputs) or (time, batch, inputs), or there are none.
    """
    array = as_array("x", x)
    if array.dtype != FLOAT32:
        raise InputError(f"x must be float32, got {array.dtype}")
    shape = array.shape
    if len(shape) != dimensions or shape[-1] != inputs or 0 in shape:
        wanted = f"(batch, {inputs})" if dimensions == 2 else f"(time, batch, {inputs})"
        raise InputError(f"x must be of shape {wanted} with 1 or more of each, got {array.shape}")
    check_count(max(shape))
    return array


def check_state(state: Any, lstm: object, batch: int) -> None:
    """Raise InputError unless a state is this LSTM's and of this batch."""
    if getattr(state, "lstm", None) is not lstm:
        ours = hasattr(state, "lstm")
        what = (
            "this state belongs to another model"
            if ours
            else f"a state must be a state of the runtime's, got a {type(state).__name__}"
        )
        raise InputError(f"{what}; start with `initial(batch)` or `state(h, c)`")
    if state.batch != batch:
        raise InputError(f"the state is of {state.batch} sequences, x of {batch}")


def first_state(lstm: Any, state: Any) -> Any:
    """A state of this LSTM to begin with: the one that is given, or zeros for a batch, of one for None.

    Raises:
        InputError: it is another LSTM's state, or a batch below 1.
    """
    if state is None or isinstance(state, (int, np.integer)):
        return lstm.initial(1 if state is None else state)
    check_state(state, lstm, getattr(state, "batch", 0))
    return state


def check_parts(h: Floats, c: Floats, shapes: Shapes) -> int:
    """The batch of h and c.

    Raises:
        InputError: their shapes are not those of one batch.
    """
    batch = h.shape[1] if h.ndim == 3 else 0
    for name, part, shape in zip("hc", (h, c), shapes(batch), strict=True):
        if part.shape != shape or batch < 1:
            raise InputError(
                f"{name} must be (layers·directions, batch, size) with {shape[0]} and {shape[2]}, got {part.shape}"
            )
    return batch
