from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dopant.errors import InputError
from dopant.evaluation import generate
from dopant.models import LanguageModel, LanguageModelConfig


@pytest.fixture
def model() -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(LanguageModelConfig(12, 8, init=2.0, dropout=0.5))


def drawn(
    model: nn.Module, seed: int = 0, tokens: int = 30, prompt: tuple[int, ...] = (3, 1), **options: float
) -> list[int]:
    return generate(model, torch.tensor(prompt), tokens, generator=torch.Generator().manual_seed(seed), **options)


def test_equal_seeds_draw_equal_texts(model: LanguageModel) -> None:
    assert drawn(model, 1) == drawn(model, 1)
    assert drawn(model, 1) != drawn(model, 2)
    assert len(drawn(model)) == 30
    assert model.training  # as it was, though dropout was off


def test_temperature_zero_takes_the_likeliest_of_the_whole_text(model: LanguageModel) -> None:
    text = [3, 1]
    model.eval()
    for _ in range(15):
        text.append(int(model(torch.tensor(text).view(-1, 1))[0][-1, 0].argmax()))
    assert drawn(model, tokens=15, temperature=0.0) == text[2:]
    assert drawn(model, tokens=15, temperature=1e-320) == text[2:]
    assert drawn(model, tokens=15, temperature=1e-3) == text[2:]
    assert not model.training


class Fixed(nn.Module):
    """The same chances for each token."""

    def __init__(self, *chances: float) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.tensor(chances).log() + 50.0)

    def forward(self, tokens: Tensor, state: None) -> tuple[Tensor, None]:
        return self.scores.expand(*tokens.shape, -1), None


def test_tokens_come_with_the_model_s_chances() -> None:
    model = Fixed(0.1, 0.6, 0.3)
    for temperature, expected in (
        (1.0, (0.1, 0.6, 0.3)),
        (0.5, (1 / 46, 36 / 46, 9 / 46)),
        (1e9, (1 / 3, 1 / 3, 1 / 3)),
    ):
        text = drawn(model, tokens=3000, temperature=temperature)
        assert [text.count(token) / 3000 for token in range(3)] == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("tokens", [0, -1, 2.5, "3", None])
def test_a_number_of_tokens_is_whole(model: LanguageModel, tokens: Any) -> None:
    with pytest.raises(InputError, match=f"tokens must be a whole number of 1 or more, got {tokens!r}"):
        drawn(model, tokens=tokens)
    assert len(drawn(model, tokens=np.int32(3))) == 3  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [-0.1, math.nan, math.inf, "x"])
def test_impossible_temperatures_are_refused(model: LanguageModel, temperature: Any) -> None:
    with pytest.raises(InputError, match=f"temperature must be a number of 0 or more, got {temperature!r}"):
        drawn(model, temperature=temperature)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_from_scores_that_are_not_finite_nothing_is_drawn(temperature: float) -> None:
    for chance, told in ((math.nan, "nan"), (math.inf, "inf")):
        with pytest.raises(InputError, match=f"the largest of the model's scores is {told}"):
            drawn(Fixed(0.5, chance, 0.5), temperature=temperature)
    assert set(drawn(Fixed(0.5, 0.0, 0.5))) == {0, 2}


def test_an_empty_prompt_is_refused(model: LanguageModel) -> None:
    with pytest.raises(InputError, match="the prompt has no tokens; give one word at least"):
        drawn(model, prompt=())
