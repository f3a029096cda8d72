from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dopant.data import batchify
from dopant.errors import InputError
from dopant.evaluation import perplexity
from dopant.evaluation.mode import evaluating
from dopant.models import LanguageModel, LanguageModelConfig

State = tuple[Tensor, Tensor]


class Counting(nn.Module):
    """Scores each token by how often its stream has had it so far, counted in the state: all by hand."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.vocabulary = vocabulary
        self.modes: list[bool] = []

    def forward(self, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        self.modes.append(self.training)
        counts = torch.zeros(tokens.shape[1], self.vocabulary) if state is None else state[0]
        scores = []
        for step in tokens:
            counts = counts + nn.functional.one_hot(step, self.vocabulary)
            scores.append((counts + 1.0).log())
        return torch.stack(scores) * self.weight, (counts, counts)


def by_hand(columns: Tensor, vocabulary: int) -> float:
    """Laplace's rule of succession."""
    total, count = 0.0, 0
    for stream in columns.T.tolist():
        for position in range(1, len(stream)):
            seen = stream[:position]
            total -= math.log((seen.count(stream[position]) + 1) / (len(seen) + vocabulary))
            count += 1
    return math.exp(total / count)


@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), st.integers(1, 4), st.integers(1, 70))
def test_it_is_the_mean_over_all_tokens_given_all_before(ids: list[int], batch: int, unroll: int) -> None:
    columns = batchify(ids, min(batch, len(ids) // 2))
    assert perplexity(Counting(5), columns, unroll=unroll) == pytest.approx(by_hand(columns, 5), rel=1e-5)


def test_a_uniform_model_is_as_perplexed_as_there_are_words() -> None:
    model = Counting(7)
    nn.init.zeros_(model.weight)
    assert perplexity(model, torch.arange(30).view(10, 3) % 7) == pytest.approx(7.0)


def test_the_unroll_does_not_matter_to_a_language_model() -> None:
    torch.manual_seed(0)
    model = LanguageModel(LanguageModelConfig(12, 8, init=3.0, dropout=0.5))
    columns = torch.randint(12, (50, 3))
    found = [perplexity(model, columns, unroll=unroll) for unroll in (1, 7, 49, 64)]
    assert found == pytest.approx(found[:1] * 4, rel=1e-5)
    fresh = [perplexity(model, columns[start : start + 2]) for start in range(49)]  # without what came before
    assert math.exp(sum(map(math.log, fresh)) / 49) != pytest.approx(found[0], rel=1e-3)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_evaluation_and_put_back(training: bool) -> None:
    model = Counting(5).train(training)
    perplexity(model, torch.zeros(5, 2, dtype=torch.int64), unroll=2)
    assert model.modes == [False, False]
    assert model.training is training


def test_it_is_infinite_where_it_overflows() -> None:
    model = Counting(3)
    nn.init.constant_(model.weight, 1e4)
    assert perplexity(model, torch.tensor([[0], [0]])) == pytest.approx(1.0)
    assert perplexity(model, torch.tensor([[0], [1]])) == math.inf
    nn.init.constant_(model.weight, math.nan)
    assert perplexity(model, torch.tensor([[0], [0]])) == math.inf


@pytest.mark.parametrize("shape", [(1, 4), (0, 4), (5, 0), (5,)])
def test_nothing_to_predict_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"columns .* of two tokens or more each, got shape"):
        perplexity(Counting(5), torch.zeros(shape, dtype=torch.int64))


def test_an_unroll_of_zero_is_refused() -> None:
    with pytest.raises(InputError, match="unroll is 0; at least 1 is needed"):
        perplexity(Counting(5), torch.zeros(3, 1, dtype=torch.int64), unroll=0)


def test_parts_that_were_frozen_in_evaluation_stay_so() -> None:
    model = nn.ModuleDict({"one": nn.Dropout(), "frozen": nn.Sequential(nn.Dropout(), nn.Linear(1, 1))})
    model["frozen"].eval()
    before = {name: module.training for name, module in model.named_modules()}
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert {name: module.training for name, module in model.named_modules()} == before
