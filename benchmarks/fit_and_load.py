"""How long structures take to fit, and what loading a compressed medium model takes in time and memory.

python benchmarks/fit_and_load.py results/benchmarks/fit-and-load.json
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from dopant.cost import Storage
from dopant.models import LanguageModel, LanguageModelConfig
from dopant.plan.apply import apply_plan
from dopant.plan.plan import make_plan
from dopant.report.records import make_record
from dopant.storage.folder import save
from dopant.structures import Doped, Kronecker, LowRank, Sparse, Structure

LOADS = 5

FITS: list[tuple[tuple[int, int], Structure]] = [
    ((2600, 1300), LowRank(34)),
    ((2600, 1300), Kronecker(((52, 26), (50, 50)))),
    ((2600, 1300), Sparse(135_200)),
    ((2600, 1300), Doped(Kronecker(((52, 26), (50, 50))), Sparse(131_348))),
    ((4096, 4096), Kronecker(((64, 64), (64, 64)))),
    ((4096, 4096), Kronecker(((64, 64), (64, 64)), terms=8)),
    ((4096, 4096), LowRank(80)),
]

CHILD = """
import json, resource, sys, time
from dopant.storage.folder import load
from torch.utils._python_dispatch import TorchDispatchMode

class Largest(TorchDispatchMode):
    entries = 0
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for part in out if isinstance(out, (tuple, list)) else [out]:
            if hasattr(part, "numel") and part.device.type == "cpu":
                Largest.entries = max(Largest.entries, part.numel())
        return out

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.perf_counter()
load(sys.argv[1])
seconds = time.perf_counter() - started
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
with Largest():
    load(sys.argv[1])
print(json.dumps({"seconds": seconds, "peak_growth_bytes": 1024 * grown, "largest_tensor": Largest.entries}))
"""


def fits() -> list[dict[str, object]]:
    """Every structure on a Gaussian matrix, the hardest kind: its spectrum is flat."""
    rows = []
    for shape, structure in FITS:
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        started = time.perf_counter()
        weight = structure.fit(matrix)
        seconds = time.perf_counter() - started
        error = float((matrix - weight.to_dense().detach()).norm() / matrix.norm())
        rows.append({"shape": shape, "structure": str(structure), "seconds": seconds, "relative_error": error})
        print(f"fit {shape[0]}×{shape[1]} {structure}: {seconds:.2f} s, relative error {error:.3f}")
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
        runs = [
            json.loads(subprocess.run([sys.executable, "-c", CHILD, saved], capture_output=True, check=True).stdout)
            for _ in range(LOADS)
        ]
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
    result = {"what": "fit and load", "threads": 1, "fits": fits(), "load": loading()}
    result["benchmark_peak_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result["record"] = json.loads(make_record([], seed=0).model_dump_json()) | {
        "command": "python " + " ".join(sys.argv)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
