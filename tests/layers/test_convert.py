"""Modules of somebody else's, made ours and made torch's again."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.utils.prune
from torch import Tensor, nn

from dopant.errors import InputError
from dopant.layers import LSTM, Embedding, Linear
from dopant.layers.convert import convert, revert
from dopant.layers.slots import slots
from dopant.structures import Doped, Kronecker, LowRank, Sparse


class Tagger(nn.Module):
    """As somebody else may have written it."""

    def __init__(self, tied: bool = False, layers: int = 2) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 8, padding_idx=0)
        self.rnn = nn.LSTM(8, 8, num_layers=layers, batch_first=True, bidirectional=not tied, dropout=0.3)
        width = 8 if tied else 16
        self.head = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, 8), nn.Linear(8, 20, bias=False))
        if tied:
            self.head[3].weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        self.rnn.flatten_parameters()
        states, _ = self.rnn(self.words(tokens))
        logits: Tensor = self.head(states)
        return logits


TOKENS = torch.tensor([[1, 2, 3, 0], [4, 5, 19, 6]])


def gradients_of(model: nn.Module) -> Tensor:
    """Through the whole model, of what both have unchanged: the LayerNorm's weight."""
    model.zero_grad()
    model(TOKENS).square().sum().backward()
    gradient = model.head[0].weight.grad  # type: ignore[index,union-attr]
    assert isinstance(gradient, Tensor)
    return gradient


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_a_foreign_module_keeps_its_function(joint: bool, tied: bool) -> None:
    model = Tagger(tied).double().eval()
    ours = convert(model, joint=joint)
    assert isinstance(ours.words, Embedding)
    assert isinstance(ours.rnn, LSTM)
    assert isinstance(ours.head[2], Linear)
    assert ours.rnn.joint == joint
    assert ours.rnn.batch_first
    assert ours.rnn.dropout == 0.3
    assert torch.allclose(ours(TOKENS), model(TOKENS), atol=1e-12)
    assert torch.allclose(gradients_of(ours), gradients_of(model), atol=1e-12)


def test_the_model_itself_is_not_changed() -> None:
    model = Tagger().eval()
    before = copy.deepcopy(model.state_dict())
    ours = convert(model)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(1.0)
    assert isinstance(model.rnn, nn.LSTM)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("joint", [True, False])
def test_there_and_back_is_the_same_model(joint: bool) -> None:
    model = Tagger().eval()
    back = revert(convert(model, joint=joint))
    assert [type(m) for m in back.modules()] == [type(m) for m in model.modules()]
    state, old = back.state_dict(), model.state_dict()
    assert state.keys() == old.keys()
    for name, tensor in old.items():
        if "bias_hh" in name:
            assert not state[name].any()
        elif "bias_ih" in name:  # torch's two only ever occur as a sum
            assert torch.equal(state[name], tensor + old[name.replace("bias_ih", "bias_hh")])
        else:
            assert torch.equal(state[name], tensor), name
    assert torch.allclose(back(TOKENS), model(TOKENS), atol=1e-6)


def test_no_random_numbers_are_drawn() -> None:
    model, before = Tagger(), torch.get_rng_state()
    revert(convert(model))
    assert torch.equal(torch.get_rng_state(), before)


def test_reverting_leaves_ours_alone_and_shares_nothing() -> None:
    ours = convert(Tagger())
    back = revert(ours)
    theirs = {p.data_ptr() for p in back.parameters()}
    assert not theirs & {p.data_ptr() for p in ours.parameters()}
    assert isinstance(ours.rnn, LSTM)


def test_compressed_weights_revert_to_what_they_stand_for() -> None:
    ours = convert(Tagger().double().eval())
    structures = {"rnn": Doped(LowRank(2), Sparse(30)), "words": LowRank(3), "head": Kronecker(((4, 4), (2, 4)))}
    for slot in slots(ours):
        structure = structures[slot.name.split(".")[0]]
        if slot.name == "head.3.weight":
            structure = Kronecker(((5, 2), (4, 4)))
        slot.set(structure.fit(slot.weight.to_dense()))
    back = revert(ours)
    assert not any("dopant" in type(m).__module__ for m in back.modules())
    assert torch.allclose(back(TOKENS), ours(TOKENS), atol=1e-12)


def test_tied_weights_stay_tied_both_ways() -> None:
    model = Tagger(tied=True)
    ours = convert(model)
    assert ours.words.weight is ours.head[3].weight
    assert sum(p.numel() for p in ours.parameters()) < sum(p.numel() for p in model.parameters())  # one LSTM bias
    back = revert(ours)
    assert back.words.weight is back.head[3].weight
    assert sum(p.numel() for p in back.parameters()) == sum(p.numel() for p in model.parameters())


