"""The benchmark: every engine in every case, held to torch in float32 before it is timed."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import product
from pathlib import Path

import numpy as np
import torch

from dopant.benchmarking.engine import Bind, Engine, as_array
from dopant.benchmarking.engines import NAMES, choose
from dopant.benchmarking.limits import find_limits, least_us, needed
from dopant.benchmarking.measure import FLUSHED_BYTES, flusher, timings
from dopant.benchmarking.memory import held
from dopant.benchmarking.record import (
    CACHES,
    CASES,
    PARTS,
    STEPS,
    Bench,
    Caches,
    CaseName,
    Deviation,
    Limits,
    Memory,
    Part,
    Protocol,
    Row,
    Weight,
)
from dopant.benchmarking.subject import Array, Subject
from dopant.benchmarking.torch_engines import TORCH
from dopant.errors import BenchError, InputError
from dopant.layers import slots
from dopant.models.language_model import LanguageModel
from dopant.native import cache_sizes, set_threads, status
from dopant.plan.words import in_words
from dopant.reporting.records import find_machine, make_record
from dopant.storage.folder import save

CLOSE = 1e-3
"""The relative difference that float32 sums in another order stay below."""

Listener = Callable[[int, int, str], None]
"""Is told how many cases are done, of how many, and what comes next."""


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Args:
        engines: by name.
        parts, cases, batches, threads, caches: every combination is a case.
        seconds: for a case, all of its engines together; long calls are timed five times in any case.
        memory: measure it too.

    Raises:
        InputError: an unknown name, or a number out of range.
    """

    engines: tuple[str, ...] = NAMES
    parts: tuple[Part, ...] = PARTS
    cases: tuple[CaseName, ...] = CASES
    batches: tuple[int, ...] = (1, 8, 32)
    threads: tuple[int, ...] = (1,)
    caches: tuple[Caches, ...] = CACHES
    seconds: float = 4.0
    memory: bool = True

    def __post_init__(self) -> None:
        known: tuple[tuple[str, Sequence[str], Sequence[str]], ...] = (
            ("part", self.parts, PARTS),
            ("case", self.cases, CASES),
            ("caches", self.caches, CACHES),
        )
        for what, given, names in known:
            if odd := [name for name in given if name not in names]:
                raise InputError(f"{what} {odd[0]!r} is not known; choose of {', '.join(names)}")
        for what, numbers in (("batch", self.batches), ("threads", self.threads)):
            if low := [number for number in numbers if number < 1]:
                raise InputError(f"{what} must be 1 or more, got {low[0]}")
        choose(self.engines)
        if not all((self.engines, self.parts, self.cases, self.batches, self.threads, self.caches)):
            raise InputError("there is nothing to measure: engines, parts, cases, batches and threads need one each")
        if not 0.0 < self.seconds < 86_400.0:
            raise InputError(f"seconds is the time for a case, above 0 and less than a day, got {self.seconds}")


def bench(
    model: LanguageModel,
    settings: Settings,
    *,
    name: str = "a model in memory",
    folder: Path | None = None,
    seed: int = 0,
    command: Sequence[str] = (),
    listener: Listener = lambda done, total, text: None,
) -> Bench:
    """Measure a model.

    Args:
        model: compressed, in evaluation mode.
        name: what the protocol calls it.
        folder: where it was read from; without, memory is measured from a temporary copy.
        seed: of the inputs.
        command: for the record, see `make_record`.

    Raises:
        InputError: none of the engines can run here.
        BenchError: an engine that must agree with torch in float32 does not.
    """
    started = datetime.now(UTC)
    engines, notes = choose(settings.engines)
    limits, missing = find_limits()
    subject = Subject(model, seed)
    total = len(settings.parts) * len(settings.threads) * len(settings.cases) * len(settings.batches)
    progress = _Progress(listener, total * len(settings.caches) + settings.memory * len(settings.parts) * len(engines))
    rows: list[Row] = []
    deviations: dict[tuple[Part, Engine], list[float]] = {}
    flush = flusher()
    for part, threads in product(settings.parts, settings.threads):
        with _threads(threads):
            progress.say(f"{part}: building {len(engines)} engines for {threads} thread{'s' * (threads > 1)}")
            built = {engine: engine.build(subject, part, threads) for engine in engines}
            for engine, bind in built.items():
                off = _deviation(subject, part, settings.cases, engine, bind)
                deviations.setdefault((part, engine), []).append(off)
            for case, batch in product(settings.cases, settings.batches):
                x = subject.inputs(part, case, batch)
                runs = {engine: bind(x) for engine, bind in built.items()}
                for caches in settings.caches:
                    progress.say(f"{part}, {case}, batch {batch}, {threads} thread{'s' * (threads > 1)}, {caches}")
                    found = timings(
                        runs, caches=caches, threads=threads, seconds=settings.seconds, flush=flush, seed=len(rows)
                    )
                    for engine in engines:
                        least = _least(engine, subject, limits, part, case, batch, caches) if threads == 1 else None
                        rows.append(
                            Row(
                                engine=engine.name,
                                precision=engine.precision,
                                part=part,
                                case=case,
                                batch=batch,
                                threads=threads,
                                caches=caches,
                                limit_us=least,
                                **found[engine]._asdict(),
                            )
                        )
                    progress.step()
    memory = _memory(subject, engines, settings, folder, progress) if settings.memory else ()
    record = make_record(command, seed=seed, threads=max(settings.threads), started=started)
    return Bench(
        rows=tuple(rows),
        memory=memory,
        deviations=tuple(
            Deviation(engine=engine.name, precision=engine.precision, part=part, relative=max(found))
            for (part, engine), found in deviations.items()
        ),
        limits=limits,
        machine=find_machine(max(settings.threads)),
        protocol=_protocol(subject, engines, settings, name, **record.model_dump(exclude={"machine"})),
        notes=tuple(note for note in (*notes, missing) if note),
    )


