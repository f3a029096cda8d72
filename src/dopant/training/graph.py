"""A training step recorded once as a CUDA graph and replayed: one launch where there were hundreds.

A step of a small model leaves a GPU waiting for Python most of the time. Replayed, the kernels are those of the step as
it was recorded, on the memory that it was recorded on: whatever differs from step to step is copied there beforehand.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dopant.training.checkpoint import States
from dopant.training.co_matrix_dropout import RowMasks
from dopant.training.descent import Descent
from dopant.training.loss import training_loss
from dopant.training.settings import TrainSettings

EAGER_STEPS = 3  # at the start of a run, before anything is recorded: libraries and threads are set up by then
_WARM_UPS = 3


def can_record(device: torch.device) -> bool:
    """Whether steps on this device can be recorded."""
    return device.type == "cuda"


class RecordedStep:
    """Forward, loss, backward, clip and update of one process, with the teacher's forward if there is one.

    It is recorded when it is first needed, with and without row masks apart. Overlays are pruned in place, so that a
    replay sees their masks as they are. Dropout draws from torch's own generator as it is seeded when replayed.

    Args:
        model: maps (tokens (time, batch), state) to (logits (time, batch, vocabulary), state); in training mode.
        settings: the clip.
        descent: moves the weights.
        row_masks: those of the model.
        teacher: maps as `model` does; in evaluation mode, on the same device.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: TrainSettings,
        descent: Descent,
        row_masks: RowMasks,
        teacher: nn.Module | None = None,
    ) -> None:
        self.model, self.settings, self.descent, self.row_masks = model, settings, descent, row_masks
        self.teacher = teacher
        read = [model] if teacher is None else [model, teacher]
        self.weights = [tensor for module in read for tensor in (*module.parameters(), *module.buffers())]
        self.addresses = self._addresses()
        self.rate = next(model.parameters()).new_zeros(())
        self.held: tuple[Tensor, ...] = ()
        self.replays: dict[bool, Callable[[], Tensor]] = {}
        self.loaded: Callable[[], Tensor] | None = None

    @property
    def states(self) -> States:
        """(h, c) of the model, and of the teacher if there is one, after the last replay; the next overwrites them."""
        own, theirs = self.held[2:4], self.held[4:]
        return {"state": (own[0], own[1])} | ({"teacher": (theirs[0], theirs[1])} if theirs else {})

    def load(self, inputs: Tensor, targets: Tensor, states: States) -> None:
        """Make ready for a replay, with the row masks that are drawn; record the step if it has not been yet.

        Args:
            inputs, targets: (time, batch) int64, of the same size in each call.
            states: (h, c) before the step, as `states` has them.

        Raises:
            RuntimeError: the step cannot be recorded or replayed. Weights, masks and state are as before; but where the
                gradient is not finite recording leaves no finite weights either, and the loss tells so.
        """
        if self._addresses() != self.addresses:
            raise RuntimeError("the weights are no longer where they were when training began")
        given = (inputs, targets, *states["state"], *states.get("teacher", ()))
        self.held = self.held or tuple(tensor.detach().clone() for tensor in given)
        for place, tensor in zip(self.held, given, strict=True):
            place.copy_(tensor)
        masked = self.row_masks.settle()
        if masked not in self.replays:
            self.replays[masked] = self._record()
        self.loaded = self.replays[masked]

    def replay(self, rate: float) -> tuple[float, float]:
        """Take the step that was loaded, at this learning rate.

        Returns:
            the likelihood part of the loss, and the norm of the gradient before it is clipped. If either is not
            finite, neither are the weights any longer.
        """
        assert self.loaded is not None
        self.rate.fill_(rate)
        value, norm = self.loaded().tolist()
        return value, norm

    def _record(self) -> Callable[[], Tensor]:
        """The step as it is now. What it does while it is recorded is to change nothing: it is taken at rate 0."""
        places = self.held[2:]
        before = [part.clone() for part in places]
        self.rate.zero_()
        try:
            return record(self._step, self.rate.device)
        finally:
            for place, part in zip(places, before, strict=True):
                place.copy_(part)

    def _step(self) -> Tensor:
        """What is recorded; (2,): what `replay` returns. Everything that it reads or leaves is of fixed address."""
        inputs, targets, *_ = self.held
        self.descent.clear()
        logits, after = self.model(inputs, self.states["state"])
        soft = None
        if self.teacher is not None:
            with torch.no_grad():
                soft, theirs = self.teacher(inputs, self.states["teacher"])
            after = (*after, *theirs)
        loss, likelihood = training_loss(logits, targets, soft, self.settings.distillation)
        loss.backward()  # type: ignore[no-untyped-call]
        norm, clip = self.descent.norm(), self.settings.clip
        self.descent.step(self.rate * torch.clamp(clip / norm, max=1.0) if clip else self.rate)
        for place, part in zip(self.held[2:], after, strict=True):
            place.copy_(part.detach())
        return torch.stack((likelihood, norm))

    def _addresses(self) -> list[int]:
        return [weight.data_ptr() for weight in self.weights]


def record(step: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
    """A function that does on a CUDA device what `step` does, in one launch. It returns the same tensor each time.

    `step` is run a few times first, for all that is set up once only; torch's generator is left as it was.

    Raises:
        RuntimeError: `step` waits for the device, or does something else that cannot be recorded.
    """
    generator = torch.cuda.default_generators[device.index]
    before = generator.clone_state()
    with torch.cuda.device(device):
        current, aside = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(current)
        try:
            with torch.cuda.stream(aside):
                with _never_waiting():
                    for _ in range(_WARM_UPS):
                        step()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, stream=aside):
                    result = step()
        except RuntimeError:
            generator.graphsafe_set_state(before)  # where recording fails, torch leaves it as if it still went on
            raise
        finally:
            current.wait_stream(aside)
    generator.set_state(before.get_state())

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


@contextmanager
def _never_waiting() -> Iterator[None]:
    """Within it RuntimeError is raised where torch would wait for the GPU.

    That cannot be recorded; but found out while recording, it would also leave torch's allocator as if that went on.
    """
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode")  # torch calls it a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
