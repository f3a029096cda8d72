"""What is measured: one compressed model, the same model dense, and the inputs that all engines get."""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from dopant.benchmarking.record import STEPS, CaseName, Part
from dopant.layers import revert
from dopant.models.language_model import LanguageModel

Array = npt.NDArray[Any]


class Subject:
    """A model and its dense form.

    Args:
        model: in evaluation mode.
        seed: of the inputs.
    """

    def __init__(self, model: LanguageModel, seed: int = 0) -> None:
        self.model = model
        self.config = model.config
        self.seed = seed

    @cached_property
    def dense(self) -> LanguageModel:
        """The model with torch's own layers: nn.Embedding, nn.LSTM, nn.Linear."""
        dense = revert(self.model).eval().requires_grad_(False)
        return cast(LanguageModel, dense)

    @property
    def dense_lstm(self) -> nn.LSTM:
        """The LSTM layers of the dense model."""
        return cast(nn.LSTM, self.dense.lstm)

    def dense_array(self, name: str) -> Array:
        """A parameter of the dense model; torch's own memory."""
        array: Array = self.dense.get_parameter(name).numpy()
        return array

    def inputs(self, part: Part, case: CaseName, batch: int) -> Array:
        """(steps, batch, hidden) float32 for the LSTM alone, (steps, batch) int64 for whole tokens."""
        generator = torch.Generator().manual_seed(self.seed)
        size = (STEPS[case], batch)
        if part == "token":
            return torch.randint(self.config.vocabulary, size, generator=generator).numpy()
        return torch.empty(*size, self.config.hidden).uniform_(-1.0, 1.0, generator=generator).numpy()

    def zeros(self, batch: int) -> tuple[Array, Array]:
        """The state at the start, (layers, batch, hidden) each."""
        shape = (self.config.layers, batch, self.config.hidden)
        return np.zeros(shape, np.float32), np.zeros(shape, np.float32)
