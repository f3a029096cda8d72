"""A packed LSTM computes as torch's own."""

from __future__ import annotations

import copy
import gc
import os
import pickle
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch

from dopant.errors import InputError
from dopant.layers import LSTM
from dopant.native import set_threads
from dopant.native.library import choice, library
from dopant.runtime.packed import Precision
from dopant.runtime.packed_lstm import PackedLSTM
from dopant.structures import Dense
from dopant.structures.dense import DenseWeight
from dopant.structures.presets import doped_kronecker, pruned

pytestmark = pytest.mark.skipif(library() is None, reason="there is no native library")

FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two matrices": {"joint": False},
    "two layers": {"num_layers": 2},
    "without bias": {"bias": False},
    "both directions": {"bidirectional": True, "num_layers": 2},
    "projected": {"proj_size": 7},
    "all at once": {"bidirectional": True, "num_layers": 2, "proj_size": 5, "joint": False},
}


def packed(lstm: LSTM, precision: Any = "exact") -> PackedLSTM:
    native = library()
    assert native is not None
    return PackedLSTM(lstm, native, precision)


ACROSS, APART = ((8, 5), (10, 8)), ((8, 4), (10, 10))
"""Factors of [x; h]: one of the first one's columns lies across x and h, or each on one side."""


def doped(factors: tuple[tuple[int, int], ...] = ACROSS, **options: Any) -> LSTM:
    torch.manual_seed(3)
    lstm = LSTM(20, 20, 2, **options)
    for layer in range(2):
        setattr(lstm, f"weight_l{layer}", doped_kronecker(factors, 300).new((80, 40)))
    return lstm.eval()


