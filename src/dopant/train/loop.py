"""The one training loop: plain SGD with truncated back-propagation through time (Zaremba et al., arXiv 1409.2329).

The loss is the sum over the unroll of the mean over the batch, so that a gradient is `unroll` times that of a mean per
token; the clip applies to that sum. The recurrent state is carried over the mini-batches of an epoch.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dopant.errors import DivergenceError, InputError
from dopant.layers import LSTM, slots
from dopant.ops.cross_entropy import summed_cross_entropy
from dopant.structures import DenseWeight, DopedWeight
from dopant.train.checkpoint import Progress, load_checkpoint, save_checkpoint
from dopant.train.co_matrix_dropout import RowMasks
from dopant.train.log import TrainingLog
from dopant.train.overlay import Annealing, Overlay
from dopant.train.paths import trace_paths
from dopant.train.schedules import learning_rate
from dopant.train.settings import TrainSettings

Validate = Callable[[nn.Module], float]
LOG_EVERY = 50  # steps between two lines of the log


@dataclass(frozen=True)
class Run:
    """What one training run works on, beside the model and the settings.

    Args:
        columns: (steps, batch) int64 token ids, one stream of text a column.
        validate: the validation perplexity of a model, asked once an epoch.
        validate_paths: the same on a sample, asked with either path of doped weights switched off.
        seed: all randomness of the run comes from it and the number of the step.
        folder: where `log.jsonl` and `checkpoint.safetensors` are kept; None keeps nothing.
        fingerprint: tells this run from every other; a checkpoint with another one is refused.
        resume: go on from the folder's checkpoint, if there is one.
        teacher: the dense model to distil from, if the settings ask for it.
        accelerator: an `accelerate.Accelerator` to run on several processes.
    """

    columns: Tensor
    validate: Validate
    validate_paths: Validate | None = None
    seed: int = 0
    folder: Path | None = None
    fingerprint: str = ""
    resume: bool = False
    teacher: nn.Module | None = None
    accelerator: Any = None


@dataclass(frozen=True)
class Result:
    """What a run leaves beside the trained model: per-epoch curves, the paths' traces, seconds, steps."""

    curves: list[dict[str, Any]]
    paths: list[dict[str, Any]]
    seconds: float
    steps: int


def train(model: nn.Module, settings: TrainSettings, run: Run, overlays: list[Overlay]) -> Result:
    """Train a model in place.

    Args:
        model: maps (tokens (time, batch), state) to (logits (time, batch, vocabulary), state).
        settings: how.
        run: on what.
        overlays: the weights to be annealed, as `open_overlays` left them.

    Raises:
        DivergenceError: the loss is no longer finite; the last checkpoint is kept.
        ResumeError: the checkpoint belongs to another run.
        InputError: the text is shorter than one step, or the batch cannot be shared among the processes.
    """
    unroll, device = settings.unroll, next(model.parameters()).device
    columns = _share(run.columns, run.accelerator).to(device)
    steps_per_epoch = (len(columns) - 1) // unroll
    if steps_per_epoch < 1:
        raise InputError(f"{len(columns)} tokens a stream are too few for an unroll of {unroll}; lower batch or unroll")
    steps = steps_per_epoch * settings.epochs
    rate = learning_rate(settings, steps_per_epoch)
    annealing = Annealing(overlays, settings.sparsify, steps)
    row_masks = RowMasks(model, settings.co_matrix_dropout, steps)
    optimiser, multipliers = _optimiser(model, settings)
    for module in model.modules():
        if isinstance(module, LSTM):
            module.contraction = settings.contraction

    checkpoint = None if run.folder is None else run.folder / "checkpoint.safetensors"
    progress, state = Progress(), None
    if run.resume and checkpoint is not None and checkpoint.exists():
        state, progress = load_checkpoint(checkpoint, model, run.fingerprint)
        if state is not None:
            state = (_own_part(state[0], run).to(device), _own_part(state[1], run).to(device))
    main = run.accelerator is None or run.accelerator.is_main_process
    log = TrainingLog(run.folder / "log.jsonl" if run.folder and main else None, progress.log_size)
    forward = model if run.accelerator is None else run.accelerator.prepare_model(model)
    started = time.perf_counter() - progress.seconds

    def keep() -> None:
        progress.log_size = log.size()
        progress.seconds = time.perf_counter() - started
        whole = None if state is None else (_gather(state[0], run), _gather(state[1], run))
        if checkpoint is not None and main:
            save_checkpoint(checkpoint, model, whole, progress, run.fingerprint)

    if progress.step == 0:
        keep()
    while progress.step < steps:
        step = progress.step
        epoch, within = divmod(step, steps_per_epoch)
        if within == 0:
            state = None
        annealing.before_step(step)
        generator = _seeded(run, step)
        inputs, targets = (columns[within * unroll + shift :][:unroll] for shift in (0, 1))
        row_masks.draw(step, generator, (unroll, columns.shape[1]))
        for group, multiplier in zip(optimiser.param_groups, multipliers, strict=True):
            group["lr"] = rate(step) * multiplier

        model.train()
        logits, state = forward(inputs, state)
        state = (state[0].detach(), state[1].detach())
        loss, likelihood = _loss(logits, inputs, targets, settings, run.teacher)
        value = _mean(likelihood, run)
        if not math.isfinite(value):
            log.write("diverged", step=step, loss=str(value))
            log.close()
            raise DivergenceError(
                f"the loss became {value} at step {step} of {steps} (epoch {epoch + 1}); lower the learning rate"
                + (f"; {checkpoint} holds the last good state" if checkpoint else "")
            )
        optimiser.zero_grad(set_to_none=True)
        if run.accelerator is None:
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            run.accelerator.backward(loss)
        if settings.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimiser.step()
        row_masks.clear()

        progress.step += 1
        progress.loss_sum += value
        progress.token_steps += unroll
        if progress.step % LOG_EVERY == 0:
            log.write(
                "step",
                step=progress.step,
                steps=steps,
                epoch=epoch + 1,
                loss=value / unroll,
                learning_rate=rate(step),
                seconds=round(time.perf_counter() - started, 3),
            )
        if settings.trace_every and progress.step % settings.trace_every == 0 and within + 1 < steps_per_epoch:
            _trace(model, run, log, progress.step)
        if within + 1 == steps_per_epoch:
            log.write(
                "epoch",
                epoch=epoch + 1,
                step=progress.step,
                tokens=progress.step * unroll * run.columns.shape[1],
                train_perplexity=_perplexity(progress.loss_sum / max(1, progress.token_steps)),
                valid_perplexity=run.validate(model),
                learning_rate=rate(step),
                seconds=round(time.perf_counter() - started, 3),
            )
            _trace(model, run, log, progress.step)
            progress.loss_sum, progress.token_steps = 0.0, 0
            keep()
        elif settings.checkpoint_every and progress.step % settings.checkpoint_every == 0:
            keep()
    log.close()
    return Result(log.of("epoch"), log.of("paths"), time.perf_counter() - started, steps)


