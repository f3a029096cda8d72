"""torch's layers into ours and back, function and bias kept exactly."""

from __future__ import annotations

import copy
from collections.abc import Collection

import torch
from torch import Tensor, nn

from dopant.errors import InputError
from dopant.layers.embedding import Embedding
from dopant.layers.linear import Linear
from dopant.layers.lstm import LSTM
from dopant.structures import DenseWeight, StructuredWeight


def convert(model: nn.Module, *, joint: bool = True, ignore: Collection[str] = ()) -> nn.Module:
    """A copy of a model in which every nn.Linear, nn.Embedding and nn.LSTM is ours, with dense weights.

    Subclasses of torch's layers are left alone: they may compute something else. Tied parameters stay tied.

    Args:
        model: any module; it is not changed.
        joint: keep the input and the state matrix of an LSTM layer as one, [x; h].
        ignore: dotted names of layers to leave as they are.

    Raises:
        InputError: a layer uses an option that ours lack, or has hooks, or a name in `ignore` is not there.
    """
    names = {name for name, _ in model.named_modules()}
    if missing := [name for name in ignore if name not in names]:
        raise InputError(f"no layer is called {missing[0]!r}; the model has {', '.join(sorted(names - {''}))[:300]}")
    _refuse_hooks(model, ignore)
    model = copy.deepcopy(model)
    shared: dict[int, DenseWeight] = {}
    done: dict[int, nn.Module] = {}

    def visit(module: nn.Module, name: str) -> nn.Module:
        if name in ignore:
            return module
        if id(module) not in done:
            ours = _ours(module, name, joint, shared)
            done[id(module)] = module if ours is None else ours
            if ours is None:
                for child, part in list(module._modules.items()):
                    if part is not None:
                        module._modules[child] = visit(part, f"{name}.{child}" if name else child)
            else:
                ours.train(module.training)
        return done[id(module)]

    return visit(model, "")


def revert(model: nn.Module) -> nn.Module:
    """A copy of a model in which each of our layers is torch's again, its weight formed."""
    model = copy.deepcopy(model)
    shared: dict[int, nn.Parameter] = {}
    done: dict[int, nn.Module] = {}

    def visit(module: nn.Module) -> nn.Module:
        if id(module) not in done:
            theirs = _theirs(module, shared)
            done[id(module)] = module if theirs is None else theirs.train(module.training)
            if theirs is None:
                for child, part in list(module._modules.items()):
                    if part is not None:
                        module._modules[child] = visit(part)
        return done[id(module)]

    return visit(model)


def _ours(module: nn.Module, name: str, joint: bool, shared: dict[int, DenseWeight]) -> nn.Module | None:
    if type(module) is nn.Linear:
        linear = Linear(1, 1, weight=_dense(module.weight, shared))
        linear.in_features, linear.out_features = module.in_features, module.out_features
        linear.bias = module.bias
        return linear
    if type(module) is nn.Embedding:
        odd = [o for o in ("max_norm", "scale_grad_by_freq", "sparse") if getattr(module, o) not in (None, False)]
        if odd:
            raise InputError(
                f"embedding {name!r} uses {odd[0]}, which a structured weight cannot follow; "
                f"leave it as it is with ignore=[{name!r}]"
            )
        weight = _dense(module.weight, shared)
        return Embedding(module.num_embeddings, module.embedding_dim, module.padding_idx, weight=weight)
    if type(module) is nn.LSTM:
        return _our_lstm(module, joint)
    return None


def _refuse_hooks(model: nn.Module, ignore: Collection[str]) -> None:
    """A hook would be lost, and with it what it does: torch's weight_norm and pruning compute the weight in one."""
    for name, module in model.named_modules():
        if type(module) not in (nn.Linear, nn.Embedding, nn.LSTM) or not any(map(vars(module).get, _HOOKS)):
            continue
        if not any(name == kept or name.startswith(f"{kept}.") for kept in ignore):
            raise InputError(
                f"{type(module).__name__} {name!r} has hooks, which conversion would lose; remove them first (as with "
                f"torch.nn.utils.remove_weight_norm), or leave the layer as it is with ignore=[{name!r}]"
            )


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _dense(parameter: Tensor, shared: dict[int, DenseWeight]) -> DenseWeight:
    weight = shared.get(id(parameter))
    if weight is None:
        weight = shared[id(parameter)] = DenseWeight(parameter.detach())
        weight.matrix.requires_grad_(parameter.requires_grad)
    return weight


