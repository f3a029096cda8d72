"""Zaremba's three sizes with their published schedules, and a tiny one for a first look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Size:
    """A named model and how it is trained.

    Args:
        model: fields of LanguageModelConfig, without the vocabulary.
        training: fields of the training settings.
        perplexity: published (train, valid, test) on Penn Treebank.
    """

    model: dict[str, Any]
    training: dict[str, Any]
    perplexity: tuple[float, float, float] | None = None


SIZES: dict[str, Size] = {
    "tiny": Size(
        {"hidden": 128, "layers": 2, "dropout": 0.1, "init": 0.1},
        {"batch": 20, "unroll": 20, "epochs": 4, "constant_epochs": 2, "decay": 0.4, "clip": 5.0},
    ),
    "small": Size(
        {"hidden": 200, "layers": 2, "dropout": 0.0, "init": 0.1},
        {"batch": 20, "unroll": 20, "epochs": 13, "constant_epochs": 4, "decay": 0.5, "clip": 5.0},
        (37.99, 121.39, 115.91),
    ),
    "medium": Size(
        {"hidden": 650, "layers": 2, "dropout": 0.5, "init": 0.05},
        {"batch": 20, "unroll": 35, "epochs": 39, "constant_epochs": 6, "decay": 0.8, "clip": 5.0},
        (48.45, 86.16, 82.07),
    ),
    "large": Size(
        {"hidden": 1500, "layers": 2, "dropout": 0.65, "init": 0.04},
        {"batch": 20, "unroll": 35, "epochs": 55, "constant_epochs": 14, "decay": 1 / 1.15, "clip": 10.0},
        (37.87, 82.62, 78.29),
    ),
}
"""Published: arXiv 1409.2329 and its public code; `tiny` is our own."""
