"""A language model as an ONNX graph, in one of two layouts.

Inputs `tokens` (time, batch) int64, `h0` and `c0` (layers, batch, hidden); outputs `logits` (time, batch, vocabulary),
`h` and `c`, the state after the last token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from dopant.cost import FLOAT32, Storage
from dopant.errors import InputError
from dopant.exporting import weights
from dopant.exporting.extra import extra
from dopant.exporting.graph import IR_VERSION, OPSET, Graph
from dopant.exporting.source import Source
from dopant.layers import LSTM, slots
from dopant.models.language_model import LanguageModel
from dopant.structures import StructuredWeight
from dopant.version import VERSION

Layout = Literal["expand", "scan"]


def make_model(model: LanguageModel, layout: Layout, storages: Mapping[str, Storage] | None = None) -> Any:
    """The model as an `onnx.ModelProto`; its weights stay as they are stored, in every layout.

    Args:
        model: with weights of any structure.
        layout: "expand" forms the matrices with nodes that a runtime folds when it loads the file, and has the
            standard LSTM operator; "scan" multiplies with the factors, step by step in a Scan.
        storages: the type of the values of each weight, by name; float32 for those not named.

    Raises:
        InputError: an unknown layout, a model too large for one file, or onnx is not installed.
        KindError: a weight of a structure that nobody has registered an export for.
    """
    if layout not in get_args(Layout):
        raise InputError(f"layout {layout!r} is not known; choose one of {', '.join(get_args(Layout))}")
    return _Export(model, layout, storages or {}).proto()


class _Export:
    def __init__(self, model: LanguageModel, layout: Layout, storages: Mapping[str, Storage]) -> None:
        self.model, self.layout, self.storages = model, layout, storages
        self.config = model.config
        self.graph = Graph()
        self.names = {id(slot.weight): slot.name for slot in slots(model)}

    def proto(self) -> Any:
        """Put the parts together."""
        graph, hidden = self.graph, self.config.hidden
        tokens = graph.reshape("tokens", -1)
        embedding = self.model.embedding.weight
        x = weights.rows(embedding, self.source(embedding), tokens)  # (time·batch, hidden)
        size = graph.add("Concat", graph.add("Shape", "tokens"), graph.integers(hidden), axis=0)
        x = graph.add("Reshape", x, size)
        x, h, c = self.expanded(x) if self.layout == "expand" else self.scanned(x)
        logits = self.logits(graph.reshape(x, -1, hidden))
        size = graph.add("Concat", graph.add("Shape", "tokens"), graph.integers(self.config.vocabulary), axis=0)
        graph.rename(graph.add("Reshape", logits, size), "logits")
        for name, parts in (("h", h), ("c", c)):
            graph.rename(graph.add("Concat", *parts, axis=0), name)
        return self.wrapped()

    def logits(self, x: str) -> str:
        """x (n, hidden) -> (n, vocabulary)."""
        decoder = self.model.decoder
        source = self.source(decoder.weight)
        if self.layout == "expand":
            matrix = weights.dense(decoder.weight, source)
            scores = self.graph.add("MatMul", x, self.graph.transposed(matrix))
        else:
            scores = weights.linear(decoder.weight, source, x)
        if decoder.bias is None:
            return scores
        return self.graph.add("Add", scores, self.graph.constant(decoder.bias.detach().numpy(), "decoder.bias"))

    def expanded(self, x: str) -> tuple[str, list[str], list[str]]:
        """x (time, batch, hidden) through the standard operator, whose order of gates is i o f g."""
        graph = self.graph
        hs: list[str] = []
        cs: list[str] = []
        for layer, (h, c) in enumerate(zip(self.states("h0"), self.states("c0"), strict=True)):
            names = ("weight",) if self.config.joint else ("weight_ih", "weight_hh")
            matrices = [self.matrix(name, layer) for name in names]
            if self.config.joint:
                sizes = graph.integers(self.config.hidden, self.config.hidden)
                matrices = graph.add_many("Split", (matrices[0], sizes), 2, axis=1)
            w, r = (graph.add("Unsqueeze", _gates(graph, matrix), graph.integers(0)) for matrix in matrices)
            bias = self.bias(layer)
            nothing = graph.zeros(graph.integers(4 * self.config.hidden))
            b = graph.add("Unsqueeze", graph.add("Concat", _gates(graph, bias), nothing, axis=0), graph.integers(0))
            y, h, c = graph.add_many("LSTM", (x, w, r, b, "", h, c), 3, hidden_size=self.config.hidden)
            x = graph.add("Squeeze", y, graph.integers(1))
            hs.append(h)
            cs.append(c)
        return x, hs, cs

    def scanned(self, x: str) -> tuple[str, list[str], list[str]]:
        """x (time, batch, hidden) through a Scan whose body is one step."""
        make, layers = extra("onnx.helper"), self.config.layers
        body = Graph(self.graph)
        inputs = [f"{name}_{layer}_before" for name in "hc" for layer in range(layers)]
        hs, cs = self.step(body, "x_now", inputs[:layers], inputs[layers:])
        outputs, y = [*hs, *cs], body.add("Identity", hs[-1])  # a Scan's outputs have names of their own
        float_matrix = (extra("onnx").TensorProto.FLOAT, ["batch", self.config.hidden])
        values = [make.make_tensor_value_info(name, *float_matrix) for name in (*inputs, "x_now", *outputs, y)]
        count = len(inputs) + 1
        proto = make.make_graph(body.nodes, "step", values[:count], values[count:])
        before = [self.graph.add("Squeeze", s, self.graph.integers(0)) for n in ("h0", "c0") for s in self.states(n)]
        *after, y = self.graph.add_many("Scan", (*before, x), 2 * layers + 1, body=proto, num_scan_inputs=1)
        after = [self.graph.add("Unsqueeze", state, self.graph.integers(0)) for state in after]
        return y, after[:layers], after[layers:]

    def step(self, graph: Graph, x: str, hs: list[str], cs: list[str]) -> tuple[list[str], list[str]]:
        """One step: x and states (batch, hidden) each -> the states after it."""
        after: tuple[list[str], list[str]] = ([], [])
        for layer, (h, c) in enumerate(zip(hs, cs, strict=True)):
            if self.config.joint:
                gates = self.product(graph, "weight", layer, graph.add("Concat", x, h, axis=1))
            else:
                both = (self.product(graph, "weight_ih", layer, x), self.product(graph, "weight_hh", layer, h))
                gates = graph.add("Add", *both)
            gates = graph.add("Add", gates, self.bias(layer))
            i, f, g, o = graph.add_many("Split", (gates, graph.integers(*[self.config.hidden] * 4)), 4, axis=1)
            i, f, g, o = (graph.add(name, gate) for name, gate in zip(_SQUASHED, (i, f, g, o), strict=True))
            c = graph.add("Add", graph.add("Mul", f, c), graph.add("Mul", i, g))
            x = graph.add("Mul", o, graph.add("Tanh", c))
            for states, state in zip(after, (x, c), strict=True):
                states.append(state)
        return after

    def source(self, weight: StructuredWeight, graph: Graph | None = None) -> Source:
        """A weight's place: a tied one has but one."""
        name = self.names[id(weight)]
        return Source(graph or self.graph, name, self.storages.get(name, FLOAT32))

    def product(self, graph: Graph, name: str, layer: int, x: str) -> str:
        """x times one of an LSTM layer's weights."""
        weight = self.weight(name, layer)
        return weights.linear(weight, self.source(weight, graph), x)

    def matrix(self, name: str, layer: int) -> str:
        """One of an LSTM layer's weights, formed."""
        weight = self.weight(name, layer)
        return weights.dense(weight, self.source(weight))

    def weight(self, name: str, layer: int) -> StructuredWeight:
        """A weight of the LSTM."""
        lstm: LSTM = self.model.lstm
        return lstm._weight(f"{name}_l{layer}")

    def bias(self, layer: int) -> str:
        """(4·hidden,), gates i f g o."""
        name = f"lstm.bias_l{layer}"
        array = self.model.get_parameter(name).detach().numpy()
        return self.graph.kept(name, lambda: self.graph.constant(array, name))

    def states(self, name: str) -> list[str]:
        """The layers' parts (1, batch, hidden) of an input."""
        ones = self.graph.integers(*[1] * self.config.layers)
        return self.graph.kept(name, lambda: self.graph.add_many("Split", (name, ones), self.config.layers, axis=0))

    def wrapped(self) -> Any:
        """The graph with its inputs and outputs, as a model."""
        onnx, make = extra("onnx"), extra("onnx.helper")
        state = (onnx.TensorProto.FLOAT, [self.config.layers, "batch", self.config.hidden])
        inputs = [make.make_tensor_value_info("tokens", onnx.TensorProto.INT64, ["time", "batch"])]
        inputs += [make.make_tensor_value_info(name, *state) for name in ("h0", "c0")]
        scores = (onnx.TensorProto.FLOAT, ["time", "batch", self.config.vocabulary])
        outputs = [make.make_tensor_value_info("logits", *scores)]
        outputs += [make.make_tensor_value_info(name, *state) for name in ("h", "c")]
        graph = make.make_graph(self.graph.nodes, "language_model", inputs, outputs, self.graph.initializers)
        proto = make.make_model(
            graph,
            opset_imports=[make.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="dopant",
            producer_version=VERSION,
        )
        make.set_model_props(proto, {"dopant.layout": self.layout})
        return proto


_SQUASHED = ("Sigmoid", "Sigmoid", "Tanh", "Sigmoid")  # of gates i f g o


def _gates(graph: Graph, value: str) -> str:
    """Four blocks of rows i f g o as i o f g."""
    i, f, g, o = graph.add_many("Split", (value,), 4, axis=0)
    return graph.add("Concat", i, o, f, g, axis=0)
