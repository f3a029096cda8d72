"""The native kernels behind torch layers, for models that stay in torch."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import CDLL
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from dopant.errors import InputError
from dopant.layers import LSTM, Embedding, Linear
from dopant.layers.lstm import State
from dopant.native.library import library
from dopant.runtime.packed import PackedWeight, Packer, Precision, check_precision
from dopant.runtime.packed_lstm import PackedLSTM
from dopant.structures.base import checked_index

M = TypeVar("M", bound=nn.Module)
Packed = TypeVar("Packed")


def accelerate(model: M, *, precision: Precision = "exact") -> M:
    """Let the native kernels serve the `Linear`, `Embedding` and `LSTM` layers of a model while it runs.

    They do so in `eval()` without gradients, on float32 tensors of the CPU; in training, and for packed sequences, the
    layers compute as before. A layer whose parameters have changed is packed again at its next call. Nothing is ever
    formed dense. Where there is no native library the model stays as it is, and `dopant env` says why.

    Args:
        model: changed in place, and returned.
        precision: see `Runtime`.

    Raises:
        InputError: an unknown precision.
    """
    check_precision(precision)
    native = library()
    if native is None:
        return model
    for layer in model.modules():
        if isinstance(layer, Linear):
            layer.kernel = _LinearKernel(layer, native, precision)
        elif isinstance(layer, Embedding):
            layer.kernel = _EmbeddingKernel(layer, native)
        elif isinstance(layer, LSTM):
            layer.kernel = _LSTMKernel(layer, native, precision)
    return model


class _Fresh(Generic[Packed]):
    """Something made of a layer's parameters, and made again when they have changed."""

    def __init__(self, layer: nn.Module, make: Callable[[], Packed]) -> None:
        self.layer = layer
        self.make = make
        self.seen: list[tuple[int, int, int]] = []
        self.made: Packed | None = None

    def get(self) -> Packed:
        now = [(id(t), t._version, t.data_ptr()) for t in (*self.layer.parameters(), *self.layer.buffers())]
        if self.made is None or now != self.seen:
            self.made, self.seen = self.make(), now
        return self.made


class _LinearKernel:
    def __init__(self, layer: Linear, native: CDLL, precision: Precision) -> None:
        self.layer = layer
        self.packed = _Fresh(layer, lambda: PackedWeight(layer.weight, Packer(native, precision)))

    def __call__(self, x: Tensor) -> Tensor:
        layer = self.layer
        if x.shape[-1] != layer.in_features:
            raise InputError(f"the layer takes {layer.in_features} inputs, got {x.shape[-1]}: {tuple(x.shape)}")
        bias = None if layer.bias is None else layer.bias.detach().float().numpy()
        rows = x.reshape(-1, layer.in_features).contiguous().numpy()
        return torch.from_numpy(self.packed.get().linear(rows, bias)).view(*x.shape[:-1], layer.out_features)


class _EmbeddingKernel:
    def __init__(self, layer: Embedding, native: CDLL) -> None:
        self.layer = layer
        self.packed = _Fresh(layer, lambda: PackedWeight(layer.weight, Packer(native, "exact", lookup=True)))

    def __call__(self, index: Tensor) -> Tensor:
        flat = checked_index(index, self.layer.num_embeddings).contiguous()
        return torch.from_numpy(self.packed.get().rows(flat.numpy())).view(*index.shape, self.layer.embedding_dim)


class _LSTMKernel:
    def __init__(self, layer: LSTM, native: CDLL, precision: Precision) -> None:
        self.layer = layer
        self.packed = _Fresh(layer, lambda: PackedLSTM(layer, native, precision))

    def __call__(self, x: Tensor, hx: State | None) -> tuple[Tensor, State]:
        layer = self.layer
        if x.dim() not in (2, 3):
            raise InputError(f"an LSTM needs a 2-D or 3-D input, got shape {tuple(x.shape)}")
        if x.shape[-1] != layer.input_size:
            raise InputError(f"the LSTM takes {layer.input_size} inputs, got {x.shape[-1]}: {tuple(x.shape)}")
        lstm = self.packed.get()
        steps = x.unsqueeze(1) if x.dim() == 2 else x.transpose(0, 1) if layer.batch_first else x
        if x.dim() == 2 and hx is not None:
            hx = (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
        h0, c0 = layer._initial(steps, hx)
        y, state = lstm.sequence(steps.contiguous().numpy(), lstm.state(h0.numpy(), c0.numpy()))
        output = torch.from_numpy(y)
        h, c = (torch.from_numpy(part) for part in state.arrays())
        if x.dim() == 2:
            return output.squeeze(1), (h.squeeze(1), c.squeeze(1))
        return (output.transpose(0, 1) if layer.batch_first else output), (h, c)
