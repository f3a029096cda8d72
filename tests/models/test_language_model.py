from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dopant.errors import InputError
from dopant.layers import slots
from dopant.models import LanguageModel, LanguageModelConfig
from dopant.structures import DenseWeight


def model_of(vocabulary: int = 50, hidden: int = 16, **config: Any) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(LanguageModelConfig(vocabulary, hidden, **config))


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("init", [0.1, 0.04])
def test_all_weights_start_uniform_within_init_and_lstm_biases_at_zero(init: float, tied: bool, joint: bool) -> None:
    """Zaremba et al.: section 4.1."""
    model = model_of(400, 40, init=init, tied=tied, joint=joint)
    for slot in slots(model):
        assert isinstance(slot.weight, DenseWeight)
        matrix = slot.weight.matrix.detach()
        assert matrix.abs().max() <= init
        assert matrix.abs().max() > 0.99 * init
        assert matrix.std() == pytest.approx(init / 3**0.5, rel=0.02)
    assert model.decoder.bias is not None
    assert 0.9 * init < model.decoder.bias.abs().max() <= init
    for layer in (0, 1):
        assert not model.lstm.get_parameter(f"bias_l{layer}").any()


def test_the_weights_have_their_names_and_shapes() -> None:
    assert {slot.name: slot.weight.shape for slot in slots(model_of())} == {
        "embedding.weight": (50, 16),
        "lstm.weight_l0": (64, 32),
        "lstm.weight_l1": (64, 32),
        "decoder.weight": (50, 16),
    }
    apart = {slot.name: slot.weight.shape for slot in slots(model_of(joint=False, layers=1))}
    assert apart["lstm.weight_ih_l0"] == apart["lstm.weight_hh_l0"] == (64, 16)


def test_tied_weights_are_one() -> None:
    model = model_of(tied=True)
    assert model.decoder.weight is model.embedding.weight
    assert sum(p.numel() for p in model.parameters()) == 50 * 16 + 50 + 2 * (64 * 32 + 64)
    logits, _ = model(torch.zeros(1, 1, dtype=torch.int64))
    logits.sum().backward()
    (tied,) = (slot for slot in slots(model) if "embedding" in slot.name)
    assert tied.aliases == ("decoder.weight",)
    assert isinstance(tied.weight, DenseWeight)
    assert tied.weight.matrix.grad is not None
    assert tied.weight.matrix.grad[1:].any()  # the decoder reaches every row


def test_it_is_an_embedding_an_lstm_and_a_linear_layer() -> None:
    model = model_of().eval()
    embedding, lstm, linear = nn.Embedding(50, 16), nn.LSTM(16, 16, 2), nn.Linear(16, 50)
    weights = {slot.name: slot.weight.to_dense().detach() for slot in slots(model)}
    embedding.load_state_dict({"weight": weights["embedding.weight"]})
    linear.load_state_dict({"weight": weights["decoder.weight"], "bias": model.decoder.bias})
    with torch.no_grad():
        for layer in (0, 1):
            ih, hh = weights[f"lstm.weight_l{layer}"].split(16, dim=1)
            for name, value in (("weight_ih", ih), ("weight_hh", hh)):
                lstm.get_parameter(f"{name}_l{layer}").copy_(value)
            lstm.get_parameter(f"bias_ih_l{layer}").zero_()
            lstm.get_parameter(f"bias_hh_l{layer}").zero_()
    tokens = torch.randint(50, (7, 3))
    expected, (h, c) = lstm(embedding(tokens))
    logits, state = model(tokens)
    torch.testing.assert_close(logits, linear(expected))
    torch.testing.assert_close(state, (h, c))
    first, carried = model(tokens[:4])
    second, _ = model(tokens[4:], carried)
    torch.testing.assert_close(torch.cat([first, second]), logits)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_dropout_is_on_the_embedding_and_on_each_layer_s_output_alone(
    layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(layers=layers, dropout=0.4)
    seen: list[tuple[tuple[int, ...], float, bool]] = []
    real = F.dropout

    def noted(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
        seen.append((tuple(x.shape), p, training))
        return real(x, p, training)

    monkeypatch.setattr(F, "dropout", noted)
    model.train()
    model(torch.zeros(5, 2, dtype=torch.int64))
    assert seen == [((5, 2, 16), 0.4, True)] * (layers + 1)
    seen.clear()
    model.eval()
    model(torch.zeros(5, 2, dtype=torch.int64))
    assert not any(training for _, _, training in seen)


def test_the_state_is_never_dropped() -> None:
    """With everything non-recurrent dropped, what is left is the state alone, and it is not disturbed."""
    model = model_of(layers=1, dropout=0.9)
    state = (torch.ones(1, 1, 16), torch.ones(1, 1, 16))
    still = model_of(layers=1)
    with torch.no_grad():
        still.embedding.weight.matrix.zero_()  # type: ignore[operator]
        model.embedding.weight.matrix.zero_()  # type: ignore[operator]
    _, dropped = model(torch.zeros(6, 1, dtype=torch.int64), state)
    _, kept = still(torch.zeros(6, 1, dtype=torch.int64), state)
    torch.testing.assert_close(dropped, kept)


def test_the_expected_output_is_that_without_dropout() -> None:
    model = model_of(layers=1, dropout=0.5)
    tokens = torch.zeros(1, 4000, dtype=torch.int64)
    with torch.no_grad():
        noisy = (model.train()(tokens)[0] - model.decoder.bias).mean(1)
        quiet = (model.eval()(tokens)[0] - model.decoder.bias)[:, 0]
    torch.testing.assert_close(noisy, quiet, atol=2e-4, rtol=0.2)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"vocabulary": 0}, "vocabulary must be a whole number of 1 or more, got 0"),
        ({"hidden": 2.5}, "hidden must be a whole number"),
        ({"layers": True}, "layers must be a whole number"),
        ({"dropout": 1.0}, "dropout is a rate from 0 to below 1"),
        ({"dropout": float("nan")}, "dropout is a rate"),
        ({"init": 0.0}, "init is the bound of the starting weights, above 0"),
    ],
)
def test_impossible_sizes_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LanguageModelConfig(**{"vocabulary": 10, **config})
