"""What the runtime holds of a medium model that is compressed throughout, beside the size of its file.

python benchmarks/memory.py results/benchmarks/memory.json
"""

from __future__ import annotations

import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from keeping import keep

from dopant.cost import Storage
from dopant.models import LanguageModel, LanguageModelConfig
from dopant.plan.apply import apply_plan
from dopant.plan.plan import make_plan
from dopant.runtime import Runtime
from dopant.storage.folder import load_model, save


def held(per_bank: int | None) -> list[dict[str, object]]:
    """LSTM, embedding and decoder at 25x by parameters, int8 and gaps, untrained: bytes of the packed weights."""
    model = LanguageModel(LanguageModelConfig(10_000, 650))
    structure = None if per_bank is None else {"per_bank": per_bank}
    storage = Storage("int8")
    plan = make_plan(model, target="25x", count="parameters", scope="model", storage=storage, structure=structure)
    apply_plan(model, plan, "new", torch.Generator().manual_seed(0))
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        saved = save(Path(folder) / "model", model, storage=plan.storages())
        size = (saved / "model.safetensors").stat().st_size
        for precision in ("exact", "fast"):
            runtime = Runtime(load_model(saved).model, precision=precision)
            runtime.step([3])
            steps = runtime.bytes
            runtime.sequence(np.zeros((35, 1), np.int64))
            runtime.sequence(np.zeros((35, 32), np.int64))
            row: dict[str, object] = {
                "per_bank": per_bank,
                "precision": precision,
                "kernels": runtime.active,
                "file_bytes": size,
            }
            rows.append(row | {"held_after_steps": steps, "held_after_sequences": runtime.bytes})
            print(f"{row}: {steps / size:.2f} times the file after steps, {runtime.bytes / size:.2f} after sequences")
    return rows


def main(path: Path) -> None:
    started = datetime.now(UTC)
    keep(path, {"what": "memory of packed weights", "rows": held(None) + held(4)}, started)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
