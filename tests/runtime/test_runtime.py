"""A runtime says what its model says."""

from __future__ import annotations

import copy
import gc
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dopant.errors import InputError
from dopant.evaluation import generate, perplexity
from dopant.models import LanguageModel, LanguageModelConfig
from dopant.native.library import library
from dopant.plan import apply_plan, make_plan
from dopant.runtime import Runtime, load
from dopant.runtime import runtime as module
from dopant.storage import save

METHODS = (
    "dense",
    "pruning",
    "lmf",
    "hmd",
    "kronecker",
    "hybrid-kronecker",
    "doped-kronecker",
    "doped-lmf",
    "doped-hmd",
)


def made(method: str = "doped-kronecker", *, tied: bool = False, scope: str = "model") -> LanguageModel:
    torch.manual_seed(1)
    model = LanguageModel(LanguageModelConfig(300, 24, tied=tied, init=0.4))
    if method != "dense":
        apply_plan(model, make_plan(model, target="4x", count="parameters", method=method, scope=scope))
    return model.eval()


@pytest.fixture(params=["native", "torch"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        monkeypatch.setattr(module, "library", lambda: None)
    elif library() is None:
        pytest.skip("there is no native library")
    return str(request.param)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_logits_are_the_models(path: str, method: str, tied: bool) -> None:
    model = made(method, tied=tied)
    tokens = torch.randint(0, 300, (12, 5))
    with torch.no_grad():
        expected, (h, _) = model(tokens)
    logits, state = Runtime(model).sequence(tokens.numpy())
    np.testing.assert_allclose(logits, expected.numpy(), rtol=0, atol=2e-5)
    np.testing.assert_allclose(state.arrays()[0], h.numpy(), rtol=0, atol=2e-6)


def test_steps_carry_the_state(path: str) -> None:
    runtime = Runtime(made())
    tokens = np.random.default_rng(0).integers(0, 300, (7, 3))
    whole, _ = runtime.sequence(tokens)
    state: Any = None
    for t in range(7):
        logits, state = runtime.step(tokens[t], state)
        np.testing.assert_allclose(logits, whole[t], rtol=0, atol=1e-5)


def test_a_stepper_says_what_steps_say(path: str) -> None:
    lstm = Runtime(made()).lstm
    stepper, state = lstm.stepper(2), lstm.initial(2)
    for x in np.random.default_rng(0).standard_normal((3, 2, 24)).astype(np.float32):
        expected, state = lstm.step(x, state)
        stepper.x[:] = x
        np.testing.assert_array_equal(stepper.step(), expected)
        np.testing.assert_array_equal(stepper.y, expected)
    following = lstm.step(np.zeros((2, 24), np.float32), state)[0]
    np.testing.assert_array_equal(lstm.stepper(stepper.state).step(), following)
    same = lstm.stepper(state, carry=False)
    same.x[:] = 0.5
    np.testing.assert_array_equal(same.step().copy(), same.step())
    np.testing.assert_array_equal(same.state.arrays()[1], lstm.step(same.x, state)[1].arrays()[1])
    assert lstm.stepper().step().shape == (1, 24)


def test_a_stepper_lives_by_itself(path: str) -> None:
    """Without its runtime, and beside others in threads."""
    lstm = Runtime(made()).lstm
    expected = lstm.step(np.ones((1, 24), np.float32))[0]
    steppers = [lstm.stepper() for _ in range(4)]
    del lstm
    gc.collect()

    def run(stepper: Any) -> np.ndarray[Any, Any]:
        stepper.x[:] = 1.0
        first = stepper.step().copy()
        for _ in range(50):
            stepper.step()
        return np.stack([first, stepper.y])

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(run, steppers))
    np.testing.assert_array_equal(results[0][0], expected)
    assert all(np.array_equal(result, results[0]) for result in results)


def test_what_a_stepper_refuses(path: str) -> None:
    runtime = Runtime(made())
    stepper = runtime.lstm.stepper(2)
    for array in (stepper.x, stepper.y):  # the kernels would write where it was
        with pytest.raises(ValueError, match="does not own its data"):
            array.resize((40, 24))
    stepper.x += 1.0
    assert stepper.x.min() == 1.0
    with pytest.raises(InputError, match=r"as in stepper.x\[:\] = values"):
        stepper.x = np.ones((2, 24), np.float32)
    with pytest.raises(AttributeError):
        stepper.state = runtime.initial(2)
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(InputError, match=r"begin another one with stepper\.state"):
            copied(stepper)
    for state, told in ((Runtime(made()).initial(2), "belongs to another model"), ((1, 2), "got a tuple")):
        with pytest.raises(InputError, match=told):
            runtime.lstm.stepper(state)
    for batch, told in (
        (0, "1 or more, got 0"),
        (True, "1 or more, got True"),
        (2**31, "1073741824 rows, sequences or steps at most, got 2147483648"),
    ):
        with pytest.raises(InputError, match=told):
            runtime.lstm.stepper(batch)


def test_a_score_is_the_log_likelihood(path: str) -> None:
    model = made()
    ids = torch.randint(0, 300, (1500,))
    with torch.no_grad():
        logits, _ = model(ids[:-1, None])
    expected = -F.cross_entropy(logits[:, 0], ids[1:], reduction="none").numpy()
    np.testing.assert_allclose(Runtime(model).score(ids.numpy()), expected, rtol=0, atol=1e-4)


def test_it_is_evaluated_like_a_model(path: str) -> None:
    model = made()
    columns = torch.randint(0, 300, (50, 2))
    assert perplexity(Runtime(model), columns) == pytest.approx(perplexity(model, columns), rel=1e-5)
    prompt = torch.tensor([1, 2, 3])
    assert Runtime(model).generate(prompt.numpy(), 20, temperature=0.0) == generate(model, prompt, 20, temperature=0.0)


def test_equal_seeds_give_equal_tokens(path: str) -> None:
    runtime = Runtime(made())
    assert runtime.generate([5], 30, seed=4) == runtime.generate([5], 30, seed=4) != runtime.generate([5], 30, seed=5)


def test_fast_is_near_and_smaller() -> None:
    if library() is None:
        pytest.skip("there is no native library")
    model = made()
    exact, fast = Runtime(model), Runtime(model, precision="fast")
    columns = torch.randint(0, 300, (400, 1))
    assert perplexity(fast, columns) == pytest.approx(perplexity(exact, columns), rel=3e-3)
    assert fast.bytes < exact.bytes


def test_callers_in_many_threads_do_not_disturb_each_other(path: str) -> None:
    runtime = Runtime(made())
    texts = [np.random.default_rng(k).integers(0, 300, (25, 1 + k % 3)) for k in range(16)]

    def read(tokens: Any) -> Any:
        state: Any = None
        for ids in tokens:
            logits, state = runtime.step(ids, state)
        return logits

    alone = [read(tokens) for tokens in texts]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for ours, expected in zip(pool.map(read, texts), alone, strict=True):
                np.testing.assert_array_equal(ours, expected)


def test_it_is_loaded_from_a_folder(tmp_path: Path) -> None:
    model = made()
    runtime = load(save(tmp_path / "m", model))
    tokens = torch.randint(0, 300, (4, 2))
    with torch.no_grad():
        np.testing.assert_allclose(runtime.sequence(tokens.numpy())[0], model(tokens)[0].numpy(), rtol=0, atol=2e-5)
    with pytest.raises(InputError, match="has no tokenizer; give token ids"):
        runtime.generate("a word")
    with pytest.raises(InputError, match="precision is one of exact, fast"):
        load(tmp_path / "m", precision="half")  # type: ignore[arg-type]


def test_what_does_not_fit_is_refused(path: str) -> None:
    runtime = Runtime(made())
    with pytest.raises(InputError, match=r"token ids must be in 0 … 299, got 0 to 300"):
        runtime.step([0, 300])
    with pytest.raises(InputError, match=r"token ids must be in 0 … 299, got -1"):
        runtime.step([-1])
    with pytest.raises(InputError, match=r"whole numbers of shape \(batch,\), got float64"):
        runtime.step([0.5])
    with pytest.raises(InputError, match=r"shape \(time, batch\)"):
        runtime.sequence([1, 2])
    with pytest.raises(InputError, match="needs two tokens or more, got 1"):
        runtime.score([3])
    with pytest.raises(InputError, match="the state is of 2 sequences, x of 1"):
        runtime.step([1], runtime.initial(2))
    with pytest.raises(InputError, match="belongs to another model"):
        runtime.step([1], Runtime(made()).initial(1))
    with pytest.raises(InputError, match="batch must be 1 or more"):
        runtime.initial(0)
    with pytest.raises(InputError, match=r"there are no tokens: got an array of shape \(0,\)"):
        runtime.generate([])


def test_a_model_of_halves(path: str) -> None:
    model = made().half()
    logits, _ = Runtime(model).step([1])
    want, _ = Runtime(model.float()).step([1])
    np.testing.assert_allclose(logits, want, atol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_a_runtime_is_a_copy(path: str, tied: bool) -> None:
    model = made("dense", tied=tied)
    runtime = Runtime(model)
    before, _ = runtime.step([1])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    np.testing.assert_array_equal(runtime.step([1])[0], before)


@pytest.mark.parametrize("size", [1, 299])
def test_a_bias_of_another_size_is_refused(path: str, size: int) -> None:
    model = made()
    model.decoder.bias = torch.nn.Parameter(torch.zeros(size))
    with pytest.raises(InputError, match=rf"the decoder's bias must be of shape \(300,\), got \({size},\)"):
        Runtime(model)


def test_input_that_is_no_array_is_refused(path: str) -> None:
    runtime = Runtime(made())
    lstm, ragged = runtime.lstm, [[1.0], [1.0, 2.0]]
    gradients, elsewhere = torch.zeros(1, 24, requires_grad=True), torch.zeros(1, 24, device="meta")
    for x, told in (
        (ragged, "got a list"),
        (gradients, r"use tensor\.detach\(\)\.numpy\(\)"),
        (elsewhere, "got a Tensor"),
    ):
        with pytest.raises(InputError, match=rf"(?i)^x must be an array of numbers, .*{told}"):
            lstm.step(x)
    for part in (ragged, "some text", gradients.view(1, 1, 24)):
        for name, given in (("h", (part, np.zeros((2, 1, 24)))), ("c", (np.zeros((2, 1, 24)), part))):
            with pytest.raises(InputError, match=f"{name} must be an array of numbers"):
                lstm.state(*given)
    for tokens in (ragged, elsewhere, gradients):
        with pytest.raises(InputError, match="tokens must be an array of numbers"):
            runtime.step(tokens)
    with pytest.raises(InputError, match=r"tokens must be whole numbers of shape \(batch,\), got <U4 \(1,\)"):
        runtime.step(["text"])
    for shape in ((0, 1), (1, 0)):
        with pytest.raises(InputError, match=r"there are no tokens: got an array of shape \(., .\)"):
            runtime.sequence(np.zeros(shape, int))
    with pytest.raises(InputError, match="1073741824 rows, sequences or steps at most, got 2147483647"):
        runtime.initial(2**31 - 1)
    for seed in (2**64, -1, "x", 1.5):
        with pytest.raises(InputError, match=r"seed must be a whole number from 0 to below 2\*\*63"):
            runtime.generate([1], 2, seed=seed)  # type: ignore[arg-type]
    assert runtime.generate([1], 2, seed=np.int64(3)) == runtime.generate([1], 2, seed=3)  # type: ignore[arg-type]


def test_arrays_of_a_state_are_the_caller_s(path: str) -> None:
    runtime = Runtime(made())
    state = runtime.step([1])[1]
    expected, _ = runtime.step([2], state)
    for part in state.arrays():
        part.fill(9.0)
    np.testing.assert_array_equal(runtime.step([2], state)[0], expected)


def test_log_probabilities_of_large_scores_are_exact(path: str) -> None:
    logits = np.random.default_rng(0).standard_normal((3, 77)).astype(np.float32) + np.float32(10_000.0)
    expected = torch.log_softmax(torch.from_numpy(logits).double(), dim=-1).numpy()
    np.testing.assert_allclose(module.log_softmax(logits), expected, rtol=0, atol=2e-6)
