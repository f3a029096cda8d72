"""A schedule is a function from a step count to a value, nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable

from dopant.training.settings import Sparsify, TrainSettings

Schedule = Callable[[int], float]


def learning_rate(settings: TrainSettings, steps_per_epoch: int) -> Schedule:
    """Constant for some epochs, then times `decay` at the start of each epoch (Zaremba et al., arXiv 1409.2329)."""

    def at(step: int) -> float:
        epoch = step // steps_per_epoch
        return settings.learning_rate * math.pow(settings.decay, max(epoch + 1 - settings.constant_epochs, 0.0))

    return at


def sparsity(settings: Sparsify, final: float, steps: int) -> Schedule:
    """The cubic ramp of Zhu & Gupta (arXiv 1710.01878): fast while much is redundant, slow at the end.

    Args:
        settings: where it begins and ends, as fractions of `steps`, and from which sparsity.
        final: the sparsity to end with.
        steps: all training steps.
    """
    first, last = settings.begin * steps, settings.end * steps
    start = min(settings.initial_sparsity, final)

    def at(step: int) -> float:
        if step < first:
            return 0.0
        if step >= last:
            return final
        left = 1.0 - (step - first) / (last - first)
        return final + (start - final) * left**3

    return at
