from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from dopant.bench import limits as module
from dopant.bench.limits import cache_sizes, find_limits, least_us, needed
from dopant.bench.record import Limits
from dopant.cost import Cost
from dopant.models.language_model import LanguageModel

LIMITS = Limits(bandwidth_gb_per_s={"L1": 200.0, "L2": 100.0, "L3": 50.0, "DRAM": 20.0}, fma_gflops=100.0)
SIZES = {"L1": 32_000, "L2": 1_000_000, "L3": 16_000_000}


def test_reading_is_the_limit_of_one_stream_and_multiplying_of_many() -> None:
    cost = Cost(macs=150_000, stored_bytes=500_000)
    assert least_us(cost, LIMITS, SIZES, "step", 1, "warm") == 5.0  # 500 kB at 100 GB/s; 3 µs to multiply
    assert least_us(cost, LIMITS, SIZES, "step", 32, "warm") == 96.0
    assert least_us(cost, LIMITS, SIZES, "step", 1, "flushed") == 25.0
    assert least_us(cost, LIMITS, SIZES, "sequence", 1, "warm") == 175.0
    assert least_us(Cost(stored_bytes=32_000_000), LIMITS, SIZES, "step", 1, "warm") == 1600.0


def test_what_a_precision_needs(model: LanguageModel) -> None:
    exact, fast = needed(model, "lstm", "exact"), needed(model, "lstm", "fast")
    assert exact.macs == fast.macs == sum(model.lstm._weight(f"weight_l{layer}").cost().macs for layer in (0, 1))
    assert fast.stored_bytes < exact.stored_bytes
    assert needed(model, "token", "exact").macs == exact.macs + 20 * 8


def test_caches_as_the_system_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = (("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "2M"), ("3", "Unified", "260M"))
    for number, one in enumerate(told):
        (tmp_path / f"index{number}").mkdir()
        for name, text in zip(("level", "type", "size"), one, strict=True):
            (tmp_path / f"index{number}" / name).write_text(text + "\n")
    monkeypatch.setattr(module, "_CACHES", tmp_path)
    assert cache_sizes() == {"L1": 48 << 10, "L2": 2 << 20, "L3": 260 << 20}
    monkeypatch.setattr(module, "_CACHES", tmp_path / "nothing")
    assert cache_sizes() == {}


def test_limits_come_from_the_native_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert find_limits()[0] is None
    assert "no native library" in find_limits()[1]
    native = ModuleType("dopant.native")
    native.limits = lambda: {"bandwidth_gb_per_s": LIMITS.bandwidth_gb_per_s, "fma_gflops": 100.0}  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "dopant.native", native)
    assert find_limits() == (LIMITS, "")
    native.limits = lambda: {}  # type: ignore[attr-defined]
    assert find_limits()[0] is None
    assert "the machine's limits are left out: ValidationError" in find_limits()[1]
