"""Timing: all engines of a case in turns, so that whatever else the machine does hits all of them alike."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import numpy as np

from dopant.benchmarking.engine import Run
from dopant.benchmarking.record import Caches

FLUSHED_BYTES = 64 << 20
"""Larger than L2 and one core's share of L3."""

WARM_UP = 2
MOST_ROUNDS = 200
LEAST_ROUNDS = 5
_TURN_SECONDS = 0.01  # a short call is timed several times in a turn
_TURN_ROUNDS = 20
_PAUSE_SECONDS = 0.01  # threads of an engine wait busily for their next call; they shall not meet another's

K = TypeVar("K")


class Timing(NamedTuple):
    """Median and distance between the quartiles, microseconds, and how many calls were timed."""

    median_us: float
    spread_us: float
    rounds: int


def timings(
    runs: Mapping[K, Run], *, caches: Caches, threads: int, seconds: float, flush: Callable[[], None], seed: int = 0
) -> dict[K, Timing]:
    """Time every run.

    A turn goes through all engines in a random order. With warm caches each is first called as often without being
    timed, for 10 ms or so: the one before has left its own matrices in the caches, and torch's nn.LSTM, which packs
    them anew at each call, slows its successor's first calls by a half. Else `flush` comes before each timed call.

    Args:
        runs: by engine.
        seconds: no turn begins after them, but for the first few.
    """
    order, draw = list(runs), random.Random(seed)
    taken: dict[K, list[int]] = {name: [] for name in runs}
    calls = {name: _calls(run) if caches == "warm" else 1 for name, run in runs.items()}
    with _no_garbage_collection():
        end = time.perf_counter() + seconds
        while True:
            draw.shuffle(order)
            for name in order:
                run = runs[name]
                if threads > 1:
                    time.sleep(_PAUSE_SECONDS)
                for _ in range(calls[name] if caches == "warm" else 0):
                    run()
                for _ in range(calls[name]):
                    if caches == "flushed":
                        flush()
                    started = time.perf_counter_ns()
                    run()
                    taken[name].append(time.perf_counter_ns() - started)
            fewest = min(map(len, taken.values()))
            if fewest >= LEAST_ROUNDS and (fewest >= MOST_ROUNDS or time.perf_counter() > end):
                return {name: _timing(spent) for name, spent in taken.items()}


def flusher(size: int = FLUSHED_BYTES) -> Callable[[], None]:
    """A call that writes a buffer of so many bytes."""
    buffer = np.zeros(size // 8, np.int64)

    def flush() -> None:
        np.add(buffer, 1, out=buffer)

    return flush


def _calls(run: Run) -> int:
    """Warm the run up; how many calls of it make a turn."""
    spent = 0.0
    for _ in range(WARM_UP):
        started = time.perf_counter()
        run()
        spent = time.perf_counter() - started
    return max(1, min(_TURN_ROUNDS, int(_TURN_SECONDS / max(spent, 1e-9))))


def _timing(nanoseconds: list[int]) -> Timing:
    low, median, high = statistics.quantiles(nanoseconds, n=4, method="inclusive")
    return Timing(round(median / 1e3, 2), round((high - low) / 1e3, 2), len(nanoseconds))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
