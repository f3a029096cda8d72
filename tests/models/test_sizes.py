from __future__ import annotations

from typing import Any

import pytest
import torch

from dopant.layers import LSTM
from dopant.models import SIZES, LanguageModel, LanguageModelConfig
from dopant.training.settings import TrainSettings


@pytest.mark.parametrize(
    ("size", "published", "entries_of_the_lstm"),
    [("small", 4.65e6, 640_000), ("medium", 19.8e6, 6_760_000), ("large", 66.0e6, 36_000_000)],
)
def test_parameters_are_those_published(size: str, published: float, entries_of_the_lstm: int) -> None:
    """Penn Treebank's 10,000 words; arXiv 1409.2329 and 2001.08896."""
    with torch.device("meta"):
        model = LanguageModel(LanguageModelConfig(10_000, **SIZES[size].model))
    assert isinstance(model.lstm, LSTM)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(published, rel=2e-3)
    weights = [p.numel() for name, p in model.lstm.named_parameters() if name.startswith("weight")]
    assert sum(weights) == entries_of_the_lstm


@pytest.mark.parametrize(
    ("size", "hidden", "dropout", "init", "schedule"),
    [
        ("small", 200, 0.0, 0.1, (20, 20, 13, 4, 0.5, 5.0)),
        ("medium", 650, 0.5, 0.05, (20, 35, 39, 6, 0.8, 5.0)),
        ("large", 1500, 0.65, 0.04, (20, 35, 55, 14, 1 / 1.15, 10.0)),
    ],
)
def test_schedules_are_those_published(
    size: str, hidden: int, dropout: float, init: float, schedule: tuple[float, ...]
) -> None:
    assert SIZES[size].model == {"hidden": hidden, "layers": 2, "dropout": dropout, "init": init}
    settings = TrainSettings.model_validate(SIZES[size].training)
    names = ("batch", "unroll", "epochs", "constant_epochs", "decay", "clip")
    assert tuple(getattr(settings, name) for name in names) == schedule
    assert settings.learning_rate == 1.0


@pytest.mark.parametrize("size", SIZES)
def test_each_size_can_be_trained(size: str) -> None:
    TrainSettings.model_validate(SIZES[size].training)
    model: dict[str, Any] = SIZES[size].model
    LanguageModelConfig(100, **model)
