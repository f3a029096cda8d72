"""The one training loop: plain SGD with truncated back-propagation through time (Zaremba et al., arXiv 1409.2329).

The loss is the sum over the unroll of the mean over the batch, so that a gradient is `unroll` times that of a mean per
token; the clip applies to that sum. The recurrent state is carried over the mini-batches of an epoch.
"""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dopant.errors import DivergenceError, InputError
from dopant.layers import LSTM
from dopant.ops.precision import matrix_products
from dopant.training.average import Average
from dopant.training.checkpoint import Means, Progress, State, States, load_checkpoint, save_checkpoint
from dopant.training.co_matrix_dropout import RowMasks
from dopant.training.descent import Descent
from dopant.training.graph import EAGER_STEPS, RecordedStep, can_record
from dopant.training.log import TrainingLog
from dopant.training.loss import training_loss
from dopant.training.overlay import Annealing, Overlay
from dopant.training.paths import trace_paths
from dopant.training.processes import Processes
from dopant.training.schedules import learning_rate
from dopant.training.settings import TrainSettings

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
        DivergenceError: the loss is no longer finite; the last checkpoint, from which it still was, is kept.
        ResumeError: the checkpoint belongs to another run, or it or the log is damaged.
        FileError: the log or a checkpoint cannot be written.
        InputError: the text is shorter than one step, or the batch cannot be shared among the processes.
    """
    for module in model.modules():
        if isinstance(module, LSTM):
            module.contraction = settings.contraction
    training = _Training(model, settings, run, overlays)
    try:
        with matrix_products(training.device, tf32=settings.tf32):
            training.go()
        training.average.put()
    finally:
        training.row_masks.clear()
        training.log.close()
    return Result(training.log.of("epoch"), training.log.of("paths"), training.seconds(), training.steps)


class _Training:
    """One call of `train`: what its steps share."""

    def __init__(self, model: nn.Module, settings: TrainSettings, run: Run, overlays: list[Overlay]) -> None:
        self.model, self.settings, self.run = model, settings, run
        self.processes = Processes(run.accelerator)
        self.streams = self.processes.streams(run.columns.shape[1])
        device = next(model.parameters()).device if run.accelerator is None else run.accelerator.device
        self.device = torch.device(device)
        model.to(device)
        self.teacher = None if settings.distillation.weight == 0.0 else run.teacher
        if self.teacher is not None:
            self.teacher.to(device).eval()
        self.columns = run.columns[:, self.streams].to(device)
        self.steps_per_epoch = (len(self.columns) - 1) // settings.unroll
        if self.steps_per_epoch < 1:
            raise InputError(
                f"{len(self.columns)} tokens a stream are too few for an unroll of {settings.unroll}; "
                "lower batch or unroll"
            )
        self.steps = self.steps_per_epoch * settings.epochs
        self.rate = learning_rate(settings, self.steps_per_epoch)
        self.annealing = Annealing(overlays, settings.sparsify, self.steps)
        self.row_masks = RowMasks(model, settings.co_matrix_dropout, self.steps)
        self.descent = Descent(model, settings)

        self.checkpoint = None if run.folder is None else run.folder / "checkpoint.safetensors"
        self.progress, self.states, means = Progress(), States(), Means()
        if run.resume and self.checkpoint is not None and self.checkpoint.exists():
            states, self.progress, means = load_checkpoint(self.checkpoint, model, run.fingerprint)
            self.states = {
                whose: (h[:, self.streams].to(device), c[:, self.streams].to(device))
                for whose, (h, c) in states.items()
            }
        self.average = Average(model, settings.average_from * self.steps, means, self.progress.averaged)
        kept = run.folder / "log.jsonl" if run.folder is not None and self.processes.main else None
        self.log = TrainingLog(kept, self.progress.log_size)
        self.forward = self.processes.wrapped(model)
        self.first_step = self.progress.step
        self.recorded: RecordedStep | None = None
        if settings.cuda_graph and run.accelerator is None and can_record(device):
            self.recorded = RecordedStep(model, settings, self.descent, self.row_masks, self.teacher)
        self.started = time.perf_counter() - self.progress.seconds

    def go(self) -> None:
        """All steps that are left."""
        while self.progress.step < self.steps:
            epoch, within = divmod(self.progress.step, self.steps_per_epoch)
            self._step(epoch, within)
            if within + 1 == self.steps_per_epoch:
                self._end_epoch(epoch)
            elif self.settings.trace_every and self.progress.step % self.settings.trace_every == 0:
                self._trace()

    def seconds(self) -> float:
        """Of training, those before a resume included."""
        return time.perf_counter() - self.started

    def _step(self, epoch: int, within: int) -> None:
        step, unroll = self.progress.step, self.settings.unroll
        if within == 0:
            self.states = {}
        self.annealing.before_step(step)
        generator = _seeded(self.run, step, self.processes.rank)
        inputs, targets = (self.columns[within * unroll + shift :][:unroll] for shift in (0, 1))
        self.row_masks.draw(step, generator, (unroll, self.run.columns.shape[1]), self.streams)

        self.model.train()
        recorded = self._loaded(inputs, targets, within)
        value = self._computed(inputs, targets, epoch, within) if recorded is None else self._replayed(recorded, epoch)
        self.row_masks.clear()

        self.progress.step += 1
        self.average.after(self.progress.step)
        self.progress.loss_sum += value
        self.progress.token_steps += unroll
        if self.progress.step % LOG_EVERY == 0:
            self.log.write(
                "step",
                step=self.progress.step,
                steps=self.steps,
                epoch=epoch + 1,
                loss=value / unroll,
                learning_rate=self.rate(step),
                seconds=round(self.seconds(), 3),
            )

    def _computed(self, inputs: Tensor, targets: Tensor, epoch: int, within: int) -> float:
        """Descend on a mini-batch, (time, batch) each; returns the loss on the text."""
        step, settings = self.progress.step, self.settings
        logits, state = self.forward(inputs, self.states.get("state"))
        after: States = {"state": _detached(state)}
        soft = None
        if self.teacher is not None:
            with torch.no_grad():
                soft, after["teacher"] = self.teacher(inputs, self.states.get("teacher"))
        loss, likelihood = training_loss(logits, targets, soft, settings.distillation)
        value = self.processes.mean(likelihood)
        self._check("loss", value, epoch)
        if self._checkpoint_due(step, within):  # now, as the loss has shown that these weights are sound
            self._keep()
        self.descent.clear()
        self.processes.backward(loss)
        norm = float(self.descent.norm())
        self._check("gradient", norm, epoch)
        self.descent.step(self.rate(step) * _clipped(norm, settings.clip))
        self.states = after
        return value

    def _loaded(self, inputs: Tensor, targets: Tensor, within: int) -> RecordedStep | None:
        """The recorded step, ready to be replayed on this mini-batch; None if this step is not one to be replayed.

        The first of an epoch has no state yet; at a checkpoint the loss must be known before the weights move.
        """
        step = self.progress.step
        early = within == 0 or step < self.first_step + EAGER_STEPS
        if self.recorded is None or early or self._checkpoint_due(step, within):
            return None
        try:
            self.recorded.load(inputs, targets, self.states)
        except RuntimeError as error:  # no reason to lose the run
            reason = str(error).partition("\n")[0]
            self.log.write("graph", step=step, failed=reason)
            warnings.warn(
                f"step {step} cannot be recorded as a CUDA graph ({reason}); the run goes on without", stacklevel=2
            )
            self.recorded = None
        return self.recorded

    def _replayed(self, recorded: RecordedStep, epoch: int) -> float:
        """The same as `_computed`, of the mini-batch that is loaded."""
        value, norm = recorded.replay(self.rate(self.progress.step))
        self._check("loss", value, epoch)
        self._check("gradient", norm, epoch)
        self.states = recorded.states
        return value

    def _end_epoch(self, epoch: int) -> None:
        progress = self.progress
        with self.average.in_place():
            perplexity = self.run.validate(self.model)
        self._check("validation perplexity", perplexity, epoch)
        self.log.write(
            "epoch",
            epoch=epoch + 1,
            step=progress.step,
            tokens=progress.step * self.settings.unroll * self.run.columns.shape[1],
            train_perplexity=_perplexity(progress.loss_sum / max(1, progress.token_steps)),
            valid_perplexity=perplexity,
            learning_rate=self.rate(progress.step - 1),
            seconds=round(self.seconds(), 3),
        )
        self._trace()
        progress.loss_sum, progress.token_steps = 0.0, 0
        self._keep()

    def _checkpoint_due(self, step: int, within: int) -> bool:
        """At the very start, and within an epoch; its end has a checkpoint anyway."""
        every = self.settings.checkpoint_every
        return step == 0 or bool(every and within and step % every == 0)

    def _keep(self) -> None:
        self.progress.log_size = self.log.size()
        self.progress.seconds = self.seconds()
        self.progress.averaged = self.average.count
        gathered = self.processes.gathered
        whole = {whose: (gathered(h), gathered(c)) for whose, (h, c) in self.states.items()}
        if self.checkpoint is not None and self.processes.main:
            save_checkpoint(self.checkpoint, self.model, whole, self.progress, self.run.fingerprint, self.average.means)

    def _trace(self) -> None:
        validate = self.run.validate_paths
        if validate is None:
            return
        with self.average.in_place():
            found = trace_paths(self.model, validate)
        if found is not None:
            self.log.write("paths", step=self.progress.step, **found)

    def _check(self, what: str, value: float, epoch: int) -> None:
        if math.isfinite(value):
            return
        step = self.progress.step
        self.log.write("diverged", step=step, what=what, value=str(value))
        raise DivergenceError(
            f"the {what} became {value} at step {step} of {self.steps} (epoch {epoch + 1}); "
            "start anew with a lower training.learning_rate"
        )


def _detached(state: State) -> State:
    return state[0].detach(), state[1].detach()


def _clipped(norm: float, bound: float) -> float:
    """What a gradient of this norm is to be multiplied by."""
    return min(1.0, bound / norm) if bound and norm else 1.0


def _perplexity(loss: float) -> float:
    return math.exp(min(loss, 700.0))


def _seeded(run: Run, step: int, rank: int) -> torch.Generator:
    """The step's generator for masks; dropout draws from torch's own, seeded likewise, apart on each process."""
    digest = hashlib.sha256(f"{run.seed}/{step}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[8:15], "big") + rank)
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
