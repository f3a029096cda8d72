"""The same interface on composed torch operations: what serves where there is no native library."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dopant.layers import LSTM
from dopant.runtime.checks import FLOAT32, as_array, check_batch, check_input, check_parts, check_state, first_state
from dopant.runtime.handle import Floats
from dopant.runtime.stepper import AnyStepper
from dopant.structures import StructuredWeight


class TorchWeight:
    """As PackedWeight: a copy of the weight, in torch."""

    def __init__(self, weight: StructuredWeight) -> None:
        self.shape = weight.shape
        self.weight = copy.deepcopy(weight).float().cpu().requires_grad_(False)

    @property
    def bytes(self) -> int:
        """Bytes that it holds."""
        return _bytes(self.weight)

    def linear(self, x: Floats, bias: Floats | None = None) -> Floats:
        """x (n, in) -> x Wᵀ + bias (n, out)."""
        with torch.no_grad():
            y = _numpy(self.weight.linear(torch.from_numpy(x)))
        return y if bias is None else y + bias

    def rows(self, index: npt.NDArray[np.int64]) -> Floats:
        """Rows of W: index (n,) -> (n, in)."""
        with torch.no_grad():
            return _numpy(self.weight.rows(torch.from_numpy(index)))


@dataclass(frozen=True)
class TorchState:
    """As State: h and c as torch.nn.LSTM has them."""

    h: Tensor
    c: Tensor
    lstm: TorchLSTM

    @property
    def batch(self) -> int:
        """How many sequences."""
        return self.h.shape[1]

    def arrays(self) -> tuple[Floats, Floats]:
        """H and c, the caller's own."""
        return _numpy(self.h).copy(), _numpy(self.c).copy()


class TorchLSTM:
    """As PackedLSTM: a copy of the layers, in torch; it never forms a matrix."""

    def __init__(self, lstm: LSTM) -> None:
        self.lstm = copy.deepcopy(lstm).float().cpu().eval().requires_grad_(False)
        self.lstm.contraction = "factored"
        self.inputs = lstm.input_size

    @property
    def bytes(self) -> int:
        """Bytes that its weights hold."""
        return _bytes(self.lstm)

    def shapes(self, batch: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """The shapes of h and c."""
        count = self.lstm.num_layers * self.lstm.directions
        return (count, batch, self.lstm.output_size), (count, batch, self.lstm.hidden_size)

    def initial(self, batch: int) -> TorchState:
        """A state of zeros."""
        check_batch(batch)
        h, c = (torch.zeros(shape) for shape in self.shapes(batch))
        return TorchState(h, c, self)

    def state(self, h: npt.ArrayLike, c: npt.ArrayLike) -> TorchState:
        """A state from h and c as torch.nn.LSTM has them."""
        first, second = as_array("h", h, FLOAT32), as_array("c", c, FLOAT32)
        check_parts(first, second, self.shapes)
        return TorchState(torch.tensor(first), torch.tensor(second), self)

    def step(self, x: Floats, state: TorchState | None = None) -> tuple[Floats, TorchState]:
        """One step: x (batch, in) -> (batch, out), and the state after it."""
        y, state = self.sequence(check_input(x, 2, self.inputs)[None], state)
        return y[0], state

    def sequence(self, x: Floats, state: TorchState | None = None) -> tuple[Floats, TorchState]:
        """Many steps: x (time, batch, in) -> (time, batch, out), and the state after the last."""
        x = check_input(x, 3, self.inputs)
        before = self.initial(x.shape[1]) if state is None else state
        check_state(before, self, x.shape[1])
        with torch.no_grad():
            y, (h, c) = self.lstm(torch.tensor(x), (before.h, before.c))
        return _numpy(y), TorchState(h, c, self)

    def stepper(self, state: TorchState | int | None = None, *, carry: bool = True) -> TorchStepper:
        """Steps in memory that is set up once, from a state on, or from zeros for a batch."""
        return TorchStepper(first_state(self, state), carry=carry)


class TorchStepper(AnyStepper):
    """As Stepper."""

    __slots__ = ("_after", "_before")

    def __init__(self, state: TorchState, *, carry: bool = True) -> None:
        layers = state.lstm.lstm
        super().__init__(state.batch, layers.input_size, layers.output_size * layers.directions)
        self._after = state
        self._before = None if carry else state

    def step(self) -> Floats:
        """Read `x`, go on to the next state, and return `y`."""
        self._y[:], self._after = self._after.lstm.step(self._x, self._before or self._after)
        return self._y

    @property
    def state(self) -> TorchState:
        """The state after the last step, or before the first."""
        return self._after


def _bytes(module: torch.nn.Module) -> int:
    tensors: list[Any] = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _numpy(tensor: Tensor) -> Floats:
    return np.ascontiguousarray(tensor.float().numpy())
