"""Plans back from JSON, strictly: nothing missing, nothing over, every price computed again."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Any

from dopant.cost import FLOAT32, Cost, Storage
from dopant.errors import FileError, InputError, PlanError
from dopant.plan.methods import method_named
from dopant.plan.plan import Plan, PlannedWeight
from dopant.plan.target import Target
from dopant.structures.description import structure_from

_LARGEST = 2**31  # rows or columns; no weight of ours comes near


def plan_from(data: Any) -> Plan:
    """The plan that `Plan.to_dict` told of.

    Raises:
        PlanError: a key is missing, unknown or of a wrong type, a structure does not suit its shape, or a stated
            cost is not what the structure costs.
    """
    data = _object(data, "a plan", ("method", "target", "storage", "weights", "matches"))
    target = data["target"]
    if target is not None:
        target = Target(**_object(target, "a target", tuple(f.name for f in fields(Target))))
    storage = _storage(data["storage"])
    if not isinstance(data["weights"], list):
        raise PlanError(f"a plan's weights must be a list, got {_short(data['weights'])}")
    weights = tuple(_weight(item, storage) for item in data["weights"])
    names = [weight.name for weight in weights]
    if len(set(names)) < len(names):
        raise PlanError(f"a plan names {next(n for n in names if names.count(n) > 1)!r} more than once")
    return Plan(method_named(data["method"]).name, target, storage, weights, _matches(data["matches"]))


def plan_from_json(text: str) -> Plan:
    """The plan that `Plan.to_json` wrote.

    Raises:
        PlanError: the text is no JSON, or no plan.
    """
    try:
        data = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise PlanError(f"a plan must be JSON: {error}") from None
    return plan_from(data)


def _weight(item: Any, storage: Storage) -> PlannedWeight:
    costs = tuple(field.name for field in fields(Cost))
    item = _object(item, "a planned weight", ("name", "shape", "gates", "method", "structure", *costs))
    name, shape, gates, method = item["name"], item["shape"], item["gates"], item["method"]
    if not isinstance(name, str) or not name:
        raise PlanError(f"a planned weight's name must be text, got {_short(name)}")
    if not isinstance(shape, list) or len(shape) != 2 or not all(_whole(n, _LARGEST) for n in shape):
        raise PlanError(f"{_short(name)}: a shape is two whole numbers above zero, got {_short(shape)}")
    if not _whole(gates, 4) or shape[0] % gates:
        raise PlanError(f"{_short(name)}: gates must divide the {shape[0]} rows, got {_short(gates)}")
    if method is not None:
        method_named(method)
    size = (shape[0], shape[1])
    try:
        structure = structure_from(item["structure"])
        structure.check(size)
    except (FileError, InputError) as error:
        raise PlanError(f"{_short(name)}: {error}") from None
    except ValueError:  # a product of so many factors that its sides cannot be told
        raise PlanError(f"{_short(name)}: a structure of sides with thousands of digits, for {size}") from None
    cost = structure.cost(size, FLOAT32 if method is None else storage)
    stated = {key: item[key] for key in costs}
    if stated != asdict(cost):
        raise PlanError(f"{_short(name)}: the plan says {_short(stated)}, but its structure costs {asdict(cost)}")
    return PlannedWeight(name, size, gates, method, structure, cost)


def _storage(data: Any) -> Storage:
    data = _object(data, "a storage", tuple(field.name for field in fields(Storage)))
    try:
        return Storage(**data)
    except (ValueError, TypeError) as error:
        raise PlanError(str(error)) from None


def _matches(data: Any) -> tuple[tuple[str, int], ...]:
    pairs = data if isinstance(data, list) else [data]
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and _whole(pair[1], _LARGEST)):
            raise PlanError(f"a plan's matches must be pairs of a pattern and a count, got {_short(pair)}")
    return tuple((pattern, count) for pattern, count in pairs)


def _object(data: Any, what: str, keys: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise PlanError(f"{what} must be an object, got {_short(data)}")
    missing = [key for key in keys if key not in data]
    surplus = [key for key in data if key not in keys]
    if missing or surplus:
        parts = [f"lacks {', '.join(missing)}"] * bool(missing)
        parts += [f"has {_short(', '.join(map(str, surplus)))} over"] * bool(surplus)
        raise PlanError(f"{what} {' and '.join(parts)}; its keys are {', '.join(keys)}")
    return data


def _whole(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _short(value: Any) -> str:
    return repr(value)[:80]


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON number")
