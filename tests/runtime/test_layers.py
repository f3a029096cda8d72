"""Native kernels behind torch layers: the same numbers, in evaluation alone."""

from __future__ import annotations

import copy
import gc
import io
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.nn.utils.rnn import pack_sequence

from dopant.errors import InputError
from dopant.layers import LSTM, Embedding, Linear, convert
from dopant.native.library import library
from dopant.runtime import accelerate
from dopant.structures import Dense
from dopant.structures.presets import doped_kronecker, doped_lmf

pytestmark = pytest.mark.skipif(library() is None, reason="there is no native library")


class Tagger(nn.Module):
    """Someone's own module."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 12)
        self.lstm = nn.LSTM(12, 20, num_layers=2, batch_first=True, bidirectional=True)
        self.out = nn.Linear(40, 7)

    def forward(self, index: Tensor) -> Any:
        return self.out(self.lstm(self.embedding(index))[0])


def test_a_model_gives_what_it_gave() -> None:
    model = convert(Tagger()).eval()
    index = torch.randint(0, 50, (3, 9))
    with torch.no_grad():
        before = model(index)
        fast = accelerate(copy.deepcopy(model), precision="fast")(index)
        after = accelerate(model)(index)
    torch.testing.assert_close(after, before, rtol=0, atol=2e-6)
    torch.testing.assert_close(fast, before, rtol=0, atol=2e-2)
    assert not torch.equal(fast, before)


def test_training_goes_on_as_before() -> None:
    model = convert(Tagger())
    index = torch.randint(0, 50, (3, 9))
    expected = model(index)
    accelerate(model)
    output = model(index)
    assert torch.equal(output, expected)
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.eval()(index).requires_grad  # evaluation with gradients is torch's too


def test_changed_parameters_are_packed_again() -> None:
    layer = accelerate(Linear(30, 20)).eval()
    x = torch.randn(4, 30)
    with torch.no_grad():
        layer(x)
        for parameter in layer.parameters():
            parameter.mul_(2.0)
        changed = layer(x)
        layer.kernel = None
        torch.testing.assert_close(changed, layer(x), rtol=1e-5, atol=1e-5)
        layer = accelerate(layer)
        layer(x)
        layer.weight = doped_kronecker(((4, 5), (5, 6)), 60).new((20, 30))
        changed = layer(x)
        layer.kernel = None
        torch.testing.assert_close(changed, layer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"batch_first": True}, {"proj_size": 4}])
def test_an_lstm_takes_what_it_took(options: dict[str, Any]) -> None:
    lstm = LSTM(6, 10, 2, **options).eval()
    served = accelerate(copy.deepcopy(lstm))
    size = options.get("proj_size", 10)
    state = (torch.randn(2, 3, size), torch.randn(2, 3, 10))
    with torch.no_grad():
        for args in ((torch.randn(3, 3, 6),), (torch.randn(3, 3, 6), state), (torch.randn(5, 6),)):
            expected, ours = lstm(*args), served(*args)
            torch.testing.assert_close(ours, expected, rtol=0, atol=2e-6)
        packed = pack_sequence([torch.randn(4, 6), torch.randn(2, 6)])
        torch.testing.assert_close(served(packed)[0].data, lstm(packed)[0].data, rtol=0, atol=2e-6)
        lstm.double(), served.double()
        x = torch.randn(3, 3, 6, dtype=torch.float64)
        assert torch.equal(served(x)[0], lstm(x)[0])


def test_odd_shapes() -> None:
    linear, embedding = accelerate(Linear(6, 5)).eval(), accelerate(Embedding(9, 4)).eval()
    with torch.no_grad():
        for shape in ((6,), (0, 6), (2, 3, 6)):
            x = torch.randn(*shape)
            torch.testing.assert_close(linear(x), x @ linear.weight.to_dense().T + linear.bias, rtol=0, atol=1e-6)
        assert torch.equal(embedding(torch.tensor([[1, 8]])), embedding.weight.rows(torch.tensor([[1, 8]])))
        assert embedding(torch.zeros(0, dtype=torch.long)).shape == (0, 4)


def test_what_does_not_fit_is_refused() -> None:
    with torch.no_grad():
        for dtype in (torch.uint8, torch.bool, torch.int64, torch.float16):
            with pytest.raises(RuntimeError):  # torch's own
                accelerate(Linear(6, 5)).eval()(torch.ones(2, 6, dtype=dtype))
        with pytest.raises(InputError, match=r"shape \(5, 6\) is needed here, got one of shape \(5, 99\)"):
            accelerate(Linear(6, 5, weight=Dense().new((5, 99)))).eval()(torch.zeros(2, 6))
        with pytest.raises(InputError, match="takes 6 inputs, got 7"):
            accelerate(Linear(6, 5)).eval()(torch.zeros(2, 7))
        with pytest.raises(IndexError, match=r"0 \.\.\. 8"):
            accelerate(Embedding(9, 4)).eval()(torch.tensor([9]))
        with pytest.raises(InputError, match="the LSTM takes 6 inputs, got 7"):
            accelerate(LSTM(6, 5)).eval()(torch.zeros(2, 3, 7))
        with pytest.raises(InputError, match="initial h"):
            accelerate(LSTM(6, 5)).eval()(torch.zeros(2, 3, 6), (torch.zeros(1, 2, 5), torch.zeros(1, 3, 5)))
    with pytest.raises(InputError, match=r"dopant.convert\(model\)"):
        accelerate(nn.Linear(2, 2))
    with pytest.raises(InputError, match="precision is one of"):
        accelerate(Linear(2, 2), precision="half")  # type: ignore[arg-type]


def test_values_in_other_layouts_and_types_are_packed_right() -> None:
    torch.manual_seed(0)
    transposed = nn.Linear(700, 600)
    transposed.weight = nn.Parameter(torch.randn(700, 600).t())
    transposed.bias = nn.Parameter(torch.randn(1200)[::2])
    for model in (convert(nn.Sequential(transposed)).eval(), convert(Tagger()).double().eval()):
        index = torch.randint(0, 50, (2, 5)) if isinstance(model, Tagger) else torch.randn(3, 700)
        served = accelerate(copy.deepcopy(model))
        with torch.no_grad():
            torch.testing.assert_close(served(index), model(index), rtol=1e-4, atol=1e-4)


def test_copies_are_models_of_their_own() -> None:
    model = accelerate(convert(Tagger()).eval())
    index = torch.randint(0, 50, (3, 9))
    early = copy.deepcopy(model)
    with torch.no_grad():
        before = model(index)
        late = copy.deepcopy(model)
        for duplicate in (early, late):
            for parameter in duplicate.parameters():
                parameter.mul_(2.0)
            assert not torch.allclose(duplicate(index), before)
            expected = duplicate(index)
            for layer in duplicate.modules():
                if hasattr(layer, "kernel"):
                    layer.kernel = None
            torch.testing.assert_close(expected, duplicate(index), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model(index), before)
        stored = io.BytesIO()
        torch.save(model, stored)
        stored.seek(0)
        again = torch.load(stored, weights_only=False)
        torch.testing.assert_close(again(index), before, rtol=0, atol=2e-6)


def test_inference_mode_and_empty_batches() -> None:
    with torch.inference_mode():
        model = accelerate(convert(Tagger()).eval())
        assert model(torch.randint(0, 50, (2, 3))).shape == (2, 3, 7)
    lstm = accelerate(LSTM(6, 5)).eval()
    with torch.no_grad():
        assert lstm(torch.zeros(3, 0, 6))[0].shape == (3, 0, 5)
        assert Linear(6, 5).eval()(torch.zeros(0, 6)).shape == (0, 5)


def test_without_a_library_the_model_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from dopant.runtime import layers

    monkeypatch.setattr(layers, "library", lambda: None)
    assert accelerate(Linear(6, 5)).kernel is None


def test_subclasses_are_left_alone() -> None:
    class Mine(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return -super().forward(x)

    model = accelerate(nn.Sequential(Mine(8, 8), Linear(8, 8)))
    assert model[0].kernel is None
    assert model[1].kernel is not None
    with pytest.raises(InputError, match="no layer of dopant's"):
        accelerate(Mine(8, 8))


def served(layer: Any) -> Any:
    """A layer in evaluation behind kernels that tell of every call."""
    accelerate(layer.eval())
    kernel, layer.calls = layer.kernel, 0

    def counted(*inputs: Any) -> Any:
        layer.calls += 1
        return kernel(*inputs)

    layer.kernel = counted
    return layer


@pytest.mark.parametrize("make", [lambda w: Linear(8, 8, weight=w), lambda w: Embedding(8, 8, weight=w)])
def test_row_masks_are_heeded(make: Any) -> None:
    layer = served(make(doped_lmf(1, 10).new((8, 8))))
    x = torch.arange(8) if isinstance(layer, Embedding) else torch.randn(8)
    with torch.no_grad():
        before = layer(x)
        layer.weight.row_masks = (torch.zeros(8), torch.zeros(8))
        assert torch.equal(layer(x), torch.zeros_like(before) if isinstance(layer, Embedding) else layer.bias)
        layer.weight.row_masks = None
        assert torch.equal(layer(x), before)
    assert layer.calls == 2
    lstm = served(LSTM(6, 4))
    lstm.weight_l0.row_masks = (torch.zeros(16),)
    with torch.no_grad():
        lstm(torch.randn(2, 3, 6))
    assert lstm.calls == 0


def test_parameters_that_tell_of_no_change_stay_torch_s() -> None:
    with torch.inference_mode():
        layer, x = accelerate(Linear(6, 5)).eval(), torch.ones(1, 6)
        before = layer(x)
        layer.weight.matrix.mul_(2.0), layer.bias.mul_(2.0)
        torch.testing.assert_close(layer(x), 2.0 * before)
        late = torch.ones(5, 6)
    layer = accelerate(Linear(6, 5, bias=True)).eval()
    layer.weight.matrix = nn.Parameter(late, requires_grad=False)
    with torch.inference_mode():
        before = layer(x)
        layer.weight.matrix.mul_(2.0)
        torch.testing.assert_close(layer(x), before + layer.weight.matrix.sum(1) / 2)


def test_what_records_or_transforms_torch_sees_torch() -> None:
    layer, x = served(Linear(6, 5)), torch.randn(2, 6)
    with torch.no_grad():
        expected = layer(x)
        assert layer.calls == 1
        torch.testing.assert_close(torch.func.vmap(layer)(x), expected)
        torch.testing.assert_close(torch.func.jvp(layer, (x,), (x,))[1], expected - layer.bias)
        with forward_ad.dual_level():
            torch.testing.assert_close(
                forward_ad.unpack_dual(layer(forward_ad.make_dual(x, x))).tangent, expected - layer.bias
            )
        torch.testing.assert_close(torch.export.export(layer, (x,)).module()(x), expected)
        torch.testing.assert_close(torch.compile(layer, backend="eager")(x), expected)
        torch.testing.assert_close(torch.jit.trace(layer, (x,), check_trace=False)(x), expected)
        with FakeTensorMode(allow_non_fake_inputs=True):
            assert layer(torch.zeros(2, 6)).shape == (2, 5)
        with pytest.raises(RuntimeError):  # torch's own
            layer(x.to_mkldnn())
    assert layer.calls == 1


def test_inputs_that_want_gradients_are_served_without() -> None:
    layer, lstm = served(Linear(6, 5)), served(LSTM(6, 4))
    state = (nn.Parameter(torch.zeros(1, 2, 4)), nn.Parameter(torch.zeros(1, 2, 4)))
    with torch.no_grad():
        assert not layer(torch.zeros(2, 6, requires_grad=True)).requires_grad
        assert not lstm(torch.zeros(3, 2, 6, requires_grad=True), state)[0].requires_grad
    assert layer.calls == lstm.calls == 1


def test_a_layer_is_freed_at_once() -> None:
    layer = accelerate(Linear(6, 5)).eval()
    with torch.no_grad():
        layer(torch.zeros(2, 6))
    there = weakref.ref(layer)
    gc.disable()
    try:
        del layer
        assert there() is None
    finally:
        gc.enable()


def test_a_shallow_copy_computes_with_its_own_parameters() -> None:
    layer, x = accelerate(Linear(6, 5)).eval(), torch.randn(2, 6)
    other = copy.copy(layer)
    other._parameters = {"bias": nn.Parameter(torch.full((5,), 7.0))}
    with torch.no_grad():
        torch.testing.assert_close(other(x) - layer(x), (7.0 - layer.bias).expand(2, 5))


def test_what_changes_while_it_is_packed_is_packed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from dopant.runtime import layers

    layer, x = accelerate(Linear(6, 5)).eval(), torch.zeros(2, 6)
    pack = layers.PackedWeight

    def slow(*args: Any) -> Any:
        packed = pack(*args)
        layer.weight.matrix.fill_(3.0)
        return packed

    x.fill_(1.0)
    with torch.no_grad(), monkeypatch.context() as patch:
        patch.setattr(layers, "PackedWeight", slow)
        layer(x)
        patch.undo()
        torch.testing.assert_close(layer(x), (18.0 + layer.bias).expand(2, 5))
