from __future__ import annotations

import pytest

from dopant.benchmarking import limits as module
from dopant.benchmarking.limits import find_limits, least_us, needed
from dopant.benchmarking.record import Limits
from dopant.cost import Cost
from dopant.errors import InputError
from dopant.models.language_model import LanguageModel

LIMITS = Limits(bandwidth_gb_per_s={"L1": 200.0, "L2": 100.0, "L3": 50.0, "DRAM": 20.0}, fma_gflops=100.0)
SIZES = {"L1": 32_000, "L2": 1_000_000, "L3": 16_000_000}


def test_reading_is_the_limit_of_one_stream_and_multiplying_of_many() -> None:
    cost = Cost(macs=150_000, stored_bytes=500_000)
    assert least_us(cost, Cost(), LIMITS, SIZES, "step", 1, "warm") == 5.0  # 500 kB at 100 GB/s; 3 µs to multiply
    assert least_us(cost, Cost(), LIMITS, SIZES, "step", 32, "warm") == 96.0
    assert least_us(cost, Cost(), LIMITS, SIZES, "step", 32, "warm", "fast") == 5.0  # bytes, not floats, are multiplied
    assert least_us(cost, Cost(), LIMITS, SIZES, "step", 1, "flushed") == 25.0
    assert least_us(cost, Cost(), LIMITS, SIZES, "sequence", 1, "warm") == 175.0
    assert least_us(Cost(stored_bytes=32_000_000), Cost(), LIMITS, SIZES, "step", 1, "warm") == 1600.0
    decoder = Cost(stored_bytes=250_000)
    assert least_us(Cost(stored_bytes=100_000), decoder, LIMITS, SIZES, "sequence", 1, "warm") == 40.0  # read twice


def test_what_a_part_needs(model: LanguageModel) -> None:
    layers, nothing = needed(model, "lstm")
    assert layers.macs == sum(model.lstm._weight(f"weight_l{layer}").cost().macs for layer in (0, 1))
    assert nothing == Cost()
    assert needed(model, "token")[0] == layers
    assert needed(model, "token")[1].macs == 20 * 8


def test_limits_come_from_the_native_library(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"bandwidth_gb_per_s": LIMITS.bandwidth_gb_per_s, "fma_gflops": 100.0}
    monkeypatch.setattr(module, "native_limits", lambda: told)
    assert find_limits() == (LIMITS, "")

    def absent() -> None:
        raise InputError("it does not serve")

    monkeypatch.setattr(module, "native_limits", absent)
    assert find_limits() == (None, "the machine's limits are left out: it does not serve")
