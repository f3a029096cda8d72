"""What of a model goes into a file: its structured weights, all other tensors, and which of them are shared."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from torch import Tensor, nn

from dopant.errors import InputError
from dopant.layers.slots import Slot, slots
from dopant.structures.base import StructuredWeight


@dataclass(frozen=True)
class Contents:
    """The parts of a model that a file keeps.

    Args:
        slots: its structured weights.
        plain: every other tensor of its state dict, as the model holds it, shared ones under their first name.
        tied: name of a further place -> name in `slots` or `plain` that it shares.
    """

    slots: list[Slot]
    plain: dict[str, Tensor]
    tied: dict[str, str]

    @property
    def places(self) -> dict[str, tuple[nn.Module, str]]:
        """(module, attribute) of each place that holds a structured weight, tied ones too, by its name."""
        return {
            name: holder
            for slot in self.slots
            for name, holder in zip((slot.name, *slot.aliases), slot.holders, strict=True)
        }


def contents(model: nn.Module) -> Contents:
    """Take a model apart; nothing is copied.

    Raises:
        InputError: the model keeps a state that is not a tensor.
    """
    found = slots(model)
    inside = {
        name for name, module in model.named_modules(remove_duplicate=False) if isinstance(module, StructuredWeight)
    }
    tied = {alias: slot.name for slot in found for alias in slot.aliases}
    plain: dict[str, Tensor] = {}
    first: dict[int, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if is_under(name, inside):
            continue
        if not isinstance(tensor, Tensor):
            raise InputError(f"{name!r} is a {type(tensor).__name__}, not a tensor; a model file cannot hold it")
        if first.setdefault(id(tensor), name) == name:
            plain[name] = tensor
        else:
            tied[name] = first[id(tensor)]
    return Contents(found, plain, tied)


def is_under(name: str, places: Container[str]) -> bool:
    """Whether a dotted name begins with that of one of `places`."""
    return any(name[:end] in places for end, letter in enumerate(name) if letter == ".")
