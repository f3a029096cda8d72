"""What an LSTM carries from step to step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dopant.runtime.handle import Floats, pointer

if TYPE_CHECKING:
    from dopant.runtime.packed_lstm import PackedLSTM


class State:
    """What an LSTM remembers of a batch, in the kernels' own layout. It is never changed: a step gives a new one.

    Args:
        memory: float32, of which the last `size` are the state; it is kept for as long as the state is.
        pointer: to the first of these.
        size: how many.
        batch: how many sequences.
        lstm: whose state it is.
    """

    __slots__ = ("batch", "lstm", "memory", "pointer", "size")

    def __init__(self, memory: Floats, pointer: Any, size: int, batch: int, lstm: PackedLSTM) -> None:
        self.memory = memory
        self.pointer = pointer
        self.size = size
        self.batch = batch
        self.lstm = lstm

    @property
    def values(self) -> Floats:
        """(size,)"""
        return self.memory[-self.size :]

    def __copy__(self) -> State:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> State:
        return self

    def arrays(self) -> tuple[Floats, Floats]:
        """h (layers·directions, batch, out) and c (…, batch, hidden), as torch.nn.LSTM has them."""
        h, c = (np.empty(shape, np.float32) for shape in self.lstm.shapes(self.batch))
        handle = self.lstm.handle
        handle.library.dopant_state_to(handle, self.pointer, self.batch, pointer(h), pointer(c))
        return h, c
