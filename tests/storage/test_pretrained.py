from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dopant
from dopant.cost import Storage
from dopant.errors import InputError, TensorError
from dopant.layers import convert, slots
from dopant.storage import from_pretrained, inspect, save_pretrained
from dopant.structures import Dense, Doped, LowRank, Sparse


class Tagger(nn.Module):
    """A module as someone might write it."""

    def __init__(self, hidden: int = 6, bidirectional: bool = True, tie: bool = False) -> None:
        super().__init__()
        self.words = nn.Embedding(20, hidden, padding_idx=0)
        self.norm = nn.BatchNorm1d(hidden)
        self.lstm = nn.LSTM(hidden, hidden, 2, batch_first=True, bidirectional=bidirectional)
        self.head = nn.ModuleDict(
            {"down": nn.Linear(hidden * (1 + bidirectional), hidden), "out": nn.Linear(hidden, 20)}
        )
        self.register_buffer("mask", torch.triu(torch.full((4, 4), -torch.inf), 1))
        self.scale = nn.Parameter(torch.ones(()))
        if tie:
            self.head["out"].weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm(self.words(tokens).transpose(1, 2)).transpose(1, 2)
        x, _ = self.lstm(x)
        return self.scale * self.head["out"](self.head["down"](x).tanh()) + self.mask.exp().sum()


TOKENS = torch.tensor([[1, 2, 0, 4], [5, 19, 7, 8]])


def compressed(model: nn.Module, joint: bool = True) -> nn.Module:
    """A copy of a module with another structure in each place, no longer as it began."""
    torch.manual_seed(3)
    model = convert(model, joint=joint).train()
    model(TOKENS)  # moves the statistics of the batch norm
    for number, slot in enumerate(slots(model)):
        structure = (Dense(), LowRank(2), Doped(LowRank(1), Sparse(9)))[number % 3]
        slot.set(structure.fit(slot.weight.to_dense()))
    return model.eval()


SKELETONS: dict[str, Callable[[nn.Module, nn.Module], nn.Module]] = {
    "torch's layers": lambda fresh, saved: fresh,
    "ours, dense": lambda fresh, saved: convert(fresh),
    "ours, already compressed": lambda fresh, saved: copy.deepcopy(saved),
    "on the meta device": lambda fresh, saved: fresh.to("meta"),
}


@pytest.mark.parametrize("skeleton", SKELETONS)
@pytest.mark.parametrize("tie", [False, True])
def test_the_outputs_are_those_from_before_saving(tmp_path: Path, skeleton: str, tie: bool) -> None:
    model = compressed(Tagger(tie=tie))
    save_pretrained(model, tmp_path / "m")
    fresh = SKELETONS[skeleton](Tagger(tie=tie), model)
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items() if not tensor.is_meta}
    loaded = from_pretrained(fresh, tmp_path / "m")
    assert torch.equal(loaded(TOKENS), model(TOKENS))
    assert not loaded.training
    after = fresh.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    if tie:
        assert loaded.words.weight is loaded.head["out"].weight
        assert "head.out.weight" in inspect(tmp_path / "m").weights[0].tied


def test_it_is_what_the_package_offers(tmp_path: Path) -> None:
    model = compressed(Tagger())
    dopant.save_pretrained(model, tmp_path / "m", storage=Storage("int8", "rice"))
    loaded = dopant.from_pretrained(Tagger(), tmp_path / "m")
    torch.testing.assert_close(loaded(TOKENS), model(TOKENS), atol=0.1, rtol=0)
    assert not torch.equal(loaded(TOKENS), model(TOKENS))


