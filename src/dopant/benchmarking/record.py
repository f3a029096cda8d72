"""What a benchmark leaves: its rows, the machine and its limits, and how it was measured; as JSON, `bench.json`."""

from __future__ import annotations

from typing import Literal

from dopant.reporting.records import Count, Kept, Machine, Number, Versions

Part = Literal["lstm", "token"]
CaseName = Literal["step", "sequence"]
Caches = Literal["warm", "flushed"]

PARTS: tuple[Part, ...] = ("lstm", "token")
CASES: tuple[CaseName, ...] = ("step", "sequence")
CACHES: tuple[Caches, ...] = ("warm", "flushed")
STEPS: dict[CaseName, int] = {"step": 1, "sequence": 35}
"""Time steps of a case."""


class Row(Kept):
    """One engine in one case.

    Args:
        engine, precision: who computed, and in which numbers.
        part: "lstm", the LSTM layers alone on float inputs, or "token", the whole model from token ids to scores.
        case: "step", one time step, or "sequence", 35.
        batch: sequences at once.
        threads: that the engine may use.
        caches: "warm", right after untimed calls of the same engine, or "flushed", after a larger buffer was written.
        median_us: median of the rounds, microseconds.
        spread_us: between the quartiles of the rounds.
        rounds: calls that were timed.
        limit_us: the least that this machine's memory and arithmetic allow for what our engine reads and, in
            `exact`, multiplies; None for others, and where the limits are not known. In records of before it was told
            apart, that of `fast` counts multiply-adds of float32, too.
    """

    engine: str
    precision: str
    part: Part
    case: CaseName
    batch: Count
    threads: Count
    caches: Caches
    median_us: float
    spread_us: float
    rounds: Count
    limit_us: Number = None


class Memory(Kept):
    """What a process holds more of once the engine is made and has run a sequence at batch 1.

    Args:
        bytes: growth of the resident set over that of a tiny model; None where it cannot be measured.
    """

    engine: str
    precision: str
    part: Part
    bytes: Count | None


class Deviation(Kept):
    """How far an engine's outputs are from torch's in float32: largest difference over largest value, of all cases."""

    engine: str
    precision: str
    part: Part
    relative: Number


class Limits(Kept):
    """What one thread of the machine can do.

    Args:
        bandwidth_gb_per_s: reading, by level: L1, L2, L3, DRAM.
        fma_gflops: float32 multiply-adds, two operations each.
    """

    bandwidth_gb_per_s: dict[str, float]
    fma_gflops: float


class Weight(Kept):
    """A weight of the model that was measured."""

    name: str
    shape: tuple[int, int]
    structure: str


class Protocol(Kept):
    """How it was measured.

    Args:
        model: a folder's name, or the size and plan of an untrained one.
        steps: time steps of a sequence.
        flushed_bytes: written before each timed call where caches are flushed.
        seconds_a_case: after which no new round begins.
        active: the path that our runtime took on this processor; "" if it did not run.
        onnxruntime: its version; "" if it did not run.
        seed: of inputs and untrained weights.
    """

    command: str
    commit: str
    dirty: bool
    versions: Versions
    onnxruntime: str
    active: str
    model: str
    hidden: Count
    layers: Count
    vocabulary: Count
    weights: tuple[Weight, ...]
    steps: Count
    flushed_bytes: Count
    seconds_a_case: float
    seed: int
    time: str
    seconds: Number = None


class Bench(Kept):
    """A whole benchmark.

    Args:
        notes: what was left out, and why.
    """

    schema_version: Literal[1] = 1
    rows: tuple[Row, ...]
    memory: tuple[Memory, ...] = ()
    deviations: tuple[Deviation, ...] = ()
    limits: Limits | None = None
    machine: Machine
    protocol: Protocol
    notes: tuple[str, ...] = ()
