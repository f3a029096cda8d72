"""Steps of an LSTM in memory that is set up once."""

from __future__ import annotations

from ctypes import byref
from typing import Any

import numpy as np

from dopant.native.interface import StepCall
from dopant.runtime.handle import Floats, check, pointer
from dopant.runtime.state import State


class Stepper:
    """One step after another, for loops in which microseconds count: write to `x`, call `step`, read `y`.

        stepper = runtime.lstm.stepper()
        while listening:
            stepper.x[0] = features
            use(stepper.step()[0])

    `PackedLSTM.step` checks its arguments and makes new arrays at each call, which takes Python three microseconds, a
    fourth of what a step of one sequence takes; here that is done once. A stepper is for one thread at a time.

    Args:
        state: to go on from; it stays as it is.
        carry: go on from the state after a step, not each time from the first one.
    """

    __slots__ = ("_after", "_before", "_call", "_lstm", "_run", "_x", "_y")

    def __init__(self, state: State, *, carry: bool = True) -> None:
        lstm, batch = state.lstm, state.batch
        self._x: Floats = np.zeros((batch, lstm.inputs), np.float32)
        self._y: Floats = np.zeros((batch, lstm.width), np.float32)
        self._before = state.values.copy()
        self._after = self._before if carry else self._before.copy()
        self._lstm = lstm
        addresses = (array.ctypes.data for array in (self._x, self._before, self._after, self._y))
        self._call: Any = byref(StepCall(lstm.handle._as_parameter_, *addresses, batch))
        self._run: Any = lstm.handle.library["dopant_lstm_step"]  # without types, see `Handle`

    @property
    def x(self) -> Floats:
        """(batch, in) to be written to; zeros at first."""
        return self._x

    @property
    def y(self) -> Floats:
        """(batch, directions·out), which each step writes."""
        return self._y

    def step(self) -> Floats:
        """Read `x`, go on to the next state, and return `y`, the same array each time.

        Raises:
            DopantError: memory ran out; the state is of no use then.
        """
        if result := self._run(self._call):
            check(self._lstm.handle.library, result)
        return self._y

    @property
    def state(self) -> State:
        """The state after the last step, as `PackedLSTM.step` takes it; later steps do not change it."""
        values = self._after.copy()
        return State(values, pointer(values), len(values), len(self._x), self._lstm)
