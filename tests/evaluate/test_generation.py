from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from dopant.errors import InputError
from dopant.evaluate import generate
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


@pytest.mark.parametrize("tokens", [0, -1])
def test_no_tokens_are_refused(model: LanguageModel, tokens: int) -> None:
    with pytest.raises(InputError, match=f"tokens must be 1 or more, got {tokens}"):
        drawn(model, tokens=tokens)


@pytest.mark.parametrize("temperature", [-0.1, math.nan, math.inf])
def test_impossible_temperatures_are_refused(model: LanguageModel, temperature: float) -> None:
    with pytest.raises(InputError, match=f"temperature must be a number of 0 or more, got {temperature}"):
        drawn(model, temperature=temperature)


def test_an_empty_prompt_is_refused(model: LanguageModel) -> None:
    with pytest.raises(InputError, match="the prompt has no tokens; give one word at least"):
        drawn(model, prompt=())
