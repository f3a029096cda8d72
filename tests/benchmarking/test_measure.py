from __future__ import annotations

from collections.abc import Callable

import pytest

from dopant.benchmarking import measure
from dopant.benchmarking.measure import LEAST_ROUNDS, MOST_ROUNDS, Timing, flusher, timings


class Clock:
    """Time that passes only in what is timed."""

    def __init__(self) -> None:
        self.now = 0
        self.log: list[str] = []

    def perf_counter_ns(self) -> int:
        return self.now

    def perf_counter(self) -> float:
        return self.now / 1e9

    def sleep(self, seconds: float) -> None:
        self.log.append("pause")

    def taking(self, name: str, *microseconds: float) -> Callable[[], None]:
        turn = 0

        def run() -> None:
            nonlocal turn
            self.now += round(1000 * microseconds[turn % len(microseconds)])
            self.log.append(name)
            turn += 1

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(measure, "time", clock)
    return clock


def test_medians_and_quartiles(clock: Clock) -> None:
    runs = {"even": clock.taking("even", 6000.0), "uneven": clock.taking("uneven", *[7000.0] * 2, 8000.0, 9000.0)}
    found = timings(runs, caches="flushed", threads=1, seconds=3.0, flush=lambda: None)
    assert found["even"].median_us == 6000.0
    assert found["even"].spread_us == 0.0
    assert 7000.0 <= found["uneven"].median_us <= 8000.0
    assert 1000.0 <= found["uneven"].spread_us <= 2000.0
    assert found["even"].rounds == found["uneven"].rounds > 50


def test_a_slow_engine_is_timed_a_few_times(clock: Clock) -> None:
    found = timings({"slow": clock.taking("slow", 2e6)}, caches="warm", threads=1, seconds=0.001, flush=lambda: None)
    assert found["slow"] == Timing(2e6, 0.0, LEAST_ROUNDS)


def test_a_quick_engine_is_timed_often_enough(clock: Clock) -> None:
    runs = {"quick": clock.taking("quick", 10.0), "slow": clock.taking("slow", 20_000.0)}
    found = timings(runs, caches="warm", threads=1, seconds=60.0, flush=lambda: None)
    assert found["slow"].rounds == MOST_ROUNDS
    assert found["quick"].rounds > found["slow"].rounds  # in one turn several times


def test_warm_means_right_after_a_call_of_the_same_engine(clock: Clock) -> None:
    runs = {name: clock.taking(name, 20_000.0) for name in "ab"}
    timings(runs, caches="warm", threads=1, seconds=0.1, flush=lambda: pytest.fail("warm caches are not flushed"))
    turns = "".join(clock.log[4:])  # after the warm-up
    assert len(turns) % 4 == 0
    assert {turns[at : at + 2] for at in range(0, len(turns), 2)} == {"aa", "bb"}


def test_flushed_means_right_after_a_flush(clock: Clock) -> None:
    runs = {name: clock.taking(name, 20_000.0) for name in "ab"}
    timings(runs, caches="flushed", threads=1, seconds=0.1, flush=lambda: clock.log.append("f"))
    log = "".join(clock.log)
    assert log.count("f") == log.count("fa") + log.count("fb") == len(log) / 2


def test_threads_of_another_engine_come_to_rest_first(clock: Clock) -> None:
    timings({"a": clock.taking("a", 20_000.0)}, caches="warm", threads=2, seconds=0.01, flush=lambda: None)
    assert clock.log.count("pause") == LEAST_ROUNDS


def test_a_flush_writes_its_buffer() -> None:
    flush = flusher(4096)
    flush()
    flush()
