"""A checkpoint is one safetensors file, replaced as a whole, so that a crash leaves the last one or the new one."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dopant.errors import FileError, ResumeError


@dataclass
class Progress:
    """Where a run stands: what, beside the weights, the next step depends on.

    Randomness needs no state: each step draws from generators seeded by the run's seed and the step's number.
    """

    step: int = 0
    loss_sum: float = 0.0
    token_steps: int = 0
    averaged: int = 0
    log_size: int = 0
    seconds: float = 0.0


State = tuple[Tensor, Tensor]
States = dict[str, State]
"""Recurrent states (h, c) by whose they are: `state` of the model, `teacher` of the model it learns from."""

Means = dict[str, Tensor]
"""Parameters' means over steps, by their names."""

_OWN, _MEAN, _PARTS = "model/", "mean/", ("h", "c")


def save_checkpoint(
    path: Path,
    model: nn.Module,
    states: Mapping[str, State],
    progress: Progress,
    fingerprint: str,
    means: Mapping[str, Tensor] | None = None,
) -> None:
    """Write beside, then rename.

    Raises:
        FileError: the file cannot be written (full disk, no permission); the last checkpoint is untouched.
    """
    tensors = {_OWN + name: tensor.contiguous() for name, tensor in _own(model).items()}
    tensors |= {_MEAN + name: tensor.contiguous() for name, tensor in (means or {}).items()}
    for whose, state in states.items():
        tensors |= {f"{whose}/{part}": tensor.contiguous() for part, tensor in zip(_PARTS, state, strict=True)}
    metadata = {"progress": json.dumps(asdict(progress)), "fingerprint": fingerprint}
    beside = path.with_name(path.name + ".new")
    try:
        save_file(tensors, beside, metadata)
        with beside.open("r+b") as file:  # Windows syncs what may be written
            os.fsync(file.fileno())
        beside.replace(path)
    except (OSError, SafetensorError) as error:
        beside.unlink(missing_ok=True)
        raise FileError(f"the checkpoint {path} could not be written: {error}; free some space and resume") from error


def load_checkpoint(path: Path, model: nn.Module, fingerprint: str) -> tuple[States, Progress, Means]:
    """Put a checkpoint's weights into the model; returns recurrent states, where the run stood, and means.

    Raises:
        ResumeError: the checkpoint is damaged, or belongs to another recipe, model or corpus; the model is then as
            it was.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("fingerprint") != fingerprint:
                raise ResumeError(
                    f"the checkpoint {path} belongs to another recipe, model or corpus; "
                    "resume with what it was made with, or start anew with --force"
                )
            # the file's memory begins at any address, and how a product is rounded depends on that
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
        progress = _progress(json.loads(metadata["progress"]))
        own, means = ({n.removeprefix(p): t for n, t in tensors.items() if n.startswith(p)} for p in (_OWN, _MEAN))
        whose = sorted({name.rpartition("/")[0] for name in tensors if not name.startswith((_OWN, _MEAN))})
        states = {name: (tensors[f"{name}/h"], tensors[f"{name}/c"]) for name in whose}
        _check_means(model, means, progress.averaged)
        _restore(model, own)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ResumeError(f"the checkpoint {path} is damaged ({error}); start anew with --force") from error
    return states, progress, means


def _progress(data: dict[str, Any]) -> Progress:
    data = {"averaged": 0, **data}  # a checkpoint of before there were averages
    for field in fields(Progress):
        value = data[field.name]
        right = type(value) is int or (field.type == "float" and type(value) is float and math.isfinite(value))
        if not right or value < 0:
            raise ValueError(f"its {field.name} is {value!r}")
    return Progress(**data)


def _own(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, each once: tied weights share one."""
    named = dict(model.named_parameters()) | dict(model.named_buffers())
    return {name: tensor.detach() for name, tensor in named.items()}


def _check_means(model: nn.Module, means: Means, count: int) -> None:
    wanted = {name: (p.shape, p.dtype) for name, p in model.named_parameters() if p.requires_grad and count}
    if {name: (mean.shape, mean.dtype) for name, mean in means.items()} != wanted:
        raise ValueError(f"it holds means of {len(means)} weights over {count} steps, which are not those of the model")


def _restore(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    own = _own(model)
    if own.keys() != tensors.keys():
        odd = sorted(own.keys() ^ tensors.keys())
        raise ValueError(f"it holds {len(tensors)} tensors, the model {len(own)}; only one of them has {odd[0]}")
    for name, tensor in own.items():
        theirs = tensors[name]
        if (tensor.shape, tensor.dtype) != (theirs.shape, theirs.dtype):
            raise ValueError(
                f"{name} is {theirs.dtype} {tuple(theirs.shape)}, the model's {tensor.dtype} {tuple(tensor.shape)}"
            )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
