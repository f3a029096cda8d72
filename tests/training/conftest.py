from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dopant.evaluation import perplexity
from dopant.layers import slots
from dopant.models import LanguageModel, LanguageModelConfig
from dopant.structures import Doped, Kronecker, Sparse, Structure
from dopant.training.loop import Result, Run, train
from dopant.training.overlay import open_overlays
from dopant.training.settings import TrainSettings

VOCABULARY, HIDDEN = 11, 4
DOPED = Doped(Kronecker(((4, 2), (4, 4))), Sparse(20))  # 16×8, as the LSTM's joint matrix is


@pytest.fixture
def make_model() -> Callable[..., LanguageModel]:
    """A model of four hidden units; `structure` is that of both LSTM layers."""

    def make(structure: Structure | None = None, seed: int = 0, **config: Any) -> LanguageModel:
        torch.manual_seed(seed)
        model = LanguageModel(LanguageModelConfig(VOCABULARY, HIDDEN, init=0.5, **config))
        for slot in slots(model) if structure is not None else []:
            if slot.lstm:
                slot.set(structure.new(slot.weight.shape))
        return model

    return make


@pytest.fixture
def doped_model(make_model: Callable[..., LanguageModel]) -> LanguageModel:
    return make_model(DOPED)


@pytest.fixture
def columns() -> Tensor:
    """Two epochs of it at an unroll of 5 are 16 steps."""
    return torch.randint(VOCABULARY, (43, 4), generator=torch.Generator().manual_seed(7))


@pytest.fixture
def run_training(columns: Tensor) -> Callable[..., Result]:
    """Train as a recipe would: doped and sparse weights are opened first."""

    def run(
        model: nn.Module,
        *,
        folder: Path | None = None,
        resume: bool = False,
        seed: int = 3,
        validate: Callable[[nn.Module], float] = lambda model: perplexity(model, columns),
        fingerprint: str = "this run",
        teacher: nn.Module | None = None,
        text: Tensor = columns,
        originals: dict[str, Tensor] | None = None,
        **settings: Any,
    ) -> Result:
        originals = originals or {
            s.name: torch.randn(s.weight.shape, dtype=next(model.parameters()).dtype) * 0.3 for s in slots(model)
        }
        overlays = open_overlays(model, originals, start="scratch", overlay_start=0.5)
        how = {"epochs": 2, "batch": 4, "unroll": 5, "constant_epochs": 1, "sparsify": {"every": 3}, **settings}
        return train(
            model,
            TrainSettings.model_validate(how),
            Run(text, validate, lambda m: perplexity(m, text[:20]), seed, folder, fingerprint, resume, teacher),
            overlays,
        )

    return run