def test_a_plan_is_saved_with_its_bytes_unless_told_otherwise(tmp_path: Path) -> None:
    model = convert(Tagger(hidden=32))
    plan = dopant.make_plan(model, method="lmf", target="3x", storage=Storage("int8"), ignore=["re:.*_l1.*"])
    dopant.apply_plan(model, plan, "fit")
    save_pretrained(model, tmp_path / "as planned")
    stored = {weight.name: weight.stored_bytes for weight in inspect(tmp_path / "as planned").weights}
    assert stored == {weight.name: weight.cost.stored_bytes for weight in plan.weights}
    save_pretrained(from_pretrained(Tagger(hidden=32), tmp_path / "as planned"), tmp_path / "again")
    assert inspect(tmp_path / "again").stored_bytes == inspect(tmp_path / "as planned").stored_bytes
    save_pretrained(model, tmp_path / "otherwise", storage=Storage("float16"))
    assert {weight.storage for weight in inspect(tmp_path / "otherwise").weights} == {Storage("float16")}


def test_two_matrices_a_layer_are_found_again(tmp_path: Path) -> None:
    model = compressed(Tagger(), joint=False)
    save_pretrained(model, tmp_path / "m")
    assert torch.equal(from_pretrained(Tagger(), tmp_path / "m")(TOKENS), model(TOKENS))


def test_layers_left_as_they_were_stay_so(tmp_path: Path) -> None:
    model = convert(Tagger(), ignore=["head.out", "words"]).eval()
    save_pretrained(model, tmp_path / "m")
    loaded = from_pretrained(Tagger(), tmp_path / "m")
    assert type(loaded.head["out"]) is nn.Linear
    assert torch.equal(loaded(TOKENS), model(TOKENS))


def test_the_skeleton_says_the_float_type(tmp_path: Path) -> None:
    model = compressed(Tagger())
    save_pretrained(model, tmp_path / "m")
    loaded = from_pretrained(Tagger().double(), tmp_path / "m")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float64}
    torch.testing.assert_close(loaded(TOKENS).float(), model(TOKENS))


def test_tensors_other_than_weights_keep_their_type(tmp_path: Path) -> None:
    model = compressed(Tagger()).double()
    save_pretrained(model, tmp_path / "m")
    types = {tensor.name: tensor.dtype for tensor in inspect(tmp_path / "m").plain}
    assert types["norm.num_batches_tracked"] == "int64"
    assert types["scale"] == "float64"
    loaded = from_pretrained(Tagger().double(), tmp_path / "m")
    torch.testing.assert_close(loaded(TOKENS), model(TOKENS), rtol=1e-5, atol=1e-5)


