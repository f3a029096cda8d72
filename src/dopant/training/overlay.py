"""From dense to sparse while training: overlays are opened dense under a mask, pruned step by step, and closed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from dopant.errors import InputError
from dopant.layers import slots
from dopant.plan.plan import Plan
from dopant.structures import (
    Doped,
    DopedWeight,
    MaskedWeight,
    Sparse,
    SparseWeight,
    Stacked,
    Structure,
    StructuredWeight,
)
from dopant.structures.sparse import largest
from dopant.training.schedules import Schedule, sparsity
from dopant.training.settings import Sparsify

Start = Literal["scratch", "dense"]


@dataclass(frozen=True)
class Overlay:
    """A weight in training form, and what it must come down to: a number of non-zeros, spread over banks if any."""

    name: str
    weight: MaskedWeight
    nonzeros: int
    banks: int = 0


def open_overlays(
    model: nn.Module, originals: Mapping[str, Tensor], *, start: Start, overlay_start: float
) -> list[Overlay]:
    """Put the training form in the place of every sparse weight of a model.

    A pruned weight starts as the dense matrix it replaces. A doped weight's overlay starts `"dense"` as what the
    fitted structure leaves of that matrix, or from `"scratch"` as the random matrix times `overlay_start`: a large
    overlay at the start would do all the learning and leave the structure idle.

    Args:
        model: its sparse and doped weights are changed in place.
        originals: the dense matrix that each slot held before, by the slot's name.
        start: whether the originals are trained or random.
        overlay_start: scale of a doped weight's random overlay.
    """
    opened: list[Overlay] = []
    for slot in slots(model):
        weight, original = slot.weight, originals.get(slot.name)
        if isinstance(weight, SparseWeight) and original is not None:
            slot.set(_open(slot.name, weight, original, opened))
        elif isinstance(weight, DopedWeight) and isinstance(weight.overlay, SparseWeight) and original is not None:
            rest = original * overlay_start if start == "scratch" else original - weight.base.to_dense().detach()
            weight.overlay = _open(slot.name, weight.overlay, rest, opened)
    return opened


def check_overlays(structures: Mapping[str, Structure]) -> None:
    """See that training can anneal every sparse part: a whole weight, or the overlay of a whole doped weight.

    Args:
        structures: by the weights' names.

    Raises:
        InputError: it cannot; left as they are made, such non-zeros would stay at random places.
    """
    for name, structure in structures.items():
        inner = structure.base if isinstance(structure, Doped) else structure
        if not isinstance(structure, Sparse) and _has_sparse(inner):
            raise InputError(
                f"{name} has a sparse part within a {inner.kind} structure, and training anneals overlays of whole "
                "weights; make it doped as a whole, with that structure for its base"
            )


def _has_sparse(structure: Structure) -> bool:
    if isinstance(structure, (Sparse, Doped)):
        return True
    return isinstance(structure, Stacked) and any(map(_has_sparse, structure.parts))


def _open(name: str, weight: SparseWeight, matrix: Tensor, opened: list[Overlay]) -> MaskedWeight:
    masked = MaskedWeight(matrix.detach().clone(), torch.ones_like(matrix, dtype=torch.bool), weight.per_bank)
    masked.matrix.requires_grad_(weight.values.requires_grad)
    opened.append(Overlay(name, masked, weight.values.numel(), weight.structure.banks(weight.shape)))
    return masked


class Annealing:
    """Prunes overlays along the cubic schedule to an exact number of non-zeros, then leaves them alone.

    Raises:
        InputError: non-zeros that are spread over banks are to be allocated globally, too.
    """

    def __init__(self, overlays: list[Overlay], settings: Sparsify, steps: int) -> None:
        if settings.allocation == "global" and (spread := [overlay.name for overlay in overlays if overlay.banks]):
            raise InputError(
                f"{spread[0]} has as many non-zeros in each bank as were planned, and training.sparsify.allocation is "
                "global; set it to each, or leave per_bank out"
            )
        self.overlays = overlays
        self.settings = settings
        self.last_step = min(int(settings.end * steps), steps - 1)
        self.schedules = [
            sparsity(settings, 1.0 - o.nonzeros / max(1, o.weight.matrix.numel()), steps) for o in overlays
        ]

    def before_step(self, step: int) -> None:
        """Prune if this step is due. What is once pruned stays so."""
        if step > self.last_step or (step % self.settings.every and step != self.last_step):
            return
        kept = [
            self._kept(overlay, schedule, step) for overlay, schedule in zip(self.overlays, self.schedules, strict=True)
        ]
        if self.settings.allocation == "global":
            prune_globally([overlay.weight for overlay in self.overlays], sum(kept))
            return
        for overlay, count in zip(self.overlays, kept, strict=True):
            prune(overlay.weight, count, overlay.banks)

    def _kept(self, overlay: Overlay, schedule: Schedule, step: int) -> int:
        if step == self.last_step:
            return overlay.nonzeros
        return max(overlay.nonzeros, round((1.0 - schedule(step)) * overlay.weight.matrix.numel()))


def prune(weight: MaskedWeight, nonzeros: int, banks: int = 0) -> None:
    """Keep the `nonzeros` largest entries of those that the mask lets through, spread over banks if there are any."""
    alive = int(weight.mask.sum())
    if nonzeros < alive:
        weight.mask.copy_(largest(weight.matrix, nonzeros, banks, among=weight.mask))


def prune_globally(weights: Sequence[MaskedWeight], nonzeros: int) -> None:
    """Keep the `nonzeros` largest entries of all weights together, of those that their masks let through."""
    if not weights:
        return
    alive = torch.cat([weight.mask.reshape(-1) for weight in weights])
    if nonzeros < int(alive.sum()):
        entries = torch.cat([weight.matrix.detach().reshape(-1) for weight in weights])
        kept = largest(entries, nonzeros, among=alive)
        parts = torch.split(kept, [weight.mask.numel() for weight in weights])
        for weight, part in zip(weights, parts, strict=True):
            weight.mask.copy_(part.view_as(weight.mask))


def close_overlays(model: nn.Module) -> None:
    """Put the stored form in the place of every weight in training form."""
    for slot in slots(model):
        weight = slot.weight
        if isinstance(weight, MaskedWeight):
            slot.set(weight.compact())
        elif isinstance(weight, DopedWeight) and isinstance(weight.overlay, MaskedWeight):
            weight.overlay = weight.overlay.compact()


def drop_smallest(weights: list[StructuredWeight], count: int) -> int:
    """Take the `count` smallest values away from the stored sparse parts of some weights, in place.

    Returns:
        how many were taken: fewer, or none, if there are not so many.
    """
    sparse = [part for weight in weights for part in weight.modules() if isinstance(part, SparseWeight)]
    sizes = [part.values.numel() for part in sparse]
    count = min(count, sum(sizes))
    if count == 0:
        return 0
    magnitudes = torch.cat([part.values.detach().abs() for part in sparse])
    kept = torch.ones_like(magnitudes, dtype=torch.bool)
    kept[magnitudes.argsort(stable=True)[:count]] = False
    for part, mask in zip(sparse, torch.split(kept, sizes), strict=True):
        part.values = nn.Parameter(part.values.detach()[mask], part.values.requires_grad)
        part.positions = part.positions[mask]
    return count


def meet_byte_target(model: nn.Module, plan: Plan) -> None:
    """Drop smallest overlay entries until a byte target, planned for random patterns, is met by the real ones."""
    target = plan.target
    if target is None or (target.bytes is None and target.count != "bytes"):
        return
    planned = {weight.name for weight in plan.weights if weight.method is not None}
    chosen = [slot for slot in slots(model) if slot.name in planned]
    allowed = target.limit(sum(math.prod(slot.weight.shape) for slot in chosen))
    while (bytes_ := sum(slot.weight.cost(plan.storage).stored_bytes for slot in chosen)) > allowed:
        nonzeros = sum(slot.weight.cost().parameters for slot in chosen)  # or a few more, that factors have
        if not drop_smallest([slot.weight for slot in chosen], max(1, (bytes_ - allowed) * nonzeros // bytes_)):
            warnings.warn(
                f"the weights take {bytes_:,} bytes of {allowed:,} allowed, and have no non-zeros to drop", stacklevel=2
            )
            return