@pytest.mark.parametrize("batch", [1, 3, 8, 17, 32])
@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_an_lstm(name: str, batch: int) -> None:
    torch.manual_seed(0)
    lstm = LSTM(11, 19, **FORMS[name]).eval()
    x = torch.randn(9, batch, 11)
    count = lstm.num_layers * lstm.directions
    h0, c0 = torch.randn(count, batch, lstm.output_size), torch.randn(count, batch, 19)
    with torch.no_grad():
        expected, (h, c) = lstm(x, (h0, c0))
    ours = packed(lstm)
    y, state = ours.sequence(x.numpy(), ours.state(h0.numpy(), c0.numpy()))
    np.testing.assert_allclose(y, expected.numpy(), rtol=0, atol=1e-6)
    for mine, theirs in zip(state.arrays(), (h, c), strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("precision", get_args(Precision))
@pytest.mark.parametrize("batch", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("name", ["plain", "two layers", "all at once"])
def test_a_small_batch_is_its_sequences(name: str, batch: int, precision: Precision) -> None:
    torch.manual_seed(0)
    lstm = LSTM(11, 19, **FORMS[name]).eval()
    for weight, module in [named for named in lstm.named_modules() if isinstance(named[1], DenseWeight)]:
        setattr(lstm, weight, pruned(module.shape[0] * module.shape[1] // 3).new(module.shape))
    assert not any(isinstance(module, DenseWeight) for module in lstm.modules())
    ours = packed(lstm, precision)
    x = torch.randn(9, batch, 11).numpy()
    count = lstm.num_layers * lstm.directions
    h, c = torch.randn(count, batch, lstm.output_size).numpy(), torch.randn(count, batch, 19).numpy()
    start = ours.state(h, c)
    for part, given in zip(start.arrays(), (h, c), strict=True):
        np.testing.assert_array_equal(part, given)
    y, after = ours.sequence(x, start)
    for b in range(batch):
        one = slice(b, b + 1)
        alone, alone_after = ours.sequence(x[:, one], ours.state(h[:, one], c[:, one]))
        np.testing.assert_allclose(y[:, one], alone, rtol=0, atol=1e-6 if precision == "exact" else 0.02)
        for part, wanted in zip(after.arrays(), alone_after.arrays(), strict=True):
            np.testing.assert_allclose(part[:, one], wanted, rtol=0, atol=1e-6 if precision == "exact" else 0.02)


@pytest.mark.parametrize("batch", [1, 8, 32])
def test_35_steps_agree_with_float64_to_a_millionth(batch: int) -> None:
    lstm = doped()
    x = torch.randn(35, batch, 20)
    with torch.no_grad():
        expected = lstm.double()(x.double())[0].numpy()
    y, _ = packed(lstm.float()).sequence(x.numpy())
    assert np.abs(y - expected).max() / np.abs(expected).max() < 1e-6


def test_fast_is_near() -> None:
    lstm = doped()
    x = torch.randn(35, 8, 20).numpy()
    exact, fast = packed(lstm).sequence(x)[0], packed(lstm, "fast").sequence(x)[0]
    assert 0.0 < np.abs(exact - fast).max() < 0.05


@pytest.mark.parametrize("factors", [ACROSS, APART])
@pytest.mark.parametrize("batch", [1, 8, 32])
def test_steps_are_the_sequence_and_leave_their_state_alone(batch: int, factors: tuple[tuple[int, int], ...]) -> None:
    """To the last bit; but for rounding where kernels compute the inputs' part of many steps at once."""
    allowed = 0.0 if batch > 1 or choice().level.startswith("avx512") else 1e-6
    lstm = packed(doped(factors))
    x = torch.randn(40, batch, 20).numpy()
    whole, last = lstm.sequence(x)
    state = lstm.initial(batch)
    for t in range(40):
        before = state.values.copy()
        y, after = lstm.step(x[t], state)
        np.testing.assert_array_equal(state.values, before)
        np.testing.assert_allclose(y, whole[t], rtol=0, atol=allowed)
        state = after
    np.testing.assert_allclose(state.values, last.values, rtol=0, atol=allowed)


@pytest.mark.parametrize("batch", [1, 3, 8, 17])
@pytest.mark.parametrize("name", FORMS)
def test_a_stepper_is_step_in_memory_of_its_own(name: str, batch: int) -> None:
    torch.manual_seed(0)
    lstm = packed(LSTM(10, 12, **FORMS[name]).eval())
    x = torch.randn(4, batch, 10).numpy()
    _, state = lstm.step(x[0], lstm.initial(batch))
    before = state.values.copy()
    stepper, place = lstm.stepper(state), state
    kept = None
    for t in range(1, 4):
        stepper.x[:] = x[t]
        expected, place = lstm.step(x[t], place)
        y = stepper.step()
        assert y is stepper.y
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(stepper.state.values, place.values)
        kept = kept or stepper.state
    np.testing.assert_array_equal(state.values, before)
    assert kept is not None
    np.testing.assert_array_equal(lstm.step(x[2], kept)[0], lstm.step(x[2], lstm.step(x[1], state)[1])[0])


def test_a_stepper_begins_with_zeros_and_takes_no_other_lstm_s_state() -> None:
    lstm, other = packed(doped()), packed(doped())
    x = torch.randn(2, 20).numpy()
    stepper = lstm.stepper(2)
    stepper.x[:] = x
    np.testing.assert_array_equal(stepper.step(), lstm.step(x)[0])
    with pytest.raises(InputError, match="another model"):
        lstm.stepper(other.initial(2))
    with pytest.raises(InputError, match="batch must be 1 or more, got 0"):
        lstm.stepper(0)


def test_a_nan_reaches_the_output_and_no_other_sequence() -> None:
    lstm = packed(doped(), "fast")
    x = np.zeros((3, 8, 20), np.float32)
    x[0, 2, 5] = np.nan
    y, _ = lstm.sequence(x)
    assert np.isnan(y[:, 2]).all()
    assert np.isfinite(np.delete(y, 2, axis=1)).all()


def test_what_does_not_fit_is_refused() -> None:
    lstm, other = packed(doped()), packed(doped())
    with pytest.raises(InputError, match=r"\(time, batch, 20\) with 1 or more of each, got \(2, 3, 21\)"):
        lstm.sequence(np.zeros((2, 3, 21), np.float32))
    with pytest.raises(InputError, match=r"got \(0, 3, 20\)"):
        lstm.sequence(np.zeros((0, 3, 20), np.float32))
    with pytest.raises(InputError, match="x must be float32, got float64"):
        lstm.sequence(np.zeros((2, 3, 20)))
    with pytest.raises(InputError, match=r"\(batch, 20\)"):
        lstm.step(np.zeros((1, 3, 20), np.float32))
    with pytest.raises(InputError, match="belongs to another model"):
        lstm.step(np.zeros((3, 20), np.float32), other.initial(3))
    with pytest.raises(InputError, match=r"a state of the runtime's, got a tuple; start with .* `state\(h, c\)`"):
        lstm.step(np.zeros((3, 20), np.float32), (1, 2))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the state is of 2 sequences, x of 3"):
        lstm.step(np.zeros((3, 20), np.float32), lstm.initial(2))
    for batch in (0, 1.5, True):
        with pytest.raises(InputError, match="batch must be 1 or more"):
            lstm.initial(batch)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="c must be"):
        lstm.state(np.zeros((2, 1, 20)), np.zeros((2, 2, 20)))


def test_more_than_the_kernels_count_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lstm = packed(doped())
    monkeypatch.setattr("dopant.runtime.checks._MOST", 30)
    for shape in ((31, 1, 20), (1, 31, 20)):
        with pytest.raises(InputError, match="a call takes 30 rows, sequences or steps at most, got 31"):
            lstm.sequence(np.zeros(shape, np.float32))
    assert lstm.sequence(np.zeros((30, 1, 20), np.float32))[0].shape == (30, 1, 20)


def test_weights_that_do_not_fit_their_layer_are_refused() -> None:
    lstm = LSTM(8, 4)
    lstm.weight_l0 = Dense().new((16, 4096))
    with pytest.raises(InputError, match=r"shape \(16, 12\) is needed here, got one of shape \(16, 4096\)"):
        packed(lstm)
    lstm = LSTM(8, 4)
    lstm.bias_l0 = torch.nn.Parameter(torch.zeros(3))
    with pytest.raises(InputError, match=r"bias_l0 must be of shape \(16,\), got \(3,\)"):
        packed(lstm)


def test_inputs_of_any_layout_and_a_kept_state() -> None:
    lstm = packed(doped())
    x = np.random.default_rng(0).standard_normal((6, 3, 20)).astype(np.float32)
    x.setflags(write=False)
    y, state = lstm.sequence(x)
    strided = np.ascontiguousarray(x.transpose(1, 0, 2)).transpose(1, 0, 2)
    np.testing.assert_array_equal(lstm.sequence(strided)[0], y)
    assert state.memory.size == state.size  # keeps no output alive


def test_copies_share_what_is_packed() -> None:
    lstm = packed(doped())
    x = np.ones((1, 20), np.float32)
    expected = lstm.step(x)[0]
    for duplicate in (copy.copy(lstm), copy.deepcopy(lstm), copy.deepcopy(lstm.handle)):
        del duplicate
    gc.collect()
    np.testing.assert_array_equal(lstm.step(x)[0], expected)
    with pytest.raises(InputError, match="cannot be pickled"):
        pickle.dumps(lstm.handle)


@pytest.mark.parametrize("batch", [2, 5, 16, 17, 18, 32, 50])
@pytest.mark.parametrize("make", [doped, lambda: LSTM(20, 24, **FORMS["all at once"])], ids=["doped", "dense"])
def test_threads_that_share_a_batch_compute_the_same(batch: int, make: Callable[[], LSTM]) -> None:
    lstm = packed(make())
    x = np.random.default_rng(0).normal(size=(4, batch, lstm.inputs)).astype(np.float32)
    state = lstm.sequence(x)[1]
    alone, after = lstm.sequence(x, state)
    before = set_threads(2)
    try:
        shared, after_shared = lstm.sequence(x, state)
    finally:
        set_threads(before)
    np.testing.assert_allclose(shared, alone, atol=1e-6)
    for got, wanted in zip(after_shared.arrays(), after.arrays(), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-6)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_process_has_threads_of_its_own() -> None:
    lstm = packed(doped())
    x = np.zeros((2, 64, lstm.inputs), np.float32)
    before = set_threads(2)
    try:
        wanted = lstm.sequence(x)[0]  # the threads are there now, in this process
        child = os.fork()
        if child == 0:
            os._exit(0 if np.array_equal(lstm.sequence(x)[0], wanted) else 1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        set_threads(before)


def test_a_copy_of_a_state_is_the_state() -> None:
    lstm = packed(doped())
    state = lstm.step(np.ones((2, 20), np.float32))[1]
    assert copy.copy(state) is state
    assert copy.deepcopy([state], {id(lstm): lstm})[0] is state  # its address would be of the other's memory


def test_a_huge_batch_is_computed_in_parts() -> None:
    lstm = packed(doped())
    x = np.random.default_rng(0).standard_normal((2, 9001, 20)).astype(np.float32)
    y, state = lstm.sequence(x)
    for some in (slice(0, 17), slice(4090, 4107), slice(8990, 9001)):
        expected, after = lstm.sequence(x[:, some])
        np.testing.assert_allclose(y[:, some], expected, rtol=0, atol=1e-6)
        for got, wanted in zip(state.arrays(), after.arrays(), strict=True):
            np.testing.assert_allclose(got[:, some], wanted, rtol=0, atol=1e-6)
