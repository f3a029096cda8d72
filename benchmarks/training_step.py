"""A training step of the doped LSTM against torch's dense one (cuDNN's on a GPU), interleaved in one run.

On a GPU also as they are replayed when recorded once as a CUDA graph (`training.cuda_graph`).

python benchmarks/training_step.py results/benchmarks/training-step.json
python benchmarks/training_step.py results/benchmarks/training-step-cuda.json cuda
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
from keeping import keep
from torch import Tensor, nn

from dopant.layers import LSTM, slots
from dopant.recipes.run import check_device, device_name
from dopant.structures import DopedWeight, Kronecker, MaskedWeight
from dopant.training.co_matrix_dropout import RowMasks
from dopant.training.graph import can_record, record
from dopant.training.settings import CoMatrixDropout

HIDDEN, LAYERS, BATCH, STEPS, FACTOR = 650, 2, 20, 35, 25
SHAPES = ((52, 26), (50, 50))
WARM_UP, ROUNDS = 3, 21
DENSE = "dense nn.LSTM"
Step = Callable[[], Tensor]


def doped_lstm() -> LSTM:
    """The layer of the medium model at 25x by parameters, as it is trained after the overlay was annealed."""
    lstm = LSTM(HIDDEN, HIDDEN, LAYERS)
    for slot in slots(lstm):
        base = Kronecker(SHAPES).new(slot.weight.shape)
        matrix = slot.weight.to_dense().detach()
        slot.set(DopedWeight(base, MaskedWeight(matrix, torch.rand(matrix.shape) < 1 / FACTOR)))
    return lstm


def step_of(lstm: nn.Module, x: Tensor) -> Step:
    """Forward and backward over one unroll."""

    def step() -> Tensor:
        lstm.zero_grad(set_to_none=True)
        total: Tensor = lstm(x)[0].sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total.detach()

    return step


def recorded_step(step: Step, x: Tensor) -> Step:
    """A step as a CUDA graph, once it has been taken: what is set up at first cannot be recorded."""
    step()
    return record(step, x.device)


def masked_step_of(lstm: LSTM, x: Tensor, *, recorded: bool) -> Step:
    """The same with co-matrix dropout, whose masks are drawn anew for each step."""
    masks = RowMasks(lstm, CoMatrixDropout(rate=0.1), 10)
    generator = torch.Generator().manual_seed(0)

    def draw() -> None:
        masks.draw(0, generator, (STEPS, BATCH), slice(0, BATCH))
        if recorded:
            masks.settle()

    draw()
    step = recorded_step(step_of(lstm, x), x) if recorded else step_of(lstm, x)

    def whole() -> Tensor:
        draw()
        return step()

    return whole


def main(path: Path, device: str = "cpu") -> None:
    started = datetime.now(UTC)
    check_device(device)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.randn(STEPS, BATCH, HIDDEN, device=device, requires_grad=True)  # as what comes from an embedding
    cases: dict[str, Step] = {
        DENSE: step_of(nn.LSTM(HIDDEN, HIDDEN, LAYERS).to(device), x),
        "doped": step_of(doped_lstm().to(device), x),
        "doped, co-matrix dropout": masked_step_of(doped_lstm().to(device), x, recorded=False),
    }
    if can_record(x.device):
        cases |= {
            f"{DENSE}, recorded": recorded_step(step_of(nn.LSTM(HIDDEN, HIDDEN, LAYERS).to(device), x), x),
            "doped, recorded": recorded_step(step_of(doped_lstm().to(device), x), x),
            "doped, co-matrix dropout, recorded": masked_step_of(doped_lstm().to(device), x, recorded=True),
        }
    times: dict[str, list[float]] = {name: [] for name in cases}
    cpu: dict[str, list[float]] = {name: [] for name in cases}  # tells what was waiting for other programs
    for turn in range(WARM_UP + ROUNDS):
        for name, step in cases.items():
            begun, busy = time.perf_counter(), time.process_time()
            step()
            if x.is_cuda:  # which is only told what to do, and does it later
                torch.cuda.synchronize()
            if turn >= WARM_UP:
                times[name].append(1e3 * (time.perf_counter() - begun))
                cpu[name].append(1e3 * (time.process_time() - busy))
    dense, dense_cpu = (statistics.median(taken[DENSE]) for taken in (times, cpu))
    rows = []
    for name, taken in times.items():
        low, median, high = statistics.quantiles(taken, n=4)
        busy = statistics.median(cpu[name])
        row = {"case": name, "median_ms": median, "quartiles_ms": [low, high], "against_dense": median / dense}
        rows.append({**row, "median_cpu_ms": busy, "cpu_against_dense": busy / dense_cpu})
        print(
            f"{name:36} {median:7.1f} ms (quartiles {low:.1f}-{high:.1f}), {median / dense:.2f}x dense; "
            f"of the processor {busy:.1f} ms, {busy / dense_cpu:.2f}x dense"
        )
    shape = {"hidden": HIDDEN, "layers": LAYERS, "batch": BATCH, "steps": STEPS, "factor": FACTOR, "threads": 1}
    keep(path, {"what": "training step", **shape, "rows": rows}, started, device=device_name(device))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
