"""The same interface on composed torch operations: what serves where there is no native library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dopant.errors import InputError
from dopant.layers import LSTM
from dopant.runtime.packed import Floats
from dopant.structures import StructuredWeight


class TorchWeight:
    """As PackedWeight, without packing."""

    def __init__(self, weight: StructuredWeight) -> None:
        self.shape = weight.shape
        self.weight = weight

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
        """H and c."""
        return _numpy(self.h), _numpy(self.c)


class TorchLSTM:
    """As PackedLSTM; it never forms a matrix."""

    def __init__(self, lstm: LSTM) -> None:
        self.lstm = lstm
        self.inputs = lstm.input_size
        self.lstm.contraction = "factored"

    @property
    def bytes(self) -> int:
        """Bytes that its weights hold."""
        return _bytes(self.lstm)

    def initial(self, batch: int) -> TorchState:
        """A state of zeros."""
        if batch < 1:
            raise InputError(f"batch must be 1 or more, got {batch}")
        count = self.lstm.num_layers * self.lstm.directions
        h = torch.zeros(count, batch, self.lstm.output_size)
        return TorchState(h, torch.zeros(count, batch, self.lstm.hidden_size), self)

    def state(self, h: npt.ArrayLike, c: npt.ArrayLike) -> TorchState:
        """A state from h and c as torch.nn.LSTM has them."""
        first, second = (torch.from_numpy(np.array(part, np.float32)) for part in (h, c))
        return TorchState(first, second, self)

    def step(self, x: Floats, state: TorchState | None = None) -> tuple[Floats, TorchState]:
        """One step: x (batch, in) -> (batch, out), and the state after it."""
        if x.ndim != 2:
            raise InputError(f"a step takes x of (batch, {self.inputs}), got shape {x.shape}")
        y, state = self.sequence(x[None], state)
        return y[0], state

    def sequence(self, x: Floats, state: TorchState | None = None) -> tuple[Floats, TorchState]:
        """Many steps: x (time, batch, in) -> (time, batch, out), and the state after the last."""
        if x.ndim != 3 or x.shape[2] != self.inputs or 0 in x.shape:
            raise InputError(
                f"a sequence is (time, batch, {self.inputs}) with a step and a sequence or more, got shape {x.shape}"
            )
        if x.dtype != np.float32:
            raise InputError(f"x must be float32, got {x.dtype}")
        if state is not None and state.lstm is not self:
            raise InputError("this state belongs to another model; start with `initial(batch)` or `state(h, c)`")
        if state is not None and state.batch != x.shape[1]:
            raise InputError(f"the state is of {state.batch} sequences, x of {x.shape[1]}")
        with torch.no_grad():
            y, (h, c) = self.lstm(
                torch.from_numpy(np.ascontiguousarray(x)), None if state is None else (state.h, state.c)
            )
        return _numpy(y), TorchState(h, c, self)


def _bytes(module: torch.nn.Module) -> int:
    tensors: list[Any] = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _numpy(tensor: Tensor) -> Floats:
    return np.ascontiguousarray(tensor.float().numpy())