def _our_lstm(module: nn.LSTM, joint: bool) -> LSTM:
    options = {name: getattr(module, name) for name in _LSTM_OPTIONS}
    with torch.device("meta"):
        lstm = LSTM(**options, joint=joint)
    for suffix in _suffixes(lstm):
        ih, hh = (module.get_parameter(kind + suffix) for kind in ("weight_ih", "weight_hh"))
        matrices = {"weight": torch.cat([ih, hh], dim=1)} if joint else {"weight_ih": ih, "weight_hh": hh}
        if module.proj_size:
            matrices["weight_hr"] = module.get_parameter("weight_hr" + suffix)
        for kind, matrix in matrices.items():
            weight = DenseWeight(matrix.detach().clone())
            weight.matrix.requires_grad_(ih.requires_grad)
            setattr(lstm, kind + suffix, weight)
        if module.bias:
            biases = [module.get_parameter(kind + suffix) for kind in ("bias_ih", "bias_hh")]
            setattr(
                lstm,
                "bias" + suffix,
                nn.Parameter((biases[0] + biases[1]).detach(), requires_grad=biases[0].requires_grad),
            )
    return lstm


_LSTM_OPTIONS = (
    "input_size",
    "hidden_size",
    "num_layers",
    "bias",
    "batch_first",
    "dropout",
    "bidirectional",
    "proj_size",
)


def _suffixes(lstm: LSTM) -> list[str]:
    return [suffix for layer in range(lstm.num_layers) for suffix in lstm._suffixes(layer)]


def _theirs(module: nn.Module, shared: dict[int, nn.Parameter]) -> nn.Module | None:
    if isinstance(module, Linear):
        with torch.device("meta"):
            linear = nn.Linear(module.in_features, module.out_features, module.bias is not None)
        linear.weight = _formed(module.weight, shared)
        if module.bias is not None:
            linear.bias = module.bias
        return linear
    if isinstance(module, Embedding):
        rows, columns = module.num_embeddings, module.embedding_dim
        blank = torch.empty(rows, columns, device="meta")  # without it torch draws random numbers for nothing
        embedding = nn.Embedding(rows, columns, module.padding_idx, _weight=blank)
        embedding.weight = _formed(module.weight, shared)
        return embedding
    if isinstance(module, LSTM):
        return _their_lstm(module)
    return None


def _formed(weight: StructuredWeight, shared: dict[int, nn.Parameter]) -> nn.Parameter:
    if id(weight) not in shared:
        shared[id(weight)] = _parameter(weight.to_dense(), weight)
    return shared[id(weight)]


def _parameter(matrix: Tensor, weight: StructuredWeight) -> nn.Parameter:
    trained = any(parameter.requires_grad for parameter in weight.parameters())
    return nn.Parameter(matrix.detach().clone(memory_format=torch.contiguous_format), requires_grad=trained)


def _their_lstm(module: LSTM) -> nn.LSTM:
    with torch.device("meta"):
        lstm = nn.LSTM(**{name: getattr(module, name) for name in _LSTM_OPTIONS})
    for suffix in _suffixes(module):
        if module.joint:
            weight = module._weight("weight" + suffix)
            columns = [weight.shape[1] - module.output_size, module.output_size]
            parts = torch.split(weight.to_dense(), columns, dim=1)
            for kind, part in zip(("weight_ih", "weight_hh"), parts, strict=True):
                setattr(lstm, kind + suffix, _parameter(part, weight))
        kinds = () if module.joint else ("weight_ih", "weight_hh")
        for kind in (*kinds, "weight_hr") if module.proj_size else kinds:
            weight = module._weight(kind + suffix)
            setattr(lstm, kind + suffix, _parameter(weight.to_dense(), weight))
        if module.bias:
            bias = module.get_parameter("bias" + suffix)
            for name, value in (("bias_ih", bias.detach().clone()), ("bias_hh", torch.zeros_like(bias))):
                setattr(lstm, name + suffix, nn.Parameter(value, requires_grad=bias.requires_grad))
    return lstm
