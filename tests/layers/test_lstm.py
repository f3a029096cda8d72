"""Our LSTM against torch.nn.LSTM: outputs, states, gradients."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

from dopant.errors import InputError
from dopant.layers import LSTM
from dopant.layers.convert import convert, revert
from dopant.structures import Doped, Kronecker, LowRank, Sparse, StructuredWeight
from dopant.structures.presets import per_gate

IN, HIDDEN, TIME, BATCH = 5, 4, 3, 3


def a_pair(joint: bool, contraction: str, **options: Any) -> tuple[LSTM, nn.LSTM]:
    torch.manual_seed(0)
    theirs = nn.LSTM(IN, HIDDEN, **options).double()
    ours = convert(theirs, joint=joint)
    assert isinstance(ours, LSTM)
    ours.contraction = contraction  # type: ignore[assignment]
    return ours, theirs


def run(lstm: nn.Module, x: Any, state: tuple[Tensor, Tensor] | None) -> dict[str, Tensor]:
    """Outputs, final states, and the gradients of the inputs, for one fixed gradient from above."""
    leaves = {"x": (x.data if isinstance(x, PackedSequence) else x).clone().requires_grad_()}
    given = PackedSequence(leaves["x"], *x[1:]) if isinstance(x, PackedSequence) else leaves["x"]
    if state is not None:
        leaves |= {"h": state[0].clone().requires_grad_(), "c": state[1].clone().requires_grad_()}
    y, (h, c) = lstm(given, None if state is None else (leaves["h"], leaves["c"]))
    y = y.data if isinstance(y, PackedSequence) else y
    generator = torch.Generator().manual_seed(5)
    outputs = {"output": y, "final h": h, "final c": c}
    lstm.zero_grad()
    sum((t * torch.randn(t.shape, generator=generator, dtype=t.dtype)).sum() for t in outputs.values()).backward()  # type: ignore[union-attr]
    return {name: t.detach() for name, t in outputs.items()} | {
        f"gradient of {name}": t.grad for name, t in leaves.items() if t.grad is not None
    }


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].shape == tensor.shape, name
        assert torch.allclose(ours[name], tensor, atol=tolerance, rtol=0), name


def assert_same_weight_gradients(ours: LSTM, theirs: nn.LSTM) -> None:
    for layer in range(theirs.num_layers):
        for suffix in (f"_l{layer}", f"_l{layer}_reverse")[: 2 if theirs.bidirectional else 1]:
            expected = {kind: theirs.get_parameter(kind + suffix).grad for kind in ("weight_ih", "weight_hh")}
            if ours.joint:
                expected = {"weight": torch.cat([expected["weight_ih"], expected["weight_hh"]], dim=1)}
            if theirs.proj_size:
                expected["weight_hr"] = theirs.get_parameter("weight_hr" + suffix).grad
            for kind, gradient in expected.items():
                assert torch.allclose(ours.get_parameter(f"{kind}{suffix}.matrix").grad, gradient, atol=1e-10)
            if theirs.bias:
                for kind in ("bias_ih", "bias_hh"):
                    assert torch.allclose(
                        ours.get_parameter("bias" + suffix).grad, theirs.get_parameter(kind + suffix).grad, atol=1e-10
                    )


def random_state(lstm: nn.LSTM, batch: int | None) -> tuple[Tensor, Tensor]:
    count = lstm.num_layers * (2 if lstm.bidirectional else 1)
    middle = () if batch is None else (batch,)
    return (
        torch.randn(count, *middle, lstm.proj_size or lstm.hidden_size, dtype=torch.float64),
        torch.randn(count, *middle, lstm.hidden_size, dtype=torch.float64),
    )


@pytest.mark.parametrize("contraction", ["dense", "dense, as on a GPU", "factored"])
@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("proj_size", [0, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_it_equals_torchs(
    joint: bool,
    contraction: str,
    proj_size: int,
    bidirectional: bool,
    num_layers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if contraction.endswith("GPU"):
        monkeypatch.setattr("dopant.layers.lstm.whole_rows", lambda size, like: -(-size // 8) * 8)
        contraction = "dense"
    for bias, batch_first, batched, stateful in itertools.product((True, False), repeat=4):
        ours, theirs = a_pair(
            joint,
            contraction,
            num_layers=num_layers,
            bias=bias,
            batch_first=batch_first,
            bidirectional=bidirectional,
            proj_size=proj_size,
        )
        size = (TIME, IN) if not batched else (BATCH, TIME, IN) if batch_first else (TIME, BATCH, IN)
        x = torch.randn(size, dtype=torch.float64)
        state = random_state(theirs, BATCH if batched else None) if stateful else None
        assert_same(run(ours, x, state), run(theirs, x, state))
        assert_same_weight_gradients(ours, theirs)


@pytest.mark.parametrize("contraction", ["dense", "factored"])
@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("lengths", [[3, 2, 1], [2, 3, 3]])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_packed_sequences(joint: bool, contraction: str, lengths: list[int], bidirectional: bool) -> None:
    for proj_size, stateful, batch_first in itertools.product((0, 2), (False, True), (False, True)):
        ours, theirs = a_pair(
            joint,
            contraction,
            num_layers=2,
            batch_first=batch_first,
            bidirectional=bidirectional,
            proj_size=proj_size,
        )
        x = torch.randn(BATCH, TIME, IN, dtype=torch.float64)
        packed = pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
        state = random_state(theirs, BATCH) if stateful else None
        assert_same(run(ours, packed, state), run(theirs, packed, state))
        assert_same_weight_gradients(ours, theirs)
        got, expected = ours(packed)[0], theirs(packed)[0]
        for ours_field, theirs_field in zip(got[1:], expected[1:], strict=True):
            assert torch.equal(ours_field, theirs_field)


def test_a_sequence_packed_in_falling_order_of_length() -> None:
    ours, theirs = a_pair(True, "dense")
    packed = pack_sequence([torch.randn(t, IN, dtype=torch.float64) for t in (5, 3, 3)])
    got, expected = ours(packed)[0], theirs(packed)[0]
    assert torch.allclose(got.data, expected.data)
    assert got.sorted_indices is expected.sorted_indices is None


def test_equal_lengths_in_an_order_of_the_users_own() -> None:
    ours, theirs = a_pair(True, "dense")
    data = torch.randn(6, IN, dtype=torch.float64)
    order = torch.tensor([2, 0, 1])
    packed = PackedSequence(data, torch.tensor([3, 3]), order, torch.argsort(order))
    state = random_state(theirs, 3)
    assert_same(run(ours, packed, state), run(theirs, packed, state))


@pytest.mark.parametrize("contraction", ["dense", "factored"])
def test_float32_within_its_rounding(contraction: str) -> None:
    ours, theirs = a_pair(True, contraction, num_layers=2)
    x = torch.randn(TIME, BATCH, IN)
    assert_same(run(ours.float(), x, None), run(theirs.float(), x, None), 1e-5)


def structured(joint: bool, contraction: str, **options: Any) -> LSTM:
    torch.manual_seed(1)
    lstm = LSTM(6, 6, joint=joint, contraction=contraction, **options)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(2)
    for name, weight in list(lstm.named_children()):
        assert isinstance(weight, StructuredWeight)
        m, n = weight.shape
        if name.startswith("weight_hr"):
            structure = LowRank(1)
        elif "l0" in name:
            structure = Doped(Kronecker(((4, 3), (m // 4, n // 3))), Sparse(20))
        else:
            structure = per_gate(LowRank(2), m // 4, 4)
        setattr(lstm, name, structure.new(weight.shape, generator=generator))
    return lstm.double()


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"proj_size": 3, "bias": False}])
def test_structured_weights_give_the_same_both_ways_and_in_torch(joint: bool, options: dict[str, Any]) -> None:
    x = torch.randn(TIME, BATCH, 6, dtype=torch.float64)
    gradients = []
    results = []
    for contraction in ("dense", "factored"):
        lstm = structured(joint, contraction, **options)
        results.append(run(lstm, x, None))
        gradients.append({name: p.grad for name, p in lstm.named_parameters()})
    theirs = revert(lstm)
    assert isinstance(theirs, nn.LSTM)
    results.append(run(theirs, x, None))
    assert_same(results[0], results[1])
    assert_same(results[0], results[2])
    assert all(gradient is not None for gradient in gradients[0].values())
    assert_same(gradients[0], gradients[1])  # type: ignore[arg-type]


@pytest.mark.parametrize("contraction", ["dense", "factored"])
@pytest.mark.parametrize("joint", [True, False])
def test_torch_func_calls_it_with_parameters_that_are_given(joint: bool, contraction: str) -> None:
    ours = structured(joint, contraction, num_layers=2)
    x = torch.randn(TIME, BATCH, 6, dtype=torch.float64)

    def loss(given: dict[str, Tensor]) -> Tensor:
        output: Tensor = torch.func.functional_call(ours, given, (x,))[0]
        return output.square().sum()

    given = {name: 1.1 * parameter.detach() for name, parameter in ours.named_parameters()}
    gradients, value = torch.func.grad_and_value(loss)(given)
    ours.load_state_dict(given, strict=False)  # positions are no parameters
    expected = ours(x)[0].square().sum()
    expected.backward()
    assert torch.allclose(value, expected, atol=1e-10)
    assert_same(gradients, {name: p.grad for name, p in ours.named_parameters()})  # type: ignore[arg-type,misc]


def masks(kind: str, weight: StructuredWeight, seed: int) -> tuple[Tensor, ...]:
    size = {"row": (), "batch": (BATCH,), "time": (TIME, BATCH)}[kind]
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        (torch.rand(*size, weight.shape[0], generator=generator, dtype=torch.float64) < 0.5) * 2.0
        for _ in weight.paths()
    )


def reference_with_masks(lstm: LSTM, x: Tensor) -> Tensor:
    """One layer, one direction, written out: each path's product under its mask."""
    h = c = torch.zeros(BATCH, lstm.hidden_size, dtype=x.dtype)
    outputs = []
    for t in range(TIME):
        gates = lstm.bias_l0
        for name in ("weight_l0",) if lstm.joint else ("weight_ih_l0", "weight_hh_l0"):
            weight = getattr(lstm, name)
            given = torch.cat([x[t], h], -1) if lstm.joint else x[t] if "ih" in name else h
            for path, mask in zip(weight.paths(), weight.row_masks, strict=True):
                gates = gates + (given @ path.to_dense().mT) * (mask[t] if mask.dim() == 3 else mask)
        i, f, g, o = gates.chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs)


