"""The LSTM layers of a model, packed; and the state that they carry."""

from __future__ import annotations

from ctypes import CDLL, c_void_p

import numpy as np
import numpy.typing as npt

from dopant.errors import DopantError, InputError
from dopant.layers import LSTM
from dopant.runtime.packed import Floats, PackedWeight, Packer, Precision, check


class State:
    """What an LSTM remembers of a batch, in the kernels' own layout. It is never changed: a step gives a new one.

    Args:
        values: (size,) float32.
        address: of the first of them.
        batch: how many sequences.
        lstm: whose state it is.
    """

    __slots__ = ("address", "batch", "lstm", "values")

    def __init__(self, values: Floats, address: int, batch: int, lstm: PackedLSTM) -> None:
        self.values = values
        self.address = address
        self.batch = batch
        self.lstm = lstm

    def arrays(self) -> tuple[Floats, Floats]:
        """h (layers·directions, batch, out) and c (…, batch, hidden), as torch.nn.LSTM has them."""
        h, c = (np.empty(shape, np.float32) for shape in self.lstm.shapes(self.batch))
        self.lstm.library.dopant_state_to(self.lstm.handle, self.address, self.batch, h.ctypes.data, c.ctypes.data)
        return h, c


class PackedLSTM:
    """An LSTM in the native library's hands. Safe to use from several threads, each with states of its own.

    Args:
        lstm: what to pack; its dropout and row masks have no part in it.
        library: the native library.
        precision: see `Packer`.
    """

    def __init__(self, lstm: LSTM, library: CDLL, precision: Precision) -> None:
        self.library = library
        self.inputs = lstm.input_size
        self.hidden = lstm.hidden_size
        self.outputs = lstm.output_size
        self.directions = lstm.directions
        self.count = lstm.num_layers * lstm.directions
        packer = Packer(library, precision)
        self.weights: list[PackedWeight] = []
        handles: list[list[int | None]] = [[], [], []]  # of the input's, the recurrent and the projection's weights
        biases: list[Floats | None] = []
        inputs: list[int] = []

        def packed(kind: int, name: str) -> None:
            self.weights.append(PackedWeight(lstm._weight(name), packer))
            handles[kind].append(self.weights[-1].handle.value)

        for layer in range(lstm.num_layers):
            size = lstm.input_size if layer == 0 else lstm.output_size * lstm.directions
            for suffix in lstm._suffixes(layer):
                if lstm.joint:
                    packed(0, "weight" + suffix)
                    handles[1].append(None)
                else:
                    packed(0, "weight_ih" + suffix)
                    packed(1, "weight_hh" + suffix)
                if lstm.proj_size:
                    packed(2, "weight_hr" + suffix)
                else:
                    handles[2].append(None)
                bias = lstm.get_parameter("bias" + suffix) if lstm.bias else None
                biases.append(None if bias is None else np.ascontiguousarray(bias.detach().float().cpu().numpy()))
                inputs.append(size)
        addresses = (c_void_p * self.count)(*[None if bias is None else bias.ctypes.data for bias in biases])
        sizes, hidden = np.array(inputs, np.int32), np.full(self.count, self.hidden, np.int32)
        handle = library.dopant_lstm(
            self.count,
            self.directions,
            *[(c_void_p * self.count)(*kind) for kind in handles],
            addresses,
            sizes.ctypes.data,
            hidden.ctypes.data,
        )
        if not handle:
            raise DopantError(f"the native library could not pack an LSTM: {library.dopant_error().decode()}")
        self.handle = c_void_p(handle)

    @property
    def bytes(self) -> int:
        """Bytes that its weights hold."""
        return sum(weight.bytes for weight in self.weights)

    def shapes(self, batch: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """The shapes of h and c."""
        return (self.count, batch, self.outputs), (self.count, batch, self.hidden)

    def initial(self, batch: int) -> State:
        """A state of zeros.

        Raises:
            InputError: batch is below 1.
        """
        if batch < 1:
            raise InputError(f"batch must be 1 or more, got {batch}")
        values = np.zeros(self.library.dopant_state_size(self.handle, batch), np.float32)
        return State(values, values.ctypes.data, batch, self)

    def state(self, h: npt.ArrayLike, c: npt.ArrayLike) -> State:
        """A state from h and c as torch.nn.LSTM has them.

        Raises:
            InputError: their shapes are not those of one batch.
        """
        parts = [np.ascontiguousarray(part, np.float32) for part in (h, c)]
        batch = parts[0].shape[1] if parts[0].ndim == 3 else 0
        for name, part, shape in zip("hc", parts, self.shapes(batch), strict=True):
            if part.shape != shape or batch < 1:
                raise InputError(f"{name} must be (layers·directions, batch, size) = {shape}, got {part.shape}")
        state = self.initial(batch)
        self.library.dopant_state_from(self.handle, parts[0].ctypes.data, parts[1].ctypes.data, batch, state.address)
        return state

    def step(self, x: Floats, state: State | None = None) -> tuple[Floats, State]:
        """One step: x (batch, in) float32 -> (batch, out), and the state after it.

        Raises:
            InputError: x or the state does not fit.
        """
        if x.ndim != 2:
            raise InputError(f"a step takes x of (batch, {self.inputs}), got shape {x.shape}")
        y, state = self.sequence(x[None], state)
        return y[0], state

    def sequence(self, x: Floats, state: State | None = None) -> tuple[Floats, State]:
        """Many steps: x (time, batch, in) float32 -> (time, batch, directions·out), and the state after the last.

        Raises:
            InputError: x or the state does not fit.
        """
        if x.ndim != 3 or x.shape[2] != self.inputs or 0 in x.shape:
            raise InputError(
                f"a sequence is (time, batch, {self.inputs}) with a step and a sequence or more, got shape {x.shape}"
            )
        if x.dtype != np.float32:
            raise InputError(f"x must be float32, got {x.dtype}")
        steps, batch = x.shape[:2]
        if state is None:
            before, size = None, self.library.dopant_state_size(self.handle, batch)
        elif state.lstm is not self:
            raise InputError("this state belongs to another model; start with `initial(batch)` or `state(h, c)`")
        elif state.batch != batch:
            raise InputError(f"the state is of {state.batch} sequences, x of {batch}")
        else:
            before, size = state.address, len(state.values)
        x = np.ascontiguousarray(x)
        count = steps * batch * self.outputs * self.directions
        memory = np.empty(count + size, np.float32)  # y and the state after it
        address = memory.ctypes.data
        after = address + 4 * count
        result = self.library.dopant_lstm_run(self.handle, x.ctypes.data, steps, batch, before, after, address)
        check(self.library, result)
        return memory[:count].reshape(steps, batch, -1), State(memory[count:], after, batch, self)

    def __del__(self) -> None:
        if getattr(self, "handle", None) is not None:
            self.library.dopant_free_lstm(self.handle)
