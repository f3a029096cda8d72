"""Write the golden folders of the format's present version: `python tests/storage/golden/make.py VERSION`.

Those that are there are never written again; they have to load for ever as they are.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dopant.cost import Storage
from dopant.layers import slots
from dopant.models.language_model import LanguageModel, LanguageModelConfig
from dopant.storage import from_pretrained, load_model, save
from dopant.structures import Dense, Doped, Kronecker, LowRank, Sparse, Stacked, Structure, StructuredWeight

STRUCTURES: dict[str, tuple[Structure, tuple[int, int]]] = {
    "dense": (Dense(), (4, 5)),
    "low_rank": (LowRank(2), (6, 5)),
    "kronecker": (Kronecker(((2, 3), (3, 2))), (6, 6)),
    "kronecker_sum": (Kronecker(((2, 3), (3, 1), (2, 2)), terms=2), (12, 6)),
    "sparse": (Sparse(9), (6, 300)),
    "sparse_empty": (Sparse(0), (6, 5)),
    "stacked": (Stacked((Dense(), LowRank(1)), (2, 4)), (6, 5)),
    "doped_kronecker": (Doped(Kronecker(((2, 3), (3, 2))), Sparse(4)), (6, 6)),
    "doped_stacked": (Doped(Stacked((Dense(), Sparse(3)), (1, 5)), Sparse(4)), (6, 7)),
}


class Holder(nn.Module):
    """A module with one weight of each structure; the last is there twice."""

    def __init__(self, weights: dict[str, StructuredWeight]) -> None:
        super().__init__()
        for name, weight in weights.items():
            self.add_module(name, weight)
        self.again = weight
        self.register_buffer("count", torch.tensor(7))


class Tokenizer:
    """As plain as can be."""

    def to_json(self) -> dict[str, Any]:
        return {"kind": "word", "words": ["<unk>", "naïve"]}


def holder(seed: int) -> Holder:
    generator = torch.Generator().manual_seed(seed)
    return Holder({name: s.new(shape, generator=generator) for name, (s, shape) in STRUCTURES.items()})


def language_model() -> LanguageModel:
    torch.manual_seed(0)
    model = LanguageModel(LanguageModelConfig(vocabulary=12, hidden=4, layers=1, dropout=0.25, tied=True))
    slots(model)[1].set(Doped(Kronecker(((4, 4), (4, 2))), Sparse(6)).new((16, 8)))
    return model.eval()


def main(version: str) -> None:
    place = Path(__file__).parent / version
    pairs = itertools.product(("float32", "float16", "int8", "int4"), ("gaps", "rice"))
    for values, indices in (*pairs, ("huffman", "huffman")):
        if (place / f"{values}-{indices}").exists():
            continue
        folder = save(place / f"{values}-{indices}", holder(0), storage=Storage(values, indices))
        read = from_pretrained(holder(1), folder)
        dense = {slot.name: slot.weight.to_dense().detach().numpy() for slot in slots(read)}
        np.savez_compressed(place / f"{values}-{indices}.npz", **dense)
    if (place / "language-model").exists():
        return
    model = language_model()
    options: dict[str, Any] = {"tokenizer": Tokenizer(), "recipe": "seed: 1\n", "extra": {"note": "golden"}}
    folder = save(place / "language-model", model, storage=Storage("int8", "rice"), **options)
    tokens = torch.arange(12).view(6, 2)
    np.savez_compressed(place / "language-model.npz", logits=load_model(folder).model(tokens)[0].detach().numpy())


if __name__ == "__main__":
    main(sys.argv[1])
