"""How long structures take to fit, and what loading a compressed medium model takes in time and memory.

python benchmarks/fit_and_load.py results/benchmarks/fit-and-load.json
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
from keeping import keep

from dopant.cost import Storage
from dopant.models import LanguageModel, LanguageModelConfig
from dopant.plan.apply import apply_plan
from dopant.plan.plan import make_plan
from dopant.storage.folder import save
from dopant.structures import Doped, Kronecker, LowRank, Sparse, Structure
from dopant.structures.presets import hybrid

LOADS = 5

FITS: list[tuple[tuple[int, int], Structure]] = [
    ((2600, 1300), LowRank(34)),
    ((2600, 1300), Kronecker(((52, 26), (50, 50)))),
    ((2600, 1300), Kronecker(((10, 10), (13, 13), (20, 10)))),
    ((2600, 1300), Sparse(135_200)),
    ((2600, 1300), hybrid(2600, 101, LowRank(1))),
    ((2600, 1300), hybrid(2600, 100, Kronecker(((50, 26), (50, 50))))),
    ((2600, 1300), Doped(Kronecker(((52, 26), (50, 50))), Sparse(131_348))),
    ((2600, 1300), Doped(LowRank(8), Sparse(104_000))),
    ((2600, 1300), Doped(hybrid(2600, 24, LowRank(1)), Sparse(100_000))),
    ((4096, 4096), Kronecker(((64, 64), (64, 64)))),
    ((4096, 4096), Kronecker(((64, 64), (64, 64)), terms=8)),
    ((4096, 4096), LowRank(80)),
]

CHILD = """
import json, sys, time
from dopant.storage.folder import load_model
from torch.utils._python_dispatch import TorchDispatchMode

class Largest(TorchDispatchMode):
    entries = 0
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for part in out if isinstance(out, (tuple, list)) else [out]:
            if hasattr(part, "numel") and part.device.type == "cpu":
                Largest.entries = max(Largest.entries, part.numel())
        return out

def resident(line):
    with open("/proc/self/status") as status:
        return 1024 * int(next(text for text in status if text.startswith(line)).split()[1])

load_model(sys.argv[2])  # a tiny one, so that what Python imports late is not counted
with open("/proc/self/clear_refs", "w") as mark:  # Linux: the peak counts from here
    mark.write("5")
before = resident("VmRSS")
started = time.perf_counter()
load_model(sys.argv[1])
seconds = time.perf_counter() - started
grown = resident("VmHWM") - before
with Largest():
    load_model(sys.argv[1])
print(json.dumps({"seconds": seconds, "peak_growth_bytes": grown, "largest_tensor": Largest.entries}))
"""


def fits() -> list[dict[str, object]]:
    """Every structure on a Gaussian matrix, the hardest kind: its spectrum is flat."""
    rows = []
    for shape, structure in FITS:
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        started, busy = time.perf_counter(), time.process_time()
        weight = structure.fit(matrix)
        seconds, cpu = time.perf_counter() - started, time.process_time() - busy
        error = float((matrix - weight.to_dense().detach()).norm() / matrix.norm())
        row = {"shape": shape, "structure": str(structure), "seconds": seconds, "cpu_seconds": cpu}
        rows.append({**row, "relative_error": error})
        print(f"fit {shape[0]}×{shape[1]} {structure}: {seconds:.2f} s ({cpu:.2f} of it cpu), error {error:.3f}")
    return rows


def loading() -> dict[str, object]:
    """The medium model, LSTM, embedding and decoder at 25x by parameters, int8 and gaps."""
    model = LanguageModel(LanguageModelConfig(10_000, 650))
    storage = Storage("int8")
    plan = make_plan(model, target="25x", count="parameters", scope="model", storage=storage)
    apply_plan(model, plan, "new", torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        saved = save(Path(folder) / "model", model, storage=plan.storages())
        size = (saved / "model.safetensors").stat().st_size
        tiny = LanguageModel(LanguageModelConfig(40, 24))
        apply_plan(tiny, make_plan(tiny, target="2x", count="parameters", scope="model", storage=storage))
        command = [sys.executable, "-c", CHILD, str(saved), str(save(Path(folder) / "tiny", tiny, storage=storage))]
        runs = [json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(LOADS)]
    dense = max(w.shape[0] * w.shape[1] for w in plan.weights)
    found = {
        "file_bytes": size,
        "dense_bytes": plan.total().dense.stored_bytes,
        "median_seconds": statistics.median(run["seconds"] for run in runs),
        "peak_growth_bytes": max(run["peak_growth_bytes"] for run in runs),
        "largest_tensor_entries": max(run["largest_tensor"] for run in runs),
        "largest_dense_matrix_entries": dense,
    }
    print(json.dumps(found))
    return found


def main(path: Path) -> None:
    torch.set_num_threads(1)
    started = datetime.now(UTC)
    keep(path, {"what": "fit and load", "threads": 1, "fits": fits(), "load": loading()}, started)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
