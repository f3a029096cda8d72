"""Co-matrix adaptation made visible: how large each path of a doped weight is, and what the model is without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from dopant.layers import slots
from dopant.structures import DopedWeight, MaskedWeight

Validate = Callable[[nn.Module], float]


def trace_paths(model: nn.Module, validate: Validate) -> dict[str, Any] | None:
    """Norms of the paths, density of the overlays, and perplexity with all and with either path switched off.

    Returns:
        None if nothing is doped; else root-sum-square norms over all doped weights, the overlays' density, and
        `validate(model)` as it is, without the structures, and without the overlays.
    """
    doped = [slot.weight for slot in slots(model) if isinstance(slot.weight, DopedWeight)]
    if not doped:
        return None
    with torch.no_grad():
        squares = [[float(path.to_dense().square().sum()) for path in weight.paths()] for weight in doped]
    nonzeros = sum(
        int(w.overlay.mask.sum()) if isinstance(w.overlay, MaskedWeight) else w.overlay.values.numel() for w in doped
    )
    found = {
        "structure_norm": sum(structure for structure, _ in squares) ** 0.5,
        "overlay_norm": sum(overlay for _, overlay in squares) ** 0.5,
        "density": nonzeros / sum(w.shape[0] * w.shape[1] for w in doped),
        "valid_perplexity": validate(model),
    }
    for name, off in (("valid_without_structure", 0), ("valid_without_overlay", 1)):
        for weight in doped:
            example = next(weight.parameters())
            masks = [torch.ones(weight.shape[0], dtype=example.dtype, device=example.device) for _ in range(2)]
            masks[off].zero_()
            weight.row_masks = tuple(masks)
        try:
            found[name] = validate(model)
        finally:
            for weight in doped:
                weight.row_masks = None
    return found
