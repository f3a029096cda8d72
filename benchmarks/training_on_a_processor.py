"""A training step on one thread: products by torch's own choice or the faster library, freed memory given back or kept.

python benchmarks/training_on_a_processor.py results/benchmarks/training-on-a-processor.json

What is kept is kept for good, so each measurement is a process of its own; the cases take turns.
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
from keeping import keep

from dopant.layers import slots
from dopant.models import LanguageModel, LanguageModelConfig
from dopant.models.sizes import SIZES
from dopant.ops import onednn
from dopant.structures import DopedWeight, Kronecker, MaskedWeight
from dopant.training.loop import Run, train
from dopant.training.memory import keep_freed_memory
from dopant.training.settings import TrainSettings

VOCABULARY, FACTOR, ROUNDS = 10_000, 25, 3
SHAPES = {"small": ((32, 16), (25, 25)), "medium": ((52, 26), (50, 50))}
STEPS = {"small": 20, "medium": 5}
AS_TORCH_DOES = ("torch's choice", "given back")
LIBRARIES, MEMORY = (AS_TORCH_DOES[0], "the faster"), (AS_TORCH_DOES[1], "kept")


def doped(size: str) -> LanguageModel:
    """A model of Zaremba's with the weights of its LSTM as they are trained after the overlay was annealed."""
    model = LanguageModel(LanguageModelConfig(VOCABULARY, **SIZES[size].model))
    for slot in slots(model.lstm):
        matrix = slot.weight.to_dense().detach()
        base = Kronecker(SHAPES[size]).new(slot.weight.shape)
        slot.set(DopedWeight(base, MaskedWeight(matrix, torch.rand(matrix.shape) < 1 / FACTOR)))
    return model


def measure(size: str, library: str, memory: str) -> float:
    """Milliseconds of a step, from the mean of an epoch after a first one."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if library == AS_TORCH_DOES[0]:
        onednn.mkl_holds_back = lambda: False  # type: ignore[assignment]
    if memory == "kept":
        keep_freed_memory()
    model = doped(size)
    settings = TrainSettings(**{**SIZES[size].training, "epochs": 1, "constant_epochs": 1})
    run = Run(torch.randint(0, VOCABULARY, (STEPS[size] * settings.unroll + 1, settings.batch)), lambda model: 1.0)
    train(model, settings, run, [])
    started = time.perf_counter()
    train(model, settings, run, [])
    return 1e3 * (time.perf_counter() - started) / STEPS[size]


def main(path: Path) -> None:
    torch.set_num_threads(1)
    started = datetime.now(UTC)
    cases = list(itertools.product(SHAPES, LIBRARIES, MEMORY))
    times: dict[tuple[str, str, str], list[float]] = {case: [] for case in cases}
    for _, case in itertools.product(range(ROUNDS), cases):
        done = subprocess.run([sys.executable, __file__, *case], stdout=subprocess.PIPE, check=True, text=True)
        times[case].append(float(done.stdout))
    rows = []
    for (size, library, memory), taken in times.items():
        median, usual = statistics.median(taken), statistics.median(times[size, *AS_TORCH_DOES])
        row = {"model": size, "library": library, "freed_memory": memory, "median_ms": median, "all_ms": taken}
        rows.append({**row, "times_faster": usual / median})
        print(f"{size:7} {library:15} {memory:11} {median:7.1f} ms, {usual / median:.2f} times as fast")
    shape = {"vocabulary": VOCABULARY, "factor": FACTOR, "threads": 1, "mkl_holds_back": onednn.mkl_holds_back()}
    keep(path, {"what": "training step", **shape, "rows": rows}, started)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(measure(*sys.argv[1:]))
    else:
        main(Path(sys.argv[1]))
