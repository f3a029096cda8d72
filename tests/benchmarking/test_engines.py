from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dopant.benchmarking import engines
from dopant.benchmarking.engine import Engine, as_array
from dopant.benchmarking.engines import ENGINES, NAMES, choose
from dopant.benchmarking.onnxruntime_engines import _faster, plain_model, quantised
from dopant.benchmarking.record import CASES, PARTS, STEPS, CaseName, Part
from dopant.benchmarking.subject import Subject
from dopant.benchmarking.torch_engines import quantised as torch_quantised
from dopant.errors import BenchError, InputError


def reference(subject: Subject, part: Part, x: Any) -> Any:
    given = torch.from_numpy(x)
    with torch.no_grad():
        return (subject.model.lstm(given) if part == "lstm" else subject.model(given))[0].numpy()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_every_engine_computes_the_model(engine: Engine, part: Part, case: CaseName, subject: Subject) -> None:
    if engine.name.startswith("onnxruntime"):
        pytest.importorskip("onnxruntime")
    x = subject.inputs(part, case, 3)
    assert x.shape[:2] == (STEPS[case], 3)
    want = reference(subject, part, x)
    run = engine.build(subject, part, 1)(x)
    for _ in range(2):  # a second run begins where the first began
        got = as_array(run())
        assert got.shape == want.shape
        assert np.abs(got - want).max() <= (1e-6 if engine.close else 0.05) * np.abs(want).max()


def test_an_output_outlives_its_run(subject: Subject) -> None:
    pytest.importorskip("onnxruntime")
    engine = next(engine for engine in ENGINES if engine.name == "onnxruntime")
    x = subject.inputs("lstm", "step", 2)
    outputs = [as_array(engine.build(subject, "lstm", 1)(x)()) for _ in range(5)]
    want = reference(subject, "lstm", x)
    for output in outputs:
        np.testing.assert_allclose(output, want, atol=1e-6)


@pytest.mark.parametrize("part", PARTS)
def test_the_opponents_graphs(part: Part, subject: Subject) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    plain = plain_model(subject, part)
    onnx.checker.check_model(plain, full_check=True)
    assert [node.op_type for node in plain.graph.node].count("LSTM") == 2
    operators = [node.op_type for node in quantised(plain, 2).graph.node]
    assert operators.count("DynamicQuantizeLSTM") == 2
    assert part == "lstm" or "MatMulInteger" in operators
    with pytest.raises(BenchError, match="onnxruntime quantised 2 of 3 LSTM layers"):
        quantised(plain, 3)


def test_torch_int8_is_int8(subject: Subject) -> None:
    assert "DynamicQuantizedLSTM" in repr(torch_quantised(subject.dense_lstm))
    assert repr(torch_quantised(subject.dense)).count("DynamicQuantized") == 2  # the LSTM and the decoder


def test_the_faster_of_two_ways_is_taken() -> None:
    import time

    def slow() -> None:
        time.sleep(0.002)

    def quick() -> None:
        pass

    assert _faster(slow, quick) is quick
    assert _faster(quick, slow) is quick


def test_unknown_engines_are_refused() -> None:
    with pytest.raises(InputError, match="engine 'onnxruntme' is not known; did you mean 'onnxruntime'"):
        choose(["torch", "onnxruntme"])
    with pytest.raises(InputError, match="engine 'x' is not known; there are dopant, torch, torch-int8"):
        choose(["x"])
    with pytest.raises(InputError, match="no engine was chosen"):
        choose([])


def test_what_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == "onnxruntime" else object())
    found, notes = choose(NAMES)
    assert [engine.name for engine in found] == ["dopant", "dopant", "torch", "torch-int8"]
    assert notes == ["onnxruntime is left out: onnxruntime is not installed; get it with: pip install 'dopant[onnx]'"]
    with pytest.raises(InputError, match=r"pip install 'dopant\[onnx\]'"):
        choose(["onnxruntime-int8"])


def test_a_model_too_large_for_onnx(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    monkeypatch.setattr("dopant.benchmarking.onnxruntime_engines.LARGEST", 100)
    with pytest.raises(BenchError, match=r"bytes, and an ONNX file can hold 100; leave onnxruntime"):
        plain_model(subject, "lstm")
