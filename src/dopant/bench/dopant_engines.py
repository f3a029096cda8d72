"""Our own runtime, in both of its precisions."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from dopant.bench.engine import Bind, Engine, Run
from dopant.bench.record import Part
from dopant.bench.subject import Array, Subject


def _build(precision: str, subject: Subject, part: Part, threads: int) -> Bind:
    runtime = runtime_of(subject, precision, threads)

    def bind(x: Array) -> Run:
        state = runtime.initial(x.shape[1])
        single = x.shape[0] == 1
        if part == "lstm":
            if single:
                return lambda: runtime.lstm.step(x[0], state)[0][None]
            return lambda: runtime.lstm.sequence(x, state)[0]
        if single:
            return lambda: runtime.step(x[0], state)[0][None]
        if hasattr(runtime, "sequence"):
            return lambda: runtime.sequence(x, state)[0]

        def stepped() -> Array:
            at, scores = state, []
            for tokens in x:
                logits, at = runtime.step(tokens, at)
                scores.append(logits)
            return np.stack(scores)

        return stepped

    return bind


def runtime_of(subject: Subject, precision: str, threads: int) -> Any:
    """The runtime of a model in memory."""
    from importlib import import_module

    return import_module("dopant.runtime").Runtime.of(subject.model, precision=precision, threads=threads)


EXACT = Engine("dopant", "exact", partial(_build, "exact"), close=True)
FAST = Engine("dopant", "fast", partial(_build, "fast"), close=False)
