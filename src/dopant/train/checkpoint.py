"""A checkpoint is one safetensors file, replaced as a whole, so that a crash leaves the last one or the new one."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

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
    log_size: int = 0
    seconds: float = 0.0


State = tuple[Tensor, Tensor]


def save_checkpoint(path: Path, model: nn.Module, state: State | None, progress: Progress, fingerprint: str) -> None:
    """Write beside, then rename.

    Raises:
        FileError: the file cannot be written (full disk, no permission); the last checkpoint is untouched.
    """
    tensors = {f"model/{name}": tensor.contiguous() for name, tensor in _own(model).items()}
    if state is not None:
        tensors |= {"state/h": state[0].contiguous(), "state/c": state[1].contiguous()}
    metadata = {"progress": json.dumps(asdict(progress)), "fingerprint": fingerprint}
    beside = path.with_name(path.name + ".new")
    try:
        save_file(tensors, beside, metadata)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except (OSError, SafetensorError) as error:
        beside.unlink(missing_ok=True)
        raise FileError(f"the checkpoint {path} could not be written: {error}; free some space and resume") from error


def load_checkpoint(path: Path, model: nn.Module, fingerprint: str) -> tuple[State | None, Progress]:
    """Put a checkpoint's weights into the model; returns the recurrent state and where the run stood.

    Raises:
        ResumeError: the checkpoint is damaged, or belongs to another recipe, model or corpus.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("fingerprint") != fingerprint:
                raise ResumeError(
                    f"the checkpoint {path} belongs to another recipe, model or corpus; "
                    "resume with what it was made with, or start anew with --force"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        progress = Progress(**json.loads(metadata["progress"]))
        weights = {name.removeprefix("model/"): t for name, t in tensors.items() if name.startswith("model/")}
        _restore(model, weights)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ResumeError(f"the checkpoint {path} is damaged ({error}); start anew with --force") from error
    state = (tensors["state/h"], tensors["state/c"]) if "state/h" in tensors else None
    return state, progress


def _own(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, each once: tied weights share one."""
    named = dict(model.named_parameters()) | dict(model.named_buffers())
    return {name: tensor.detach() for name, tensor in named.items()}


def _restore(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    own = _own(model)
    if own.keys() != tensors.keys():
        raise ValueError(f"it holds {len(tensors)} tensors, the model {len(own)}, and their names differ")
    with torch.no_grad():
        for name, tensor in own.items():
            if tensor.shape != tensors[name].shape:
                raise ValueError(f"{name} is {tuple(tensors[name].shape)}, the model's {tuple(tensor.shape)}")
            tensor.copy_(tensors[name])
