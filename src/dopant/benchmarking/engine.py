"""An engine: something that runs the model, under a name and in a precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dopant.benchmarking.record import Part
from dopant.benchmarking.subject import Array, Subject

Run = Callable[[], Any]
"""One run from the state at the start; gives the output, as `as_array` reads it."""

Bind = Callable[[Array], Run]
"""An input of a case -> the run with it."""


@dataclass(frozen=True)
class Engine:
    """A way to run a model.

    Args:
        name: dopant, torch, torch-int8, onnxruntime or onnxruntime-int8.
        precision: of its numbers: exact or fast (ours), float32 or int8.
        build: (subject, part, threads) -> bind; does all that is done once a model.
        close: whether its output must equal that of float32 arithmetic but for rounding.
    """

    name: str
    precision: str
    build: Callable[[Subject, Part, int], Bind]
    close: bool

    def __str__(self) -> str:
        return f"{self.name} {self.precision}" if self.name == "dopant" else self.name


def as_array(output: Any) -> Array:
    """An output of any engine, (steps, batch, …), as a numpy array: a copy, as the engine may write there again."""
    return np.array(output if isinstance(output, np.ndarray) else output.numpy())