def test_a_layer_used_twice_stays_one_layer() -> None:
    layer = nn.Linear(3, 3)
    ours = convert(nn.Sequential(layer, nn.ReLU(), layer))
    assert ours[0] is ours[2]
    back = revert(ours)
    assert back[0] is back[2]


def test_no_bias_stays_no_bias() -> None:
    model = nn.ModuleDict({"linear": nn.Linear(3, 4, bias=False), "lstm": nn.LSTM(3, 4, bias=False)})
    ours = convert(model)
    assert ours["linear"].bias is None
    assert not [n for n, _ in ours.named_parameters() if "bias" in n]
    back = revert(ours)
    assert not [n for n, _ in back.named_parameters() if "bias" in n]
    assert back["linear"].bias is None


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_kept(training: bool) -> None:
    model = Tagger().train(training)
    model.head[0].train(not training)
    ours = convert(model)
    for there in (ours, revert(ours)):
        assert {n: m.training for n, m in there.named_modules() if n in dict(model.named_modules())} == {
            n: m.training for n, m in model.named_modules()
        }


def test_dtype_device_and_frozen_parameters_are_kept() -> None:
    model = Tagger().to(torch.bfloat16)
    model.words.weight.requires_grad_(False)
    for parameter in model.rnn.parameters():
        parameter.requires_grad_(False)
    ours = convert(model)
    assert {p.dtype for p in ours.parameters()} == {torch.bfloat16}
    frozen = {n for n, p in ours.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in ours.named_parameters() if n.startswith(("words", "rnn"))}
    with torch.no_grad():  # who reverts so still wants to train
        back = revert(ours)
    assert {p.dtype for p in back.parameters()} == {torch.bfloat16}
    assert {n for n, p in back.named_parameters() if not p.requires_grad} == {
        n for n, p in model.named_parameters() if not p.requires_grad
    }


@pytest.mark.parametrize("layer", [nn.Linear(3, 4), nn.Embedding(3, 4), nn.LSTM(3, 4)])
def test_a_single_layer(layer: nn.Module) -> None:
    ours = convert(layer)
    assert type(ours).__module__.startswith("dopant")
    assert type(revert(ours)) is type(layer)


def test_subclasses_and_strangers_are_left_alone() -> None:
    class Scaled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    model = nn.Sequential(Scaled(3, 3), nn.GRU(3, 3), nn.Linear(3, 3))
    ours = convert(model)
    assert [type(m) for m in ours] == [Scaled, nn.GRU, Linear]


def test_what_is_to_be_ignored() -> None:
    ours = convert(Tagger(), ignore=["words", "head"])
    assert type(ours.words) is nn.Embedding
    assert type(ours.head[2]) is nn.Linear
    assert isinstance(ours.rnn, LSTM)
    with pytest.raises(InputError, match="no layer is called 'wrods'"):
        convert(Tagger(), ignore=["wrods"])


@pytest.mark.parametrize("options", [{"max_norm": 1.0}, {"scale_grad_by_freq": True}, {"sparse": True}])
def test_options_that_ours_lack(options: dict[str, object]) -> None:
    model = nn.ModuleDict({"words": nn.Embedding(3, 4, **options)})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=rf"embedding 'words' uses {next(iter(options))}.*ignore=\['words'\]"):
        convert(model)
    assert type(convert(model, ignore=["words"])["words"]) is nn.Embedding  # type: ignore[index]


@pytest.mark.parametrize("layer", [nn.Linear(3, 3), nn.LSTM(3, 3), nn.Embedding(3, 3)])
def test_hooks_are_not_lost_in_silence(layer: nn.Module) -> None:
    model = nn.ModuleDict({"inner": layer, "other": nn.Tanh()})
    model["other"].register_forward_hook(lambda *_: None)  # of no concern
    handle = layer.register_forward_pre_hook(lambda *_: None)
    with pytest.raises(InputError, match=rf"{type(layer).__name__} 'inner' has hooks.*ignore=\['inner'\]"):
        convert(model)
    assert type(convert(model, ignore=["inner"])["inner"]) is type(layer)  # type: ignore[index]
    handle.remove()
    assert type(convert(model)["inner"]) is not type(layer)  # type: ignore[index]


def test_a_weight_that_torch_computes_is_not_frozen_in_silence() -> None:
    with pytest.warns(FutureWarning), pytest.raises(InputError, match="Linear '0' has hooks"):
        convert(nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(3, 3))))
    pruned = nn.utils.prune.random_unstructured(nn.Linear(3, 3), "weight", 0.5)
    with pytest.raises(InputError, match="hooks"):
        convert(nn.Sequential(pruned))
    parametrized = nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
    model = nn.Sequential(parametrized)
    x = torch.randn(2, 3)
    assert torch.equal(convert(model)(x), model(x))