@pytest.mark.parametrize("kind", ["row", "batch", "time"])
@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("contraction", ["dense", "factored"])
def test_row_masks_act_on_each_path(kind: str, joint: bool, contraction: str) -> None:
    lstm = structured(joint, contraction)
    x = torch.randn(TIME, BATCH, 6, dtype=torch.float64)
    plain = lstm(x)[0]
    for seed, weight in enumerate(w for w in lstm.children() if isinstance(w, StructuredWeight)):
        weight.row_masks = masks(kind, weight, seed)
    masked = lstm(x)[0]
    assert torch.allclose(masked, reference_with_masks(lstm, x))
    assert not torch.allclose(masked, plain)
    for weight in lstm.children():
        weight.row_masks = None  # type: ignore[assignment]
    assert torch.equal(lstm(x)[0], plain)


def test_dropout_acts_between_the_layers_and_in_training_alone() -> None:
    ours, theirs = a_pair(True, "dense", num_layers=2, dropout=0.5)
    x = torch.randn(TIME, BATCH, IN, dtype=torch.float64)
    ours.eval(), theirs.eval()
    assert_same(run(ours, x, None), run(theirs, x, None))
    ours.train()
    first, second = ours(x)[0], ours(x)[0]
    assert not torch.allclose(first, second)
    single, _ = a_pair(True, "dense", num_layers=1)
    single.dropout = 0.5
    assert torch.equal(single(x)[0], single(x)[0])  # nothing after the last layer
    ours.dropout = 1.0  # all of the first layer is dropped: the second sees zeros
    theirs.train()
    theirs.dropout = 1.0
    assert torch.allclose(ours(x)[0], theirs(x)[0])


