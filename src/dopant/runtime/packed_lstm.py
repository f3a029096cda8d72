"""The LSTM layers of a model, packed."""

from __future__ import annotations

from ctypes import CDLL, byref, c_void_p

import numpy as np
import numpy.typing as npt

from dopant.layers import LSTM
from dopant.runtime.checks import FLOAT32, as_array, check_batch, check_input, check_parts, check_state, first_state
from dopant.runtime.handle import Floats, Handle, check, memory_of, pointer
from dopant.runtime.packed import PackedWeight, Packer, Precision, own_bias
from dopant.runtime.state import State
from dopant.runtime.stepper import Stepper


class PackedLSTM:
    """An LSTM in the native library's hands. Safe to use from several threads, each with states of its own.

    Args:
        lstm: what to pack; its dropout and row masks have no part in it.
        library: the native library.
        precision: see `Packer`.
    """

    def __init__(self, lstm: LSTM, library: CDLL, precision: Precision) -> None:
        self.inputs = lstm.input_size
        self.hidden = lstm.hidden_size
        self.outputs = lstm.output_size
        self.directions = lstm.directions
        self.width = lstm.output_size * lstm.directions
        self.count = lstm.num_layers * lstm.directions
        packer = Packer(library, precision)
        weights: list[PackedWeight] = []  # held until the LSTM, which keeps what it needs of them, is made
        handles: list[list[int | None]] = [[], [], []]  # of the input's, the recurrent and the projection's weights
        biases: list[Floats | None] = []
        inputs: list[int] = []

        def packed(kind: int, name: str, rows: int, columns: int) -> None:
            weights.append(PackedWeight(lstm._weight(name), packer, (rows, columns)))
            handles[kind].append(weights[-1].handle._as_parameter_.value)

        gates = 4 * self.hidden
        for layer in range(lstm.num_layers):
            size = lstm.input_size if layer == 0 else lstm.output_size * lstm.directions
            for suffix in lstm._suffixes(layer):
                if lstm.joint:
                    packed(0, "weight" + suffix, gates, size + self.outputs)
                    handles[1].append(None)
                else:
                    packed(0, "weight_ih" + suffix, gates, size)
                    packed(1, "weight_hh" + suffix, gates, self.outputs)
                if lstm.proj_size:
                    packed(2, "weight_hr" + suffix, self.outputs, self.hidden)
                else:
                    handles[2].append(None)
                bias = lstm.get_parameter("bias" + suffix) if lstm.bias else None
                biases.append(own_bias(bias, gates, "bias" + suffix))
                inputs.append(size)
        addresses = (c_void_p * self.count)(*[None if bias is None else bias.ctypes.data for bias in biases])
        sizes, hidden = np.array(inputs, np.int32), np.full(self.count, self.hidden, np.int32)
        made = library.dopant_lstm(
            self.count,
            self.directions,
            *[(c_void_p * self.count)(*kind) for kind in handles],
            addresses,
            sizes.ctypes.data,
            hidden.ctypes.data,
            packer.fast,
        )
        self.handle = Handle(library, "lstm", made)

    @property
    def bytes(self) -> int:
        """Bytes that its weights hold."""
        return int(self.handle.library.dopant_lstm_bytes(self.handle))

    def shapes(self, batch: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """The shapes of h and c."""
        return (self.count, batch, self.outputs), (self.count, batch, self.hidden)

    def initial(self, batch: int) -> State:
        """A state of zeros.

        Raises:
            InputError: batch is no whole number of 1 or more.
        """
        check_batch(batch)
        values = np.zeros(self.handle.library.dopant_state_size(self.handle, batch), np.float32)
        return State(values, pointer(values), len(values), batch, self)

    def state(self, h: npt.ArrayLike, c: npt.ArrayLike) -> State:
        """A state from h and c as torch.nn.LSTM has them.

        Raises:
            InputError: they are no arrays, or their shapes are not those of one batch.
        """
        first, second = as_array("h", h, FLOAT32), as_array("c", c, FLOAT32)
        batch = check_parts(first, second, self.shapes)
        state = self.initial(batch)
        library = self.handle.library
        library.dopant_state_from(self.handle, pointer(first), pointer(second), batch, state.pointer)
        return state

    def step(self, x: Floats, state: State | None = None) -> tuple[Floats, State]:
        """One step: x (batch, in) float32 -> (batch, out), and the state after it.

        Raises:
            InputError: x or the state does not fit.
        """
        x = check_input(x, 2, self.inputs)
        batch = len(x)
        memory, state = self._run(x, 1, batch, state)
        return np.ndarray((batch, self.width), FLOAT32, memory), state

    def sequence(self, x: Floats, state: State | None = None) -> tuple[Floats, State]:
        """Many steps: x (time, batch, in) float32 -> (time, batch, directions·out), and the state after the last.

        Raises:
            InputError: x or the state does not fit.
        """
        x = check_input(x, 3, self.inputs)
        steps, batch, _ = x.shape
        memory, state = self._run(x, steps, batch, state)
        return np.ndarray((steps, batch, self.width), FLOAT32, memory), state

    def stepper(self, state: State | int | None = None, *, carry: bool = True) -> Stepper:
        """Steps in memory that is set up once, from a state on, or from zeros for a batch (of one): see `Stepper`.

        Raises:
            InputError: it is another LSTM's state, or a batch below 1.
        """
        return Stepper(first_state(self, state), carry=carry)

    def _run(self, x: Floats, steps: int, batch: int, state: State | None) -> tuple[Floats, State]:
        """Memory that begins with y, and the state. Short, for it runs at each step, which takes ten microseconds."""
        before = self.initial(batch) if state is None else state
        check_state(before, self, batch)
        count, size = steps * batch * self.width, before.size
        memory: Floats = np.empty(count + size, FLOAT32)  # y, and the state after it
        place = memory_of(memory)
        after = byref(place, 4 * count)
        handle = self.handle
        result = handle.run(handle, pointer(x), steps, batch, before.pointer, after, byref(place))
        if result != 0:
            check(handle.library, result)
        if steps == 1:
            return memory, State(memory, after, size, batch, self)
        values = memory[count:].copy()  # a state that is kept must not keep a long output
        return memory, State(values, pointer(values), size, batch, self)
