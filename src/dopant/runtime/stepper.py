"""Steps of an LSTM in memory that is set up once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from ctypes import byref
from typing import Any, NoReturn

import numpy as np

from dopant.errors import InputError
from dopant.native.interface import StepCall
from dopant.runtime.handle import Floats, check, pointer
from dopant.runtime.state import State


class AnyStepper(ABC):
    """One step after another, for loops in which microseconds count: write to `x`, call `step`, read what it returns.

        stepper = runtime.lstm.stepper()
        while listening:
            stepper.x[0] = features
            use(stepper.step()[0])

    A stepper is for one thread at a time.

    Args:
        batch, inputs, outputs: sizes of `x` and `y`.
    """

    __slots__ = ("_held", "_x", "_y")

    def __init__(self, batch: int, inputs: int, outputs: int) -> None:
        # Kernels know the memory by its address: what is handed out does not own it, and so cannot be resized.
        self._held: tuple[Floats, Floats] = (
            np.zeros(batch * inputs, np.float32),
            np.zeros(batch * outputs, np.float32),
        )
        self._x: Floats = self._held[0].reshape(batch, inputs)
        self._y: Floats = self._held[1].reshape(batch, outputs)

    @property
    def x(self) -> Floats:
        """(batch, in) to be written to; zeros at first."""
        return self._x

    @x.setter
    def x(self, values: object) -> None:
        if values is not self._x:  # it is after `stepper.x += 1`
            raise InputError("x of a stepper cannot be another array; write into it, as in stepper.x[:] = values")

    @property
    def y(self) -> Floats:
        """(batch, directions·out), which each step writes."""
        return self._y

    @abstractmethod
    def step(self) -> Floats:
        """Read `x`, go on to the next state, and return `y`, the same array each time.

        Raises:
            DopantError: memory ran out; the state is of no use then.
        """

    def __reduce__(self) -> NoReturn:  # which copies ask, too
        raise InputError("a stepper cannot be copied or pickled; begin another one with stepper.state")


class Stepper(AnyStepper):
    """By the native kernels: what they take is put together once.

    `PackedLSTM.step` checks its arguments and makes new arrays at each call, which takes Python some three
    microseconds: a quarter and more of a step of one sequence.

    Args:
        state: to go on from; it stays as it is.
        carry: go on from the state after a step, not each time from the first one.
    """

    __slots__ = ("_after", "_before", "_call", "_lstm", "_run")

    def __init__(self, state: State, *, carry: bool = True) -> None:
        lstm = state.lstm
        super().__init__(state.batch, lstm.inputs, lstm.width)
        self._before = state.values.copy()
        self._after = self._before if carry else self._before.copy()
        self._lstm = lstm
        addresses = (array.ctypes.data for array in (self._x, self._before, self._after, self._y))
        self._call: Any = byref(StepCall(lstm.handle._as_parameter_, *addresses, state.batch))
        self._run: Any = lstm.handle.library["dopant_lstm_step"]  # without types, see `Handle`

    def step(self) -> Floats:
        """Read `x`, go on to the next state, and return `y`."""
        if result := self._run(self._call):
            check(self._lstm.handle.library, result)
        return self._y

    @property
    def state(self) -> State:
        """The state after the last step, or before the first, as `PackedLSTM.step` takes it; it does not change."""
        values = self._after.copy()
        return State(values, pointer(values), len(values), len(self._x), self._lstm)
