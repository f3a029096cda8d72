"""torch on the dense model: nn.LSTM in float32, and torch's dynamic 8-bit quantisation."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from dopant.benchmarking.engine import Bind, Engine, Run
from dopant.benchmarking.record import Part
from dopant.benchmarking.subject import Array, Subject


def _run(module: nn.Module, subject: Subject) -> Bind:
    def bind(x: Array) -> Run:
        given = torch.from_numpy(x)
        h, c = (torch.from_numpy(part) for part in subject.zeros(x.shape[1]))

        def run() -> Tensor:
            with torch.inference_mode():
                output: Tensor = module(given, (h, c))[0]
                return output

        return run

    return bind


def _module(subject: Subject, part: Part) -> nn.Module:
    return subject.dense_lstm if part == "lstm" else subject.dense


def _dense(subject: Subject, part: Part, threads: int) -> Bind:
    return _run(_module(subject, part), subject)


def _int8(subject: Subject, part: Part, threads: int) -> Bind:
    return _run(quantised(_module(subject, part)), subject)


class _Whole(nn.Module):
    """`quantize_dynamic` changes what is inside a module, never the module itself."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *given: Any) -> Any:
        return self.module(*given)


def quantised(module: nn.Module) -> nn.Module:
    """A copy whose nn.LSTM and nn.Linear have 8-bit weights; activations are quantised at each call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao is deprecated; it is what users have today
        made: nn.Module = torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
            _Whole(copy.deepcopy(module)), {nn.LSTM, nn.Linear}, dtype=torch.qint8
        )
    return made


TORCH = Engine("torch", "float32", _dense, close=True)
TORCH_INT8 = Engine("torch-int8", "int8", _int8, close=False)