def test_a_model_that_cannot_be_copied_is_refused_in_words() -> None:
    computed, opened = nn.Linear(3, 3), nn.Linear(3, 3)
    computed.last = computed.weight * 2
    opened.generator = (number for number in range(3))  # type: ignore[assignment]
    for model in (computed, opened):
        for act in (convert, revert):
            with pytest.raises(InputError, match="cannot be copied"):
                act(model)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor", "ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("norm_first", [True, False])
def test_torchs_transformers_run_in_evaluation(norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=norm_first)
    model = nn.TransformerEncoder(layer, 2).eval()
    ours = convert(model)
    x, padding = torch.randn(2, 5, 16), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    assert isinstance(ours.layers[1].linear1, Linear)  # type: ignore[index,union-attr]
    with torch.no_grad():
        for mask in (None, padding):
            got, want = ours(x, src_key_padding_mask=mask), model(x, src_key_padding_mask=mask)
            assert torch.allclose(got[~padding], want[~padding], atol=1e-5)
    assert model.layers[0].activation_relu_or_gelu  # type: ignore[union-attr]


def test_a_layer_left_as_it_is_stays_tied() -> None:
    model = Tagger(tied=True)
    ours = convert(model, ignore=["head.3"])
    assert ours.head[3].weight is ours.words.weight.matrix


def test_frozen_parameters_stay_frozen() -> None:
    model = nn.LSTM(4, 4)
    model.weight_hh_l0.requires_grad_(False)
    model.bias_hh_l0.requires_grad_(False)
    ours = convert(model, joint=False)
    assert ours.weight_ih_l0.matrix.requires_grad
    assert not ours.weight_hh_l0.matrix.requires_grad
    assert ours.bias_l0.requires_grad  # the sum moves if one of the two does
    with pytest.raises(InputError, match=r"one of weight_ih_l0 and weight_hh_l0 of LSTM '' is frozen.*joint=False"):
        convert(model)


def test_tied_matrices_of_an_lstm_stay_tied_or_are_refused() -> None:
    model = nn.LSTM(4, 4, num_layers=2)
    model.weight_hh_l1 = model.weight_hh_l0
    ours = convert(model, joint=False)
    assert ours.weight_hh_l1 is ours.weight_hh_l0
    back = revert(ours)
    assert back.weight_hh_l1 is back.weight_hh_l0
    with pytest.raises(InputError, match=r"weight_ih_l0 and weight_hh_l0 of LSTM ''.*tied.*joint=False"):
        convert(model)


class Shared(nn.Module):
    """One layer of two names, and in a container besides."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = self.a
        self.c = nn.Sequential(self.a, nn.Linear(4, 4))


@pytest.mark.parametrize("ignore", ["a", "b", "c", "c.0"])
def test_a_layer_of_several_names_is_left_alone_by_any(ignore: str) -> None:
    ours = convert(Shared(), ignore=[ignore])
    assert ours.a is ours.b
    assert ours.a is ours.c[0]
    assert type(ours.a) is nn.Linear
    assert type(ours.c[1]) is (nn.Linear if ignore == "c" else Linear)


def test_a_layer_that_is_compiled_by_itself_is_refused() -> None:
    for model in (compiled := torch.compile(nn.Linear(3, 3), backend="eager")), nn.Sequential(compiled):
        with pytest.raises(InputError, match=r"Linear '0?' is compiled.*torch.compile\(dopant.convert"):
            convert(model)
    whole = torch.compile(nn.Sequential(nn.Linear(3, 3)), backend="eager")
    assert len(slots(convert(whole))) == 1


def test_hooks_on_state_and_on_parameters_are_not_lost_in_silence() -> None:
    layer = nn.Linear(3, 3)
    handle = layer.register_state_dict_pre_hook(lambda *_: None)
    with pytest.raises(InputError, match="Linear '0' has hooks"):
        convert(nn.Sequential(layer))
    handle.remove()
    for register in (layer.weight.register_hook, layer.weight.register_post_accumulate_grad_hook):
        handle = register(lambda _: None)
        with pytest.raises(InputError, match=r"parameter '0.weight' has hooks.*on the converted model"):
            convert(nn.Sequential(layer))
        handle.remove()
    assert type(convert(nn.Sequential(layer))[0]) is Linear


@pytest.mark.filterwarnings("ignore:enable_nested_tensor", "ignore:The PyTorch API of nested tensors")
def test_transformers_that_are_reverted_take_their_fast_path_again() -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2).eval()
    ours = convert(model)
    for back in (revert(ours), revert(convert(ours))):
        assert back.use_nested_tensor == model.use_nested_tensor
        assert back.layers[0].activation_relu_or_gelu == model.layers[0].activation_relu_or_gelu == 1
        assert vars(back).keys() == vars(model).keys()
    assert not ours.use_nested_tensor
