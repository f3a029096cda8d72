"""torch's layers into ours and back, function and bias kept exactly."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection

import torch
from torch import Tensor, nn

from dopant.errors import InputError
from dopant.layers.embedding import Embedding
from dopant.layers.linear import Linear
from dopant.layers.lstm import LSTM
from dopant.structures import DenseWeight, StructuredWeight

CONVERTED = (nn.Linear, nn.Embedding, nn.LSTM)
"""torch's layers that become ours."""


def convert(model: nn.Module, *, joint: bool = True, ignore: Collection[str] = ()) -> nn.Module:
    """A copy of a model in which every nn.Linear, nn.Embedding and nn.LSTM is ours, with dense weights.

    Subclasses of torch's layers are left alone: they may compute something else. Tied parameters stay tied, frozen ones
    frozen. In evaluation torch's Transformers no longer take their fast path, which knows tensors only. The `weight` of
    a layer of ours is no tensor: code that computes with it, such as `F.linear(h, self.embedding.weight)`, must say
    `self.embedding.weight.linear(h)` (or `.to_dense()` for the matrix).

    Args:
        model: any module; it is not changed.
        joint: keep the input and the state matrix of an LSTM layer as one, [x; h].
        ignore: dotted names of layers to leave as they are; a layer of several names by any of them.

    Raises:
        InputError: the model cannot be copied; a layer uses an option that ours lack, has hooks, or is compiled by
            itself; a parameter has hooks; parameters that are to become one are tied to others, or only one of them is
            frozen; or a name in `ignore` is not there.
    """
    names = dict(model.named_modules(remove_duplicate=False))
    if missing := [name for name in ignore if name not in names]:
        raise InputError(
            f"no layer is called {missing[0]!r}; the model has {', '.join(sorted(filter(None, names)))[:300]}"
        )
    _refuse(model, _kept(model, ignore))
    model = _copied(model)
    shared: dict[int, DenseWeight] = {}
    tied = _tied(model)
    kept = _kept(model, ignore)
    done: dict[int, nn.Module] = {}

    def visit(module: nn.Module, name: str) -> nn.Module:
        if module in kept:
            return module
        if id(module) not in done:
            ours = (
                _our_lstm(module, name, joint, shared, tied) if type(module) is nn.LSTM else _ours(module, name, shared)
            )
            done[id(module)] = module if ours is None else ours
            if ours is None:
                for child, part in list(module._modules.items()):
                    if part is not None:
                        module._modules[child] = visit(part, f"{name}.{child}" if name else child)
                _leave_fast_path(module)
            else:
                ours.train(module.training)
        return done[id(module)]

    return visit(model, "")


def revert(model: nn.Module) -> nn.Module:
    """A copy of a model in which each of our layers is torch's again, its weight formed.

    Where an embedding's row for padding counts as zeros it becomes zeros, in a layer that is tied to it too.
    """
    model = _copied(model)
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
                _take_fast_path(module)
        return done[id(module)]

    return visit(model)


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:  # torch's, of a tensor that was computed; Python's, of an open file
        raise InputError(
            f"the model cannot be copied ({str(error).partition('. ')[0]}); take out of it what it has computed, or "
            "what cannot be pickled, and do it again"
        ) from error


def _tied(model: nn.Module) -> set[int]:
    """The parameters that stand in more than one place."""
    uses = Counter(id(parameter) for module in model.modules() for parameter in module._parameters.values())
    return {parameter for parameter, count in uses.items() if count > 1}


def _leave_fast_path(module: nn.Module) -> None:
    """Have torch's Transformers compute with their layers; `_take_fast_path` finds the old settings beside."""
    for kind, name in _FAST_PATHS:
        if isinstance(module, kind) and any(isinstance(part, Linear) for part in module.modules()):
            vars(module).setdefault(_BEFORE + name, getattr(module, name))
            setattr(module, name, 0)  # False, where it is a bool


def _take_fast_path(module: nn.Module) -> None:
    for _, name in _FAST_PATHS:
        if _BEFORE + name in vars(module):
            setattr(module, name, vars(module).pop(_BEFORE + name))


_FAST_PATHS = ((nn.TransformerEncoderLayer, "activation_relu_or_gelu"), (nn.TransformerEncoder, "use_nested_tensor"))
_BEFORE = "_before_conversion_"


def _ours(module: nn.Module, name: str, shared: dict[int, DenseWeight]) -> nn.Module | None:
    if type(module) is nn.Linear:
        linear = Linear(1, 1, bias=False, weight=_dense(module.weight, shared))  # a bias would be drawn at random
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
    return None


def _kept(model: nn.Module, ignore: Collection[str]) -> set[nn.Module]:
    """Modules that stay as they are, with all that is in them, whatever other names they have."""
    return {module for name in ignore for module in model.get_submodule(name).modules()}


