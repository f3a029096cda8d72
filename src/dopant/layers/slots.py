"""Where a model keeps its structured weights: the one walk that plans, files and training share."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from dopant.errors import InputError
from dopant.layers.lstm import LSTM
from dopant.structures import StructuredWeight


@dataclass(frozen=True)
class Slot:
    """A place of a model that holds a structured weight.

    Args:
        name: its dotted name, e.g. `lstm.weight_l0`; of a tied weight, the first.
        holders: (module, attribute) of each place that holds this weight; more than one if it is tied.
        aliases: the names of the other places.
        gates: into how many equal blocks of rows the weight falls (4 in an LSTM, else 1).
        lstm: whether it belongs to an LSTM.
    """

    name: str
    holders: tuple[tuple[nn.Module, str], ...]
    aliases: tuple[str, ...]
    gates: int
    lstm: bool

    @property
    def weight(self) -> StructuredWeight:
        """The weight that is there now."""
        module, attribute = self.holders[0]
        weight = getattr(module, attribute)
        if not isinstance(weight, StructuredWeight):
            raise InputError(f"{self.name} no longer holds a structured weight but {type(weight).__name__}")
        return weight

    def set(self, weight: StructuredWeight) -> None:
        """Put another weight there, in every place that shares it.

        Raises:
            InputError: its shape differs.
        """
        if weight.shape != self.weight.shape:
            raise InputError(f"{self.name} is of shape {self.weight.shape}, got a weight of shape {weight.shape}")
        for module, attribute in self.holders:
            setattr(module, attribute, weight)


def slots(model: nn.Module) -> list[Slot]:
    """The outermost structured weights of a model in the order of its modules; a tied weight counts once.

    Weights nest (a doped weight holds two others); what lies inside a structured weight is its own affair.
    """
    found: dict[int, list[tuple[str, nn.Module, str]]] = {}
    inside: set[nn.Module] = set()
    for prefix, module in model.named_modules():  # what holds a module comes before it
        if isinstance(module, StructuredWeight):
            inside.update(module.modules())
        if module in inside:
            continue
        for attribute, child in module._modules.items():  # named_children would leave out a tied weight
            if isinstance(child, StructuredWeight):
                name = f"{prefix}.{attribute}" if prefix else attribute
                found.setdefault(id(child), []).append((name, module, attribute))
    return [_slot(places) for places in found.values()]


def _slot(places: list[tuple[str, nn.Module, str]]) -> Slot:
    name, module, attribute = places[0]
    lstm = isinstance(module, LSTM)
    return Slot(
        name=name,
        holders=tuple((module, attribute) for _, module, attribute in places),
        aliases=tuple(name for name, _, _ in places[1:]),
        gates=4 if lstm and not attribute.startswith("weight_hr") else 1,
        lstm=lstm,
    )
