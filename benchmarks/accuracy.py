"""How far exact is from float64: the outputs of a model's LSTM over 35 steps, against torch in float64 and in float32.

python benchmarks/accuracy.py runs/ptb-medium/doped-kronecker-short-quick-seed0 ptb results/precision/medium.json

An error is relative to the largest output of its sequence; of all errors of a sequence `largest` is the largest.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from keeping import keep
from torch import Tensor, nn

import dopant
from dopant.data import read_corpus
from dopant.recipes.setting import encode
from dopant.storage.folder import load_model

STEPS, SEQUENCES = 35, 256
SEED = 0


def inputs_of(embedding: nn.Module, tokens: Tensor) -> dict[str, Tensor]:
    """(STEPS, SEQUENCES, inputs): a text's words as the model embeds them, and random numbers of two sizes."""
    words = tokens[: STEPS * SEQUENCES].reshape(SEQUENCES, STEPS).T
    with torch.no_grad():
        text = embedding(words)
    random = torch.randn(text.shape, generator=torch.Generator().manual_seed(SEED))
    return {"text": text, "random, 0.1": 0.1 * random, "random, 1": random}


def errors(found: Tensor, wanted: Tensor) -> dict[str, float]:
    """Root mean square of all errors; of the sequences' largest ones the median, the 99th of a hundred, the last."""
    relative = (found - wanted) / wanted.abs().amax((0, 2), keepdim=True)
    largest = relative.abs().amax((0, 2))
    shares = {"median": 0.5, "of_99_in_100": 0.99, "of_all": 1.0}
    quantiles = {f"largest_{name}": largest.quantile(share).item() for name, share in shares.items()}
    return {
        "rms": relative.square().mean().sqrt().item(),
        **quantiles,
        "over_1e-6": (largest > 1e-6).double().mean().item(),
    }


def main(folder: str, corpus: str, path: Path) -> None:
    started = datetime.now(UTC)
    torch.set_num_threads(1)
    runtime, model = dopant.load(folder), load_model(Path(folder)).model.eval()
    assert runtime.tokenizer is not None, "a folder of `dopant train` has one"
    text = read_corpus(corpus)
    tokens = encode(text, runtime.tokenizer).test
    rows = []
    for name, x in inputs_of(model.embedding, tokens).items():
        with torch.no_grad():
            by_torch = model.lstm.float()(x)[0].double()
            wanted = model.lstm.double()(x.double())[0]
        for batch in (1, 32):
            parts = [np.ascontiguousarray(x[:, b : b + batch]) for b in range(0, SEQUENCES, batch)]
            found = np.concatenate([runtime.lstm.sequence(part)[0] for part in parts], 1)
            rows.append(
                {"inputs": name, "batch": batch, "engine": "dopant", **errors(torch.from_numpy(found).double(), wanted)}
            )
            print(rows[-1])
        rows.append({"inputs": name, "batch": SEQUENCES, "engine": "torch", **errors(by_torch, wanted)})
        print(rows[-1])
    protocol = {"model": folder, "corpus": text.name, "split": "test", "steps": STEPS, "sequences": SEQUENCES}
    result = {"what": "exact against float64", **protocol, "kernels": runtime.active, "rows": rows}
    keep(path, result, started, seed=SEED)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
