"""Co-matrix dropout regularisation (arXiv 2001.08896, 2102.07071).

y = m1 ∘ (base x) + m2 ∘ (overlay x) with independent Bernoulli masks over the outputs: neither summand can rely on the
other to be there, so that the one which stays has learnt enough when the overlay is annealed away. Rate, scaling,
schedule and sharing are our own choices; docs/decisions tells what was measured.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dopant.layers import slots
from dopant.structures import DenseWeight, StructuredWeight
from dopant.train.settings import CoMatrixDropout


class RowMasks:
    """Draws the masks of a step onto the weights of a model, and takes them off again."""

    def __init__(self, model: nn.Module, settings: CoMatrixDropout, steps: int) -> None:
        self.settings = settings
        self.first, self.last = settings.begin * steps, settings.end * steps
        self.weights = [slot.weight for slot in slots(model) if not isinstance(slot.weight, DenseWeight)]

    def draw(self, step: int, generator: torch.Generator, size: tuple[int, int]) -> None:
        """New masks for this step, or none outside the schedule.

        Args:
            step: of all training steps.
            generator: a CPU generator.
            size: (time, batch) of what the model is about to see.
        """
        acting = self.settings.rate > 0.0 and self.first <= step < self.last
        for weight in self.weights:
            weight.row_masks = self._masks(weight, generator, size) if acting else None

    def clear(self) -> None:
        """No masks, as evaluation needs it."""
        for weight in self.weights:
            weight.row_masks = None

    def _masks(
        self, weight: StructuredWeight, generator: torch.Generator, size: tuple[int, int]
    ) -> tuple[Tensor, ...] | None:
        paths, settings = len(weight.paths()), self.settings
        if paths == 1 and settings.path == "structure":
            return None
        device = next(weight.parameters()).device
        dtype = next(weight.parameters()).dtype
        shape = {"step": (), "sequence": size[1:], "element": size}[settings.sharing] + (weight.shape[0],)
        keep = 1.0 - settings.rate
        scale = 1.0 / keep if settings.scaling == "inverted" else 1.0
        if settings.path == "whole":
            dropped = torch.rand(paths, generator=generator) < settings.rate
            if dropped.all():  # a weight without any path would teach nothing
                dropped[:] = False
            return tuple(torch.full((shape[-1],), 0.0 if off else scale, dtype=dtype, device=device) for off in dropped)
        masks: list[Tensor] = []
        for number in range(paths):
            is_overlay = number == paths - 1
            if settings.path == "both" or (settings.path == "overlay") == is_overlay:
                kept = torch.rand(shape, generator=generator) < keep
                masks.append((kept * scale).to(device, dtype))
            else:
                masks.append(torch.ones(shape[-1], dtype=dtype, device=device))
        return tuple(masks)
