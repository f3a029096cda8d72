from __future__ import annotations

import pytest
import torch

from dopant.benchmarking.record import Bench, CaseName, Limits, Protocol, Row, Weight
from dopant.benchmarking.subject import Subject
from dopant.layers import slots
from dopant.models.language_model import LanguageModel, LanguageModelConfig
from dopant.reporting.records import Machine, Versions
from dopant.structures import Doped, Kronecker, Sparse


def small_model() -> LanguageModel:
    torch.manual_seed(0)
    model = LanguageModel(LanguageModelConfig(20, 8)).eval()
    generator = torch.Generator().manual_seed(1)
    for slot in slots(model):
        if slot.lstm:
            slot.set(Doped(Kronecker(((8, 4), (4, 4))), Sparse(30)).new(slot.weight.shape, generator=generator))
    return model


@pytest.fixture
def model() -> LanguageModel:
    return small_model()


@pytest.fixture
def subject(model: LanguageModel) -> Subject:
    return Subject(model)


@pytest.fixture
def measured() -> Bench:
    """A benchmark with round numbers."""
    cases: tuple[CaseName, ...] = ("step", "sequence")
    times = {
        ("torch", "float32"): 4000.0,
        ("torch-int8", "int8"): 500.0,
        ("onnxruntime", "float32"): 1000.0,
        ("onnxruntime-int8", "int8"): 300.0,
        ("dopant", "exact"): 100.0,
        ("dopant", "fast"): 25.0,
    }
    rows = [
        Row(
            engine=engine,
            precision=precision,
            part=part,
            case=case,
            batch=batch,
            threads=1,
            caches=caches,
            median_us=median * (1 if case == "step" else 30) * batch,
            spread_us=4.0,
            rounds=50,
            limit_us=50.0 if engine == "dopant" else None,
        )
        for part in ("lstm", "token")
        for caches in ("warm", "flushed")
        for case in cases
        for batch in (1, 32)
        for (engine, precision), median in times.items()
    ]
    machine = Machine(cpu="A processor", cores=2, memory_bytes=8 << 30, os="An OS", threads=1)
    protocol = Protocol(
        command="dopant bench --model tiny",
        commit="0" * 40,
        dirty=False,
        versions=Versions(dopant="1", python="3", torch="2", numpy="2"),
        onnxruntime="1.32.0",
        active="avx2",
        model="tiny <b>untrained</b>",
        hidden=8,
        layers=2,
        vocabulary=20,
        weights=(Weight(name="lstm.weight_l0", shape=(32, 16), structure="8×4 ⊗ 4×4"),),
        steps=35,
        flushed_bytes=64 << 20,
        seconds_a_case=1.0,
        seed=0,
        time="2026-01-01T00:00:00+00:00",
        seconds=3.0,
    )
    limits = Limits(bandwidth_gb_per_s={"L1": 200.0, "L2": 100.0, "L3": 50.0, "DRAM": 25.0}, fma_gflops=100.0)
    return Bench(rows=tuple(rows), limits=limits, machine=machine, protocol=protocol, notes=("something is left out",))
