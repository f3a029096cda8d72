"""The native kernels behind torch layers, for models that stay in torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from ctypes import CDLL
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from dopant.errors import InputError
from dopant.layers import LSTM, Embedding, Linear
from dopant.layers.lstm import State
from dopant.native.library import library
from dopant.runtime.handle import Floats
from dopant.runtime.packed import PackedWeight, Packer, Precision, check_precision, own_bias
from dopant.runtime.packed_lstm import PackedLSTM
from dopant.structures.base import checked_index

M = TypeVar("M", bound=nn.Module)
L = TypeVar("L", bound=nn.Module)
P = TypeVar("P")
_Seen = tuple[Tensor, int, int]
"""A tensor that was packed, its version and its address then."""


def accelerate(model: M, *, precision: Precision = "exact") -> M:
    """Let the native kernels serve the `Linear`, `Embedding` and `LSTM` layers of a model while it runs.

    They do so in `eval()` without gradients, on plain float32 tensors of the CPU; in training, for packed sequences and
    where torch compiles, exports or transforms the model, the layers compute as before. A layer whose parameters have
    changed is packed again at its next call (a change behind torch's back, through `parameter.data`, is not seen;
    parameters made in `torch.inference_mode()` tell of none, so such a layer stays torch's). Subclasses of the layers
    are left alone: they may compute something else. Nothing is ever formed dense. Where there is no native library the
    model stays as it is, and `dopant env` says why. `layer.kernel = None` takes a kernel off again.

    Args:
        model: changed in place, and returned.
        precision: see `Runtime`.

    Raises:
        InputError: an unknown precision, or a model without a layer of dopant's.
    """
    check_precision(precision)
    ours = (layer for layer in model.modules() if isinstance(layer, (Linear, Embedding, LSTM)))
    layers = [layer for layer in ours if type(layer) in _KERNELS]
    if not layers:
        raise InputError("the model has no layer of dopant's; turn torch's into them first: dopant.convert(model)")
    native = library()
    if native is not None:
        for layer in layers:
            layer.kernel = _KERNELS[type(layer)](native, precision)
    return model


def _nothing() -> None:
    """What a kernel is after unpickling: the layer computes as torch does."""


class _Kernel(ABC, Generic[L, P]):
    """Something packed of a layer's parameters, and packed again when they have changed.

    It holds no layer: that would be a ring, which waits for the garbage collector, and a shallow copy of the layer
    would compute with the parameters of the first.
    """

    def __init__(self, native: CDLL, precision: Precision) -> None:
        self.native = native
        self.precision: Precision = precision
        self.kept: tuple[P, list[_Seen]] | None = None

    @abstractmethod
    def pack(self, layer: L) -> P:
        """Pack a layer as it is."""

    @abstractmethod
    def __call__(self, layer: L, *inputs: Any) -> Any:
        """As the layer's forward."""

    def packed(self, layer: L) -> P:
        """What is packed, of the parameters as they are now."""
        tensors, kept = [*layer.parameters(), *layer.buffers()], self.kept
        if kept is None or len(tensors) != len(kept[1]) or any(map(_changed, tensors, kept[1])):
            seen = [(tensor, _version(tensor), tensor.data_ptr()) for tensor in tensors]  # first: packing takes a while
            kept = self.kept = (self.pack(layer), seen)
        return kept[0]

    def __deepcopy__(self, memo: dict[int, Any]) -> _Kernel[L, P]:
        return type(self)(self.native, self.precision)

    def __reduce__(self) -> Any:
        return _nothing, ()


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _changed(tensor: Tensor, seen: _Seen) -> bool:
    version = _version(tensor)
    return seen[0] is not tensor or version < 0 or seen[1] != version or seen[2] != tensor.data_ptr()


class _LinearKernel(_Kernel[Linear, tuple[PackedWeight, Floats | None]]):
    def pack(self, layer: Linear) -> tuple[PackedWeight, Floats | None]:
        weight = PackedWeight(
            layer.weight, Packer(self.native, self.precision), (layer.out_features, layer.in_features)
        )
        return weight, own_bias(layer.bias, layer.out_features)

    def __call__(self, layer: Linear, x: Tensor) -> Tensor:
        if x.shape[-1] != layer.in_features:
            raise InputError(f"the layer takes {layer.in_features} inputs, got {x.shape[-1]}: {tuple(x.shape)}")
        weight, bias = self.packed(layer)
        y = weight.linear(x.detach().reshape(-1, layer.in_features).contiguous().numpy(), bias)
        return torch.from_numpy(y).view(*x.shape[:-1], layer.out_features)


class _EmbeddingKernel(_Kernel[Embedding, PackedWeight]):
    def pack(self, layer: Embedding) -> PackedWeight:
        shape = (layer.num_embeddings, layer.embedding_dim)
        return PackedWeight(layer.weight, Packer(self.native, "exact", lookup=True), shape)

    def __call__(self, layer: Embedding, index: Tensor) -> Tensor:
        flat = checked_index(index, layer.num_embeddings).contiguous()
        return torch.from_numpy(self.packed(layer).rows(flat.numpy())).view(*index.shape, layer.embedding_dim)


class _LSTMKernel(_Kernel[LSTM, PackedLSTM]):
    def pack(self, layer: LSTM) -> PackedLSTM:
        return PackedLSTM(layer, self.native, self.precision)

    def __call__(self, layer: LSTM, x: Tensor, hx: State | None) -> tuple[Tensor, State]:
        """x (time, batch, in), as `LSTM` runs it after the forms of input that it takes."""
        lstm = self.packed(layer)
        h0, c0 = layer._initial(x, hx)
        y, state = lstm.sequence(x.detach().contiguous().numpy(), lstm.state(h0.detach().numpy(), c0.detach().numpy()))
        h, c = state.arrays()
        return torch.from_numpy(y), (torch.from_numpy(h), torch.from_numpy(c))


_KERNELS: dict[type[nn.Module], type[_Kernel[Any, Any]]] = {
    Linear: _LinearKernel,
    Embedding: _EmbeddingKernel,
    LSTM: _LSTMKernel,
}
