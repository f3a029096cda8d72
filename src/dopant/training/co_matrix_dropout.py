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
from dopant.training.settings import CoMatrixDropout


class RowMasks:
    """Draws the masks of a step onto the weights of a model, and takes them off again."""

    def __init__(self, model: nn.Module, settings: CoMatrixDropout, steps: int) -> None:
        self.settings = settings
        self.first, self.last = settings.begin * steps, settings.end * steps
        self.weights = [slot.weight for slot in slots(model) if not isinstance(slot.weight, DenseWeight)]
        self.settled: dict[StructuredWeight, tuple[Tensor, ...]] = {}

    def draw(self, step: int, generator: torch.Generator, size: tuple[int, int], streams: slice = slice(None)) -> None:
        """New masks for this step, or none outside the schedule.

        Args:
            step: of all training steps.
            generator: a CPU generator.
            size: (time, batch) of the whole mini-batch.
            streams: the part of the batch that this process sees: processes draw alike and take their own.
        """
        acting = self.settings.rate > 0.0 and self.first <= step < self.last
        for weight in self.weights:
            weight.row_masks = self._masks(weight, generator, size, streams) if acting else None

    def settle(self) -> bool:
        """Move what was drawn to where the masks of the first such call lie: a recorded step reads them there.

        Returns:
            whether there are any masks.
        """
        for weight in self.weights:
            if weight.row_masks is not None:
                settled = self.settled.setdefault(weight, weight.row_masks)
                for place, mask in zip(settled, weight.row_masks, strict=True):
                    place.copy_(mask)
                weight.row_masks = settled
        return any(weight.row_masks is not None for weight in self.weights)

    def clear(self) -> None:
        """No masks, as evaluation needs it."""
        for weight in self.weights:
            weight.row_masks = None

    def _masks(
        self, weight: StructuredWeight, generator: torch.Generator, size: tuple[int, int], streams: slice
    ) -> tuple[Tensor, ...] | None:
        paths, settings = len(weight.paths()), self.settings
        if paths == 1 and settings.path in ("structure", "whole"):  # nothing would be left of such a weight
            return None
        like, rows = next(weight.parameters()), weight.shape[0]
        if settings.path == "whole":
            return tuple(like.new_full((rows,), value) for value in self._whole_paths(paths, generator))
        shape = {"step": (), "sequence": size[1:], "element": size}[settings.sharing]
        masks: list[Tensor] = []
        for number in range(paths):
            is_overlay = number == paths - 1
            if settings.path == "both" or (settings.path == "overlay") == is_overlay:
                kept = torch.rand((*shape, rows), generator=generator) < 1.0 - settings.rate
                if shape:
                    kept = kept[..., streams, :]
                masks.append((kept * self._scale(1.0 - settings.rate)).to(like))
            else:
                masks.append(like.new_ones(rows))
        return tuple(masks)

    def _whole_paths(self, paths: int, generator: torch.Generator) -> list[float]:
        """One value a path. Where all would be dropped all are kept: a weight without any path would teach nothing."""
        rate = self.settings.rate
        dropped = torch.rand(paths, generator=generator) < rate
        if dropped.all():
            dropped[:] = False
        scale = self._scale(1.0 - rate + rate**paths)
        return [0.0 if off else scale for off in dropped.tolist()]

    def _scale(self, kept: float) -> float:
        """What is left is multiplied by, `kept` being its probability."""
        return 1.0 / kept if self.settings.scaling == "inverted" else 1.0
