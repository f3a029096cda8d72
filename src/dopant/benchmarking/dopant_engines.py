"""Our own runtime, in both of its precisions."""

from __future__ import annotations

from functools import partial

from dopant.benchmarking.engine import Bind, Engine, Run
from dopant.benchmarking.record import Part
from dopant.benchmarking.subject import Array, Subject
from dopant.native.library import library
from dopant.runtime import Runtime
from dopant.runtime.packed import Precision
from dopant.runtime.packed_lstm import PackedLSTM
from dopant.runtime.torch_path import TorchLSTM


def _build(precision: Precision, subject: Subject, part: Part, threads: int) -> Bind:
    """Threads are set for the process, see `run`."""
    return _lstm(precision, subject) if part == "lstm" else _token(precision, subject)


def _lstm(precision: Precision, subject: Subject) -> Bind:
    native = library()
    layers = subject.model.lstm
    lstm = TorchLSTM(layers) if native is None else PackedLSTM(layers, native, precision)

    def bind(x: Array) -> Run:
        if x.shape[0] == 1:
            stepper = lstm.stepper(x.shape[1], carry=False)  # from zeros each time
            stepper.x[:] = x[0]
            return lambda: stepper.step()[None]
        state = lstm.initial(x.shape[1])
        return lambda: lstm.sequence(x, state)[0]  # type: ignore[arg-type]

    return bind


def _token(precision: Precision, subject: Subject) -> Bind:
    runtime = Runtime(subject.model, precision=precision)

    def bind(x: Array) -> Run:
        state = runtime.initial(x.shape[1])
        if x.shape[0] == 1:
            first = x[0]
            return lambda: runtime.step(first, state)[0][None]
        return lambda: runtime.sequence(x, state)[0]

    return bind


EXACT = Engine("dopant", "exact", partial(_build, "exact"), close=True)
FAST = Engine("dopant", "fast", partial(_build, "fast"), close=False)