class Shared(nn.Module):
    """One module in two places, one parameter in two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.again = self.first
        self.norm_a, self.norm_b = nn.LayerNorm(4), nn.LayerNorm(4)
        self.norm_b.weight = self.norm_a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.norm_b(self.again(self.norm_a(self.first(x))))


def test_shared_modules_and_parameters_are_stored_once(tmp_path: Path) -> None:
    model = convert(Shared())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    save_pretrained(model, tmp_path / "m")
    found = inspect(tmp_path / "m")
    assert len(found.weights) == 1
    assert [t.name for t in found.plain] == ["first.bias", "norm_a.bias", "norm_a.weight", "norm_b.bias"]
    loaded = from_pretrained(Shared(), tmp_path / "m")
    x = torch.randn(3, 4)
    assert torch.equal(loaded(x), model(x))
    assert loaded.again is loaded.first
    assert loaded.norm_a.weight is loaded.norm_b.weight


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (lambda: Tagger(hidden=8), "is of shape"),
        (lambda: Tagger(bidirectional=False), "_reverse"),
        (lambda: nn.Linear(3, 3), "belongs to nothing"),
        (lambda: nn.Sequential(Tagger()), "belongs to nothing"),
    ],
)
def test_another_module_is_refused(tmp_path: Path, other: Callable[[], nn.Module], text: str) -> None:
    save_pretrained(compressed(Tagger()), tmp_path / "m")
    with pytest.raises(TensorError, match=text) as caught:
        from_pretrained(other(), tmp_path / "m")
    assert str(caught.value).startswith(f"{tmp_path / 'm'}: ")


def test_other_plain_tensors_are_refused(tmp_path: Path) -> None:
    save_pretrained(compressed(Tagger()), tmp_path / "m")
    more, fewer, wider, whole = Tagger(), Tagger(), Tagger(), Tagger()
    more.register_buffer("extra", torch.zeros(1))
    del fewer.scale
    wider.scale = nn.Parameter(torch.ones(2))
    del whole.scale
    whole.register_buffer("scale", torch.tensor(1))
    for skeleton, text in (
        (more, "'extra' is missing"),
        (fewer, "'scale' belongs"),
        (wider, "'scale' is"),
        (whole, "'scale' is"),
    ):
        with pytest.raises(TensorError, match=text):
            from_pretrained(skeleton, tmp_path / "m")


@pytest.mark.parametrize("joint", [True, False])
def test_an_lstm_alone(joint: bool, tmp_path: Path) -> None:
    ours = convert(nn.LSTM(4, 6), joint=joint)
    save_pretrained(ours, tmp_path / "model")
    back = from_pretrained(nn.LSTM(4, 6), tmp_path / "model")
    x = torch.randn(3, 2, 4)
    assert torch.equal(back(x)[0], ours.eval()(x)[0])


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_layer_left_as_it_was_that_is_tied(tmp_path: Path, device: str) -> None:
    ours = convert(Tagger(tie=True, bidirectional=False).eval(), ignore=["head.out"])
    save_pretrained(ours, tmp_path / "model")
    with torch.device(device):
        skeleton = Tagger(tie=True, bidirectional=False)
    back = from_pretrained(skeleton, tmp_path / "model")
    assert torch.equal(back(TOKENS), ours(TOKENS))
    assert back.head["out"].weight is back.words.weight.matrix


class Skeleton(nn.Module):
    """Ties a plain tensor and holds a buffer of each kind."""

    def __init__(self, persistent: bool = True) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
        self.b.bias = self.a.bias
        self.gru, self.norm = nn.GRU(8, 8), nn.LayerNorm(8)
        self.register_buffer("gain", torch.full((8,), 2.0), persistent=persistent)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.gru(self.b(self.a(x)))[0]) * self.gain
        return y


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_skeleton_on_the_meta_device_keeps_its_ties_and_its_float_type(tmp_path: Path, dtype: torch.dtype) -> None:
    model = convert(Skeleton()).eval()
    save_pretrained(model, tmp_path / "m")
    with torch.device("meta"):
        skeleton = Skeleton().to(dtype)
    loaded = from_pretrained(skeleton, tmp_path / "m")
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {dtype}
    assert loaded.b.bias is loaded.a.bias
    x = torch.randn(3, 8)
    tolerance = {"atol": 1e-1, "rtol": 0.0} if dtype == torch.bfloat16 else {"atol": 1e-5, "rtol": 0.0}
    torch.testing.assert_close(loaded(x.to(dtype)).float(), model(x), **tolerance)


def test_what_no_file_holds_cannot_come_off_the_meta_device(tmp_path: Path) -> None:
    save_pretrained(convert(Skeleton(persistent=False)), tmp_path / "m")
    with torch.device("meta"):
        skeleton = Skeleton(persistent=False)
    with pytest.raises(InputError, match=r"'gain' is on the meta device.*build the model on the CPU"):
        from_pretrained(skeleton, tmp_path / "m")
    with pytest.raises(InputError, match="is on the meta device and has no numbers to store"):
        save_pretrained(convert(skeleton), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_what_is_frozen_in_the_skeleton_comes_out_frozen(tmp_path: Path) -> None:
    save_pretrained(compressed(Tagger()), tmp_path / "m")
    skeleton = Tagger()
    skeleton.words.requires_grad_(False)
    skeleton.norm.requires_grad_(False)
    loaded = from_pretrained(skeleton, tmp_path / "m")
    frozen = {name.split(".")[0] for name, parameter in loaded.named_parameters() if not parameter.requires_grad}
    assert frozen == {"words", "norm"}