def _refuse(model: nn.Module, kept: set[nn.Module]) -> None:
    """Raise InputError for what would be lost in silence: hooks, in which torch's weight_norm and pruning compute the
    weight, and a compiled layer, whose forward is bound to the layer that it was made of.
    """
    for name, module in model.named_modules():
        if type(module) in CONVERTED and module not in kept and any(map(vars(module).get, _HOOKS)):
            raise InputError(
                f"{type(module).__name__} {name!r} has hooks, which conversion would lose; remove them first (as with "
                f"torch.nn.utils.remove_weight_norm), or leave the layer as it is with ignore=[{name!r}]"
            )
        compiled = module._modules.get("_orig_mod")
        if type(compiled) in CONVERTED and compiled not in kept:
            raise InputError(
                f"{type(compiled).__name__} {name!r} is compiled, and would go on computing with the layer it was made "
                "of; convert first and compile then: torch.compile(dopant.convert(layer))"
            )
    for name, parameter in model.named_parameters():
        if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
            raise InputError(
                f"parameter {name!r} has hooks, which no copy of the model keeps; remove them first, and register them "
                "on the converted model"
            )


_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


def _dense(parameter: Tensor, shared: dict[int, DenseWeight]) -> DenseWeight:
    weight = shared.get(id(parameter))
    if weight is None:
        weight = shared[id(parameter)] = DenseWeight(parameter.detach())
        if isinstance(parameter, nn.Parameter):
            weight.matrix = parameter  # itself: a layer that is left as it is may have it too
    return weight


def _our_lstm(module: nn.LSTM, name: str, joint: bool, shared: dict[int, DenseWeight], tied: set[int]) -> LSTM:
    def merged(*kinds: str) -> list[Tensor]:
        parts: list[Tensor] = [module.get_parameter(kind) for kind in kinds]
        if any(id(part) in tied for part in parts):
            raise InputError(
                f"{' and '.join(kinds)} of LSTM {name!r} would become one, but a parameter of another place is tied to "
                f"them; leave the layer as it is with ignore=[{name!r}], or keep its matrices apart with joint=False"
            )
        return parts

    options = {name: getattr(module, name) for name in _LSTM_OPTIONS}
    with torch.device("meta"):
        lstm = LSTM(**options, joint=joint)
    for suffix in _suffixes(lstm):
        if joint:
            ih, hh = merged("weight_ih" + suffix, "weight_hh" + suffix)
            if ih.requires_grad != hh.requires_grad:
                raise InputError(
                    f"one of weight_ih{suffix} and weight_hh{suffix} of LSTM {name!r} is frozen, and they would become "
                    "one; keep them apart with joint=False, or freeze both or neither"
                )
            matrix = nn.Parameter(torch.cat([ih, hh], dim=1).detach(), requires_grad=ih.requires_grad)
            setattr(lstm, "weight" + suffix, _dense(matrix, shared))
        kinds = () if joint else ("weight_ih", "weight_hh")
        for kind in (*kinds, "weight_hr") if module.proj_size else kinds:
            setattr(lstm, kind + suffix, _dense(module.get_parameter(kind + suffix), shared))
        if module.bias:
            first, second = merged("bias_ih" + suffix, "bias_hh" + suffix)
            trained = first.requires_grad or second.requires_grad  # either moves their sum
            setattr(lstm, "bias" + suffix, nn.Parameter((first + second).detach(), requires_grad=trained))
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
        if module.zeroes_padding:
            with torch.no_grad():
                embedding.weight[module.padding_idx] = 0.0
        return embedding
    if isinstance(module, LSTM):
        return _their_lstm(module, shared)
    return None


def _formed(weight: StructuredWeight, shared: dict[int, nn.Parameter]) -> nn.Parameter:
    if id(weight) not in shared:
        shared[id(weight)] = _parameter(weight.to_dense(), weight)
    return shared[id(weight)]


def _parameter(matrix: Tensor, weight: StructuredWeight) -> nn.Parameter:
    trained = any(parameter.requires_grad for parameter in weight.parameters())
    return nn.Parameter(matrix.detach().clone(memory_format=torch.contiguous_format), requires_grad=trained)


def _their_lstm(module: LSTM, shared: dict[int, nn.Parameter]) -> nn.LSTM:
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
            setattr(lstm, kind + suffix, _formed(module._weight(kind + suffix), shared))
        if module.bias:
            bias = module.get_parameter("bias" + suffix)
            for name, value in (("bias_ih", bias.detach().clone()), ("bias_hh", torch.zeros_like(bias))):
                setattr(lstm, name + suffix, nn.Parameter(value, requires_grad=bias.requires_grad))
    return lstm
