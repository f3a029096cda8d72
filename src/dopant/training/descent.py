"""Plain gradient descent with a multiplier of the learning rate for each group of parameters.

Written out, as constructing one of torch's optimisers imports its compiler: a second for each process.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dopant.layers import slots
from dopant.structures import DenseWeight, DopedWeight, MaskedWeight, SparseWeight, StructuredWeight
from dopant.training.settings import TrainSettings

_ENTRIES = (DenseWeight, SparseWeight, MaskedWeight)


def by_rate(model: nn.Module, settings: TrainSettings) -> dict[float, list[nn.Parameter]]:
    """The parameters that learn, by what their learning rate is to be multiplied by.

    Dense and sparse parts of any composition hold entries of W itself and learn at the full rate; all other parameters
    of a structured weight are factors, whose multipliers are those of `settings`.
    """
    multipliers: dict[int, float] = {}
    for slot in slots(model):
        doped = isinstance(slot.weight, DopedWeight)
        for part in slot.weight.modules():
            if isinstance(part, StructuredWeight) and not isinstance(part, _ENTRIES):
                rate = settings.factor_learning_rate if doped else settings.structure_learning_rate
                multipliers.update({id(parameter): rate for parameter in part.parameters(recurse=False)})
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault(multipliers.get(id(parameter), 1.0), []).append(parameter)
    return groups


class Descent:
    """Steps against the gradient: factors under an overlay, other factors and all the rest have their own rates.

    Args:
        model: what is to learn.
        settings: the multipliers.
    """

    def __init__(self, model: nn.Module, settings: TrainSettings) -> None:
        self.groups = by_rate(model, settings)

    def clear(self) -> None:
        """Forget the gradients."""
        for parameters in self.groups.values():
            for parameter in parameters:
                parameter.grad = None

    def norm(self) -> Tensor:
        """Of all gradients as one vector: ()."""
        found = [p.grad for parameters in self.groups.values() for p in parameters if p.grad is not None]
        return torch.nn.utils.get_total_norm(found)

    @torch.no_grad()
    def step(self, rate: float | Tensor) -> None:
        """Move each parameter by minus `rate`, times its group's multiplier, times its gradient.

        Args:
            rate: a number; or (), on the parameters' device, which nobody then has to wait for.
        """
        for multiplier, parameters in self.groups.items():
            for parameter in parameters:
                if parameter.grad is None:
                    continue
                if isinstance(rate, Tensor):
                    parameter.addcmul_(parameter.grad, rate, value=-multiplier)
                else:
                    parameter.add_(parameter.grad, alpha=-rate * multiplier)
