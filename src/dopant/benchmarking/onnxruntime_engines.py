"""ONNX Runtime on the dense model: its LSTM operator in float32, and its dynamic 8-bit quantisation."""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from dopant.benchmarking.engine import Bind, Engine, Run
from dopant.benchmarking.record import Part
from dopant.benchmarking.subject import Array, Subject
from dopant.errors import BenchError
from dopant.exporting.extra import extra
from dopant.exporting.graph import IR_VERSION, LARGEST, OPSET, Graph

_TRIAL_SECONDS = 0.1


def plain_model(subject: Subject, part: Part) -> Any:
    """The dense model as an `onnx.ModelProto` with the standard LSTM operator, its matrices initializers.

    Inputs `x` ((time, batch, hidden) float32, or token ids (time, batch)), `h0`, `c0`; outputs `y`, `h`, `c`.

    Raises:
        BenchError: the model is too large for an ONNX file.
    """
    dense = subject.dense_lstm if part == "lstm" else subject.dense
    if (size := 4 * sum(parameter.numel() for parameter in dense.parameters())) > LARGEST:
        raise BenchError(
            f"the dense model takes {size:,} bytes, and an ONNX file can hold {LARGEST:,}; "
            "leave onnxruntime and onnxruntime-int8 out of --engines, or measure a smaller model"
        )
    graph, hidden, make = Graph(), subject.config.hidden, extra("onnx.helper")
    x = "x"
    if part == "token":
        x = graph.add("Gather", graph.constant(subject.dense_array("embedding.weight"), "embedding"), x)
    layers = subject.config.layers
    ones = graph.integers(*[1] * layers)
    before = [graph.add_many("Split", (name, ones), layers, axis=0) for name in ("h0", "c0")]
    after: list[list[str]] = []
    for layer, (h, c) in enumerate(zip(*before, strict=True)):
        w, r, *biases = (
            _gates(subject.dense_array(f"lstm.{name}_l{layer}"))
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        arrays = {"w": w, "r": r, "b": np.concatenate(biases)}
        constants = [graph.constant(array[None], f"{name}_l{layer}") for name, array in arrays.items()]
        y, h, c = graph.add_many("LSTM", (x, *constants, "", h, c), 3, hidden_size=hidden)
        x = graph.add("Squeeze", y, graph.integers(1))
        after.append([h, c])
    if part == "token":
        x = _decoded(graph, x, subject)
    graph.rename(x, "y")
    for name, parts in zip("hc", zip(*after, strict=True), strict=True):
        graph.rename(graph.add("Concat", *parts, axis=0), name)
    types = extra("onnx").TensorProto
    info = make.make_tensor_value_info
    state = (types.FLOAT, [layers, "batch", hidden])
    given = (types.INT64, ["time", "batch"]) if part == "token" else (types.FLOAT, ["time", "batch", hidden])
    wide = subject.config.vocabulary if part == "token" else hidden
    proto = make.make_graph(
        graph.nodes,
        part,
        [info("x", *given), info("h0", *state), info("c0", *state)],
        [info("y", types.FLOAT, ["time", "batch", wide]), info("h", *state), info("c", *state)],
        graph.initializers,
    )
    return make.make_model(proto, opset_imports=[make.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def quantised(model: Any, layers: int) -> Any:
    """The model as `quantize_dynamic` of ONNX Runtime makes it, 8-bit weights.

    One scale a matrix: one a channel takes equally long.

    Raises:
        BenchError: the LSTM operators are not quantised.
    """
    quantization, onnx = extra("onnxruntime.quantization"), extra("onnx")
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)  # it advises a preprocessing that changes nothing in this graph
    try:
        with tempfile.TemporaryDirectory() as folder:
            plain, path = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
            onnx.save(model, plain)  # a model in memory is changed by older versions
            quantization.quantize_dynamic(plain, path, weight_type=quantization.QuantType.QInt8)
            made = onnx.load(path)
    finally:
        logger.setLevel(before)
    found = sum(node.op_type == "DynamicQuantizeLSTM" for node in made.graph.node)
    if found != layers:
        raise BenchError(
            f"onnxruntime quantised {found} of {layers} LSTM layers; another version of it may do better "
            "(1.32 does), or leave onnxruntime-int8 out of --engines"
        )
    return made


def _gates(matrix: Array) -> Array:
    """Rows i f g o as i o f g."""
    i, f, g, o = np.split(matrix, 4)
    return np.concatenate([i, o, f, g])


def _decoded(graph: Graph, x: str, subject: Subject) -> str:
    """(time, batch, hidden) -> (time, batch, vocabulary); flat in between, where one operator does sum and bias."""
    size = graph.add("Concat", graph.add("Shape", "x"), graph.integers(subject.config.vocabulary), axis=0)
    matrix = graph.constant(subject.dense_array("decoder.weight").T, "decoder")
    scores = graph.add("MatMul", graph.reshape(x, -1, subject.config.hidden), matrix)
    scores = graph.add("Add", scores, graph.constant(subject.dense_array("decoder.bias"), "decoder_bias"))
    return graph.add("Reshape", scores, size)


def _float32(subject: Subject, part: Part, threads: int) -> Bind:
    return _bind(plain_model(subject, part), subject, threads)


def _int8(subject: Subject, part: Part, threads: int) -> Bind:
    return _bind(quantised(plain_model(subject, part), subject.config.layers), subject, threads)


def _bind(model: Any, subject: Subject, threads: int) -> Bind:
    runtime = extra("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def bind(x: Array) -> Run:
        h0, c0 = subject.zeros(x.shape[1])
        given = {"x": x, "h0": h0, "c0": c0}
        size = subject.config.hidden if x.ndim == 3 else subject.config.vocabulary
        results = {"y": np.zeros((*x.shape[:2], size), np.float32), "h": h0.copy(), "c": c0.copy()}
        inputs, outputs = (
            {name: runtime.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
            for arrays in (given, results)
        )
        binding, run_options = session.io_binding(), runtime.RunOptions()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in outputs.items():
            binding.bind_ortvalue_output(name, value)
        held = (inputs, outputs)  # a bound value does not keep its memory alive

        def bound() -> Any:
            session.run_with_iobinding(binding, run_options)
            return held[1]["y"]

        return _faster(lambda: session.run(None, given)[0], bound)

    return bind


def _faster(*runs: Run) -> Run:
    """Plain calls are faster for small inputs, bound ones for large; the opponent gets its best."""
    best: dict[Run, float] = dict.fromkeys(runs, float("inf"))
    end = time.perf_counter() + _TRIAL_SECONDS
    for number in range(50):
        for run in runs:
            started = time.perf_counter()
            run()
            if number:  # the first call allocates
                best[run] = min(best[run], time.perf_counter() - started)
        if number and time.perf_counter() > end:
            break
    return min(runs, key=best.__getitem__)


ONNXRUNTIME = Engine("onnxruntime", "float32", _float32, close=True)
ONNXRUNTIME_INT8 = Engine("onnxruntime-int8", "int8", _int8, close=False)
