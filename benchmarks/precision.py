"""What the fast precision costs: perplexity of a model on a test text, exact and fast, for batches of each kernel.

python benchmarks/precision.py runs/ptb-small/doped-kronecker-cmr-seed0 ptb results/precision/ptb-small.json
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import torch
from keeping import keep

import dopant
from dopant.data import read_corpus
from dopant.evaluate import perplexity
from dopant.recipes.setting import encode, evaluation_columns

BATCHES = (1, 8, 16, 32)  # sequences read side by side, parts of the text


def main(folder: str, corpus: str, path: Path) -> None:
    started = datetime.now(UTC)
    torch.set_num_threads(1)
    exact, fast = (dopant.load(folder, precision=precision) for precision in ("exact", "fast"))
    text = read_corpus(corpus)
    tokens = encode(text, exact.tokenizer).test
    rows = []
    for batch in BATCHES:
        columns = evaluation_columns(tokens, batch)
        found = {runtime.precision: perplexity(runtime, columns) for runtime in (exact, fast)}
        rows.append({"batch": batch, **found, "difference": found["fast"] / found["exact"] - 1})
        print(f"batch {batch}: exact {found['exact']:.4f}, fast {found['fast']:.4f} ({rows[-1]['difference']:+.3%})")
    protocol = {"model": folder, "corpus": text.name, "checksum": text.checksum, "split": "test", "tokens": len(tokens)}
    keep(path, {"what": "precision", **protocol, "kernels": fast.active, "rows": rows}, started)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