def _perplexity(loss: float) -> float:
    return math.exp(min(loss, 700.0))


def _seeded(run: Run, step: int) -> torch.Generator:
    """The step's generator for masks; dropout draws from torch's own, seeded likewise, apart on each process."""
    rank = 0 if run.accelerator is None else run.accelerator.process_index
    digest = hashlib.sha256(f"{run.seed}/{step}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[8:15], "big") + rank)
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _optimiser(model: nn.Module, settings: TrainSettings) -> tuple[torch.optim.Optimizer, list[float]]:
    """SGD with its groups' learning-rate multipliers: doped factors, other structured factors, all the rest."""
    groups: dict[float, dict[int, nn.Parameter]] = {}
    placed: set[int] = set()

    def place(module: nn.Module, multiplier: float) -> None:
        for parameter in module.parameters():
            if id(parameter) not in placed and parameter.requires_grad:
                placed.add(id(parameter))
                groups.setdefault(multiplier, {})[id(parameter)] = parameter

    for slot in slots(model):
        if isinstance(slot.weight, DopedWeight):
            place(slot.weight.base, settings.factor_learning_rate)
            place(slot.weight.overlay, 1.0)
        elif not isinstance(slot.weight, DenseWeight) and slot.weight.structure.kind != "sparse":
            place(slot.weight, settings.structure_learning_rate)
    place(model, 1.0)
    optimiser = torch.optim.SGD([{"params": list(group.values())} for group in groups.values()], lr=0.0)
    return optimiser, list(groups)


def _loss(
    logits: Tensor, inputs: Tensor, targets: Tensor, settings: TrainSettings, teacher: nn.Module | None
) -> tuple[Tensor, Tensor]:
    """The loss to descend and the likelihood part alone, both summed over the unroll, averaged over the batch."""
    batch, flat = targets.shape[1], logits.flatten(0, 1)
    likelihood = summed_cross_entropy(flat, targets.flatten()) / batch
    if teacher is None or settings.distillation.weight == 0.0:
        return likelihood, likelihood.detach()
    weight, temperature = settings.distillation.weight, settings.distillation.temperature
    with torch.no_grad():
        soft = F.log_softmax(teacher(inputs)[0].flatten(0, 1) / temperature, dim=-1)
    own = F.log_softmax(flat / temperature, dim=-1)
    divergence = F.kl_div(own, soft, reduction="sum", log_target=True) / batch
    return (1.0 - weight) * likelihood + weight * temperature**2 * divergence, likelihood.detach()


def _trace(model: nn.Module, run: Run, log: TrainingLog, step: int) -> None:
    if run.validate_paths is not None and (found := trace_paths(model, run.validate_paths)) is not None:
        log.write("paths", step=step, **found)


def _share(columns: Tensor, accelerator: Any) -> Tensor:
    """This process's streams."""
    if accelerator is None or accelerator.num_processes == 1:
        return columns
    if columns.shape[1] % accelerator.num_processes:
        raise InputError(
            f"a batch of {columns.shape[1]} cannot be shared among {accelerator.num_processes} processes; "
            "choose a batch that their number divides"
        )
    parts = columns.chunk(accelerator.num_processes, dim=1)
    return parts[int(accelerator.process_index)]


def _gather(part: Tensor, run: Run) -> Tensor:
    """The processes' parts (layers, batch, size) as one."""
    if run.accelerator is None:
        return part
    gathered: Tensor = run.accelerator.gather(part.transpose(0, 1).contiguous())
    return gathered.transpose(0, 1)


def _own_part(whole: Tensor, run: Run) -> Tensor:
    """This process's part of what `_gather` put together."""
    if run.accelerator is None:
        return whole
    parts = whole.chunk(run.accelerator.num_processes, dim=1)
    return parts[int(run.accelerator.process_index)]


def _mean(value: Tensor, run: Run) -> float:
    return float(value if run.accelerator is None else run.accelerator.reduce(value, "mean"))