def _deviation(subject: Subject, part: Part, cases: Sequence[CaseName], engine: Engine, bind: Bind) -> float:
    """The largest of an engine's outputs against torch's in float32, of all cases, for one stream and for many.

    Raises:
        BenchError: it is no engine of float32 with that.
    """
    torchs = TORCH.build(subject, part, 1)
    found = []
    for case, batch in product(cases, (1, 32)):  # kernels for one and for many differ
        x = subject.inputs(part, case, batch)
        relative = _relative(as_array(bind(x)()), as_array(torchs(x)()))
        if not math.isfinite(relative) or (engine.close and relative > CLOSE):
            raise BenchError(
                f"{engine} differs from torch in float32 by {relative:.1e} of the largest output ({part}, {case}, "
                f"batch {batch}), more than {CLOSE:.0e}: it computes something else, and its time would mean nothing; "
                "leave it out of --engines"
            )
        found.append(relative)
    return max(found)


def _relative(output: Array, reference: Array) -> float:
    if output.shape != reference.shape:
        raise BenchError(f"an engine's output has shape {output.shape} where {reference.shape} is needed")
    return float(np.abs(output - reference).max() / max(float(np.abs(reference).max()), 1e-30))


def _least(
    engine: Engine, subject: Subject, limits: Limits | None, part: Part, case: CaseName, batch: int, caches: Caches
) -> float | None:
    if limits is None or engine.name != "dopant":
        return None
    return least_us(*needed(subject.model, part), limits, cache_sizes(), case, batch, caches, engine.precision)


def _memory(
    subject: Subject, engines: list[Engine], settings: Settings, folder: Path | None, progress: _Progress
) -> tuple[Memory, ...]:
    found = []
    with tempfile.TemporaryDirectory() as place:
        source = folder if folder is not None else save(Path(place) / "model", subject.model)
        for part, engine in product(settings.parts, engines):
            progress.say(f"{part}: memory of {engine}")
            found.append(held(engine, part, source))
            progress.step()
    return tuple(found)


def _protocol(subject: Subject, engines: list[Engine], settings: Settings, name: str, **record: object) -> Protocol:
    ran = {engine.name for engine in engines}
    return Protocol.model_validate(
        {
            **record,
            "onnxruntime": version("onnxruntime") if any(one.startswith("onnxruntime") for one in ran) else "",
            "active": status().active if "dopant" in ran else "",
            "model": name,
            "hidden": subject.config.hidden,
            "layers": subject.config.layers,
            "vocabulary": subject.config.vocabulary,
            "weights": tuple(
                Weight(
                    name=slot.name,
                    shape=slot.weight.shape,
                    structure=in_words(slot.weight.structure, slot.weight.shape),
                )
                for slot in slots(subject.model)
            ),
            "steps": STEPS["sequence"],
            "flushed_bytes": FLUSHED_BYTES,
            "seconds_a_case": settings.seconds,
        }
    )


class _Progress:
    def __init__(self, listener: Listener, total: int) -> None:
        self.listener, self.total, self.done = listener, total, 0
        self.text = ""

    def say(self, text: str) -> None:
        self.text = text
        self.listener(self.done, self.total, text)

    def step(self) -> None:
        self.done += 1
        self.listener(self.done, self.total, self.text)


@contextmanager
def _threads(threads: int) -> Iterator[None]:
    torchs, ours = torch.get_num_threads(), set_threads(threads)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(torchs)
        set_threads(ours)