def test_names_and_shapes_of_the_weights() -> None:
    joint = LSTM(IN, HIDDEN, 2, bidirectional=True, proj_size=2)
    assert {n: w.shape for n, w in joint.named_children()} == {
        "weight_l0": (16, 7),
        "weight_hr_l0": (2, 4),
        "weight_l0_reverse": (16, 7),
        "weight_hr_l0_reverse": (2, 4),
        "weight_l1": (16, 6),
        "weight_hr_l1": (2, 4),
        "weight_l1_reverse": (16, 6),
        "weight_hr_l1_reverse": (2, 4),
    }
    split = LSTM(IN, HIDDEN, joint=False)
    assert {n: w.shape for n, w in split.named_children()} == {"weight_ih_l0": (16, 5), "weight_hh_l0": (16, 4)}
    assert [n for n, _ in split.named_parameters(recurse=False)] == ["bias_l0"]
    assert not list(LSTM(IN, HIDDEN, bias=False).named_parameters(recurse=False))


def test_a_new_one_starts_like_torchs() -> None:
    torch.manual_seed(0)
    ours, theirs = LSTM(40, 60), nn.LSTM(40, 60)
    for weight in (ours.weight_l0.to_dense().detach(), ours.bias_l0.detach()):
        assert float(weight.std()) == pytest.approx(float(theirs.weight_ih_l0.detach().std()), rel=0.1)
        assert float(weight.abs().max()) <= 60**-0.5


