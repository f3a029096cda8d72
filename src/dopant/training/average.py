"""The mean of the weights over the last part of training, which is what is kept (Polyak & Juditsky 1992).

At a rate that does not fall the weights go on moving around a place that is better than any they are at; for language
models see Merity et al. (arXiv 1708.02182).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

AVERAGE_EVERY = 5  # steps: the weights of neighbours are nearly the same


class Average:
    """Running means of a model's parameters.

    Args:
        model: whose.
        first: the step after which they are averaged.
        means: of an interrupted run, by the parameters' names.
        count: over how many steps these were taken.
    """

    def __init__(self, model: nn.Module, first: float, means: Mapping[str, Tensor] | None = None, count: int = 0):
        self.parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.first = first
        self.count = count
        self.means = {name: mean.to(self.parameters[name].device) for name, mean in (means or {}).items()}

    @torch.no_grad()
    def after(self, step: int) -> None:
        """Take the weights in, if those after this many steps are due."""
        if step <= self.first or step % AVERAGE_EVERY:
            return
        self.count += 1
        for name, parameter in self.parameters.items():
            exact = torch.promote_types(parameter.dtype, torch.float32)  # in 16 bits small increments would be lost
            mean = self.means.setdefault(name, torch.zeros_like(parameter, dtype=exact))
            mean.lerp_(parameter.to(exact), 1.0 / self.count)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model with the means for its weights, if there are any, for a while."""
        now = {name: self.parameters[name].detach().clone() for name in self.means}
        self.put()
        try:
            yield
        finally:
            _copy(now, self.parameters)

    def put(self) -> None:
        """The same for good."""
        _copy(self.means, self.parameters)


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, tensor in source.items():
        target[name].copy_(tensor)
