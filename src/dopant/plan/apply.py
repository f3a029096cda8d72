"""Carrying a plan out: the model keeps its layers and gets other weights, in place."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

from dopant.errors import PlanError
from dopant.layers.slots import Slot, slots
from dopant.plan.plan import Plan
from dopant.structures.base import Structure, StructuredWeight

Start = Literal["new", "fit"]


def apply_plan(model: nn.Module, plan: Plan, start: Start = "new", generator: torch.Generator | None = None) -> None:
    """Give each weight of `model` the structure that `plan` has for it; weights that have it already are kept.

    All new weights are made before the first is put in its place, so that an error leaves the model as it was. Frozen
    ones stay frozen. Each weight remembers in `storage` how the plan wants it written: a file of the model then has the
    planned bytes, but for how the places of non-zeros fall: a plan takes them to be evenly random.

    Args:
        model: the model planned for, or one with weights of the same names and shapes.
        plan: what `make_plan` left.
        start: "new" draws at random, with the standard deviation of the weight it replaces; "fit" takes the
            nearest to the weight it replaces.
        generator: source of the random numbers; on the CPU.

    Raises:
        PlanError: the plan was made for another model, `start` is neither, or a weight that is to change is on the
            meta device, without numbers, or shares a parameter with a layer that stays as it is.
    """
    if start not in ("new", "fit"):
        raise PlanError(f"start {start!r} is not known; choose new or fit")
    places = slots(model)
    shapes = {place.name: place.weight.shape for place in places}
    planned = {weight.name: weight for weight in plan.weights}
    if (problem := _difference(shapes, {name: weight.shape for name, weight in planned.items()})) is not None:
        raise PlanError(f"the plan was made for another model: {problem}; make a plan for this one")
    changed = [place for place in places if place.weight.structure != planned[place.name].structure]
    for place in changed:
        _check(model, place)
    made = [(place, _made(place.weight, planned[place.name].structure, start, generator)) for place in changed]
    for place, weight in made:
        place.set(weight)
    storages = plan.storages()
    for place in slots(model):
        place.weight.storage = storages[place.name]


def _check(model: nn.Module, place: Slot) -> None:
    """Raise PlanError if the weight has no numbers, or if putting another in its place would untie a parameter."""
    if any(parameter.is_meta for parameter in place.weight.parameters()):
        raise PlanError(
            f"{place.name!r} is on the meta device and has no numbers to start from; build the model on the CPU"
        )
    own, inside = {id(p) for p in place.weight.parameters()}, set(place.weight.modules())
    for prefix, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if id(parameter) in own and module not in inside:
                raise PlanError(
                    f"{place.name!r} shares its matrix with {f'{prefix}.{name}'.lstrip('.')!r}, which is no structured "
                    f"weight and would be untied; convert that layer too, or plan with ignore=[{place.name!r}]"
                )


def _made(
    current: StructuredWeight, structure: Structure, start: Start, generator: torch.Generator | None
) -> StructuredWeight:
    like = next(current.parameters())
    with torch.no_grad():
        dense = current.to_dense()
        if dense.dtype in (torch.float16, torch.bfloat16):  # decompositions need more digits
            dense = dense.float()
        if start == "fit":
            weight = structure.fit(dense)
        else:
            std = float(dense.std(correction=0))
            usable = std if std > 0 and math.isfinite(std) else None
            weight = structure.new(current.shape, std=usable, generator=generator)
    weight.requires_grad_(any(parameter.requires_grad for parameter in current.parameters()))
    return weight.to(device=like.device, dtype=like.dtype).train(current.training)


def _difference(model: dict[str, tuple[int, int]], plan: dict[str, tuple[int, int]]) -> str | None:
    for name, shape in plan.items():
        if name not in model:
            return f"{name!r} is planned, but the model has no such weight"
        if model[name] != shape:
            return f"{name!r} is {_times(model[name])} in the model and {_times(shape)} in the plan"
    surplus = next((name for name in model if name not in plan), None)
    return None if surplus is None else f"the model's {surplus!r} is not in the plan"


def _times(shape: tuple[int, int]) -> str:
    return f"{shape[0]}×{shape[1]}"