def test_empty_batches_and_the_torch_habit_of_flattening() -> None:
    lstm = LSTM(IN, HIDDEN)
    lstm.flatten_parameters()
    output, (h, c) = lstm(torch.zeros(TIME, 0, IN))
    assert output.shape == (TIME, 0, HIDDEN)
    assert h.shape == c.shape == (1, 0, HIDDEN)


@pytest.mark.parametrize(
    ("x", "state", "message"),
    [
        (torch.zeros(2, 3, 4), None, r"takes 5 inputs, got 4"),
        (torch.zeros(5), None, r"2-D or 3-D input, got shape \(5,\)"),
        (torch.zeros(1, 2, 3, 5), None, r"2-D or 3-D input"),
        (torch.zeros(2, 3, 5), (torch.zeros(1, 3, 5), torch.zeros(1, 3, 4)), r"initial h must be .* \(1, 3, 4\)"),
        (torch.zeros(2, 3, 5), (torch.zeros(1, 3, 4), torch.zeros(1, 2, 4)), r"initial c must be .* \(1, 3, 4\)"),
        (torch.zeros(2, 5), (torch.zeros(2, 4), torch.zeros(1, 4)), r"initial h must be"),
    ],
)
def test_inputs_that_do_not_fit(x: Tensor, state: tuple[Tensor, Tensor] | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LSTM(IN, HIDDEN)(x, state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"proj_size": 4}, "proj_size must be 0 or less than hidden_size 4, got 4"),
        ({"proj_size": -1}, "proj_size"),
        ({"num_layers": 0}, "1 layer"),
        ({"hidden_size": 0}, "hidden"),
        ({"input_size": 0}, "1 input"),
        ({"dropout": 1.5}, "dropout"),
        ({"contraction": "sparse"}, "contraction .*dense.*factored.*sparse"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LSTM(**{"input_size": IN, "hidden_size": HIDDEN, **options})


def test_a_place_that_holds_no_structured_weight() -> None:
    lstm = LSTM(IN, HIDDEN)
    lstm.weight_l0 = nn.Linear(2, 2)
    with pytest.raises(InputError, match="weight_l0 must hold a structured weight, got Linear"):
        lstm(torch.zeros(2, 1, IN))
