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
from dopant.data import batchify, read_corpus
from dopant.evaluation import perplexity
from dopant.recipes.setting import encode

BATCHES = (1, 8, 16, 32)  # sequences read side by side, parts of the text


def main(folder: str, corpus: str, path: Path) -> None:
    started = datetime.now(UTC)
    torch.set_num_threads(1)
    exact, fast = dopant.load(folder), dopant.load(folder, precision="fast")
    assert exact.tokenizer is not None, "a folder of `dopant train` has one"
    text = read_corpus(corpus)
    tokens = encode(text, exact.tokenizer).test
    rows = []
    for batch in BATCHES:
        columns = batchify(tokens, batch)
        slow, quick = perplexity(exact, columns), perplexity(fast, columns)
        rows.append({"batch": batch, "exact": slow, "fast": quick, "difference": quick / slow - 1})
        print(f"batch {batch}: exact {slow:.4f}, fast {quick:.4f} ({quick / slow - 1:+.3%})")
    protocol = {"model": folder, "corpus": text.name, "checksum": text.checksum, "split": "test", "tokens": len(tokens)}
    keep(path, {"what": "precision", **protocol, "kernels": fast.active, "rows": rows}, started)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
